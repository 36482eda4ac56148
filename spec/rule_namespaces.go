package spec

import (
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// privateNamespaces are new ones in every sandbox. Without one, or with a path to an existing one, the agent would see
// the host's or another container's processes, memory, names, mounts, cgroups or interfaces.
var privateNamespaces = []specs.LinuxNamespaceType{
	specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.MountNamespace, specs.NetworkNamespace, specs.CgroupNamespace,
}

// ruleNamespaces gives the container namespaces of its own. A user or time namespace is the engine's choice: the one
// only takes rights away, the other only shifts clocks.
func ruleNamespaces(p *pass) error {
	var out []specs.LinuxNamespace
	seen := map[specs.LinuxNamespaceType]bool{}
	for _, ns := range p.in.Linux.Namespaces {
		path := fmt.Sprintf("linux.namespaces[%s]", ns.Type)
		if seen[ns.Type] {
			return refused(path, "given twice")
		}
		seen[ns.Type] = true
		switch {
		case ns.Type == specs.UserNamespace:
			if ns.Path != "" {
				return refused(path, "joins %s, whose mappings and rights are unknown", ns.Path)
			}
			if len(p.in.Linux.UIDMappings) == 0 || len(p.in.Linux.GIDMappings) == 0 {
				return refused(path, "needs both uidMappings and gidMappings")
			}
			out = append(out, ns)
		case ns.Type == specs.TimeNamespace:
			if ns.Path != "" {
				p.dropped(path, "joins "+ns.Path, "the time namespace of others is not joined")
				continue
			}
			out = append(out, ns)
		case ns.Type == specs.NetworkNamespace && ns.Path != "":
			// It may be a pod's, a CNI plugin's or another container's, each with interfaces and routes. Replacing it
			// silently would cut off what the user asked for.
			return refused(path, "joins %s; joining another network namespace is not supported yet", ns.Path)
		case slices.Contains(privateNamespaces, ns.Type):
			if ns.Path != "" {
				p.changed(path, "joins "+ns.Path, "the container gets a new one")
			}
			out = append(out, specs.LinuxNamespace{Type: ns.Type})
		default:
			return refused(path, "not a known kind of namespace")
		}
	}
	for _, t := range privateNamespaces {
		if !seen[t] {
			p.added(fmt.Sprintf("linux.namespaces[%s]", t), "", fmt.Sprintf("host %s namespace; the container gets a new one", t))
			out = append(out, specs.LinuxNamespace{Type: t})
		}
	}
	p.out.Linux.Namespaces = out

	user := slices.ContainsFunc(out, func(ns specs.LinuxNamespace) bool { return ns.Type == specs.UserNamespace })
	if user {
		p.out.Linux.UIDMappings, p.out.Linux.GIDMappings = p.in.Linux.UIDMappings, p.in.Linux.GIDMappings
	} else if len(p.in.Linux.UIDMappings)+len(p.in.Linux.GIDMappings) > 0 {
		p.dropped("linux.uidMappings, linux.gidMappings", "", "there is no user namespace")
	}
	if len(p.in.Linux.TimeOffsets) > 0 {
		if slices.ContainsFunc(out, func(ns specs.LinuxNamespace) bool { return ns.Type == specs.TimeNamespace }) {
			p.out.Linux.TimeOffsets = p.in.Linux.TimeOffsets
		} else {
			p.dropped("linux.timeOffsets", "", "there is no time namespace")
		}
	}
	return nil
}
