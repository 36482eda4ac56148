package spec

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

var versionPattern = lazily(`^1\.[0-9]+\.[0-9]+([-+][0-9A-Za-z.+-]+)?$`)

// ruleRefuse turns away what is not a Linux container, and what insists on being privileged: rewriting it would give
// something that looks like what was asked for and does not work. So it does with what the Sandbox asks for and nothing carries out.
func ruleRefuse(p *pass) error {
	s := p.in
	for _, section := range []struct {
		name    string
		present bool
	}{
		{"solaris", s.Solaris != nil},
		{"windows", s.Windows != nil},
		{"vm", s.VM != nil},
		{"zos", s.ZOS != nil},
		{"freebsd", s.FreeBSD != nil},
	} {
		if section.present {
			return refused(section.name, "only Linux containers can be contained")
		}
	}
	switch {
	case !versionPattern().MatchString(s.Version):
		return refused("ociVersion", "version %q is not 1.x", s.Version)
	case s.Linux == nil:
		return refused("linux", "missing")
	case s.Process == nil:
		return refused("process", "missing")
	case s.Root == nil:
		return refused("root", "missing")
	}
	return refusePrivileged(s)
}

// refusePrivileged knows `--privileged` by what engines make of it: containerd's oci.WithAllDevicesAllowed (ctr, CRI,
// nerdctl) and Docker set one rule that allows every device; oci.WithPrivileged, without the devices, sets all
// capabilities and leaves neither masked nor read-only paths. Parts of it are not refused but taken away by other rules.
func refusePrivileged(s *specs.Spec) error {
	if s.Linux.Resources != nil {
		for _, d := range s.Linux.Resources.Devices {
			wildcard := func(n *int64) bool { return n == nil || *n == -1 }
			if d.Allow && (d.Type == "" || d.Type == "a") && wildcard(d.Major) && wildcard(d.Minor) {
				return refused("linux.resources.devices", "allows every device; a privileged container cannot be contained")
			}
		}
	}
	c := s.Process.Capabilities
	if c != nil && slices.Contains(c.Bounding, "CAP_SYS_ADMIN") && len(s.Linux.MaskedPaths) == 0 && len(s.Linux.ReadonlyPaths) == 0 {
		return refused("process.capabilities", "CAP_SYS_ADMIN without masked paths; a privileged container cannot be contained")
	}
	return nil
}
