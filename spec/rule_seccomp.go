package spec

import (
	"reflect"
	"slices"
)

// ruleSeccomp replaces the spec's filter by that of every sandbox. What engines put into the spec is their default or a
// user's choice, and neither was made for an agent.
func ruleSeccomp(p *pass) error {
	writes := slices.ContainsFunc(p.sb.Files, func(f FileRule) bool { return f.Access == Write })
	profile, err := Seccomp(p.host.Arch, writes)
	if err != nil {
		return err
	}
	if writes {
		profile.ListenerPath = p.host.Listener
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
