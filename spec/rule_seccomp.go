package spec

import "reflect"

// ruleSeccomp replaces the spec's filter by that of every sandbox. What engines put into the spec is their default or a
// user's choice, and neither was made for an agent.
func ruleSeccomp(p *pass) error {
	profile, err := Seccomp(p.host.Arch)
	if err != nil {
		return err
	}
	switch old := p.in.Linux.Seccomp; {
	case old == nil:
		p.added("linux.seccomp", "", "every sandbox has the same filter")
	case !reflect.DeepEqual(old, profile):
		p.changed("linux.seccomp", "", "every sandbox has the same filter")
	}
	p.out.Linux.Seccomp = profile
	return nil
}
