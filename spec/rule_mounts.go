package spec

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// ruleMounts decides what the agent sees in its tree besides the image. Of the host: the workspaces (Sandbox.Files), the
// programs of an agent without an image (Sandbox.Tools), the resolv.conf made for the sandbox, and the engine's own /etc/hosts and /etc/hostname. Of the kernel: the usual file
// systems at their usual places. Everything else is dropped, and what a container cannot do without is added.
//
// The runtime mounts in order. Where a mount would hide an earlier one below it, all are sorted by depth; of several at
// one place the last is kept, which is the one that would have been seen. Workspaces come last: runtimes make mount points
// that are missing, and follow links that the image has on the way, which must not lead into one. None lies below a workspace: who writes there,
// this agent or another one, could swap the mount point for a symbolic link while the runtime mounts (CVE-2025-31133,
// -52565, -52881).
func ruleMounts(p *pass) error {
	grants, err := checkFiles(p)
	if err != nil {
		return err
	}
	for _, m := range p.in.Mounts {
		if reason := checkPath(m.Destination); reason != "" {
			return refused(mountPath(m.Destination), "destination %s", reason)
		}
	}
	var out []specs.Mount
	at := map[string]int{} // where in out a destination is
	for _, m := range p.in.Mounts {
		kept, reason := p.judge(m, grants)
		if reason != "" {
			p.dropped(mountPath(m.Destination), describeMount(m), reason)
			continue
		}
		if why := differs(m, kept); why != "" {
			p.changed(mountPath(m.Destination), why, "only known sources and options are used")
		}
		if i, twice := at[m.Destination]; twice {
			p.dropped(mountPath(m.Destination), describeMount(out[i]), "a later mount hides it")
			out[i] = kept
			continue
		}
		at[m.Destination] = len(out)
		out = append(out, kept)
	}
	for _, m := range p.missing(out) {
		p.added(mountPath(m.Destination), describeMount(m), "the sandbox has it always")
		out = append(out, m)
	}
	granted := func(m specs.Mount) int {
		if _, ok := grants[m.Destination]; ok {
			return 1
		}
		return 0
	}
	last := func(a, b specs.Mount) int { return granted(a) - granted(b) }
	if !slices.IsSortedFunc(out, last) {
		slices.SortStableFunc(out, last)
		p.changed("mounts", "workspaces last", "where the image has a link into one, no mount point is made there")
	}
	if hidden(out) {
		slices.SortStableFunc(out, func(a, b specs.Mount) int { return cmp.Or(last(a, b), depth(a.Destination)-depth(b.Destination)) })
		p.changed("mounts", "sorted by depth", "a later mount would hide an earlier one")
	}
	p.out.Mounts = out
	return nil
}

// judge returns the mount that takes m's place, or why there is none.
func (p *pass) judge(m specs.Mount, grants map[string]FileRule) (specs.Mount, string) {
	for _, g := range grants {
		if below(m.Destination, g.Path) {
			return specs.Mount{}, "it lies below the workspace " + g.Path + ", where the agent could swap the mount point"
		}
	}
	if slices.Contains(p.sb.Tools, m.Destination) {
		return toolMount(m.Destination), ""
	}
	grant, granted := grants[m.Destination]
	if !isBind(m) {
		if granted {
			return specs.Mount{}, "the workspace is mounted here"
		}
		return kernelMount(m)
	}
	if granted {
		return p.grantMount(grant, m), ""
	}
	switch reservedFor(m.Destination) {
	case "resolv.conf":
		return p.resolvConf(), ""
	case "engine":
		for _, g := range grants {
			if overlap(m.Source, g.Source) {
				return specs.Mount{}, "its source lies in the workspace " + g.Path + ", where the agent could swap it"
			}
		}
		if fromEngine(m.Source, p.host) {
			return fileMount(m.Destination, m.Source), ""
		}
		return specs.Mount{}, "its source is not a file that an engine generated"
	}
	return specs.Mount{}, "the host's files are seen only where the sandbox grants them"
}

// isBind knows a bind as runtimes do: runc by the options, whatever the type says, crun by either.
func isBind(m specs.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

// reservedFor says whose the destination is: "resolv.conf" (ours), "engine" (generated per container), "kernel", or "".
func reservedFor(dest string) string {
	switch dest {
	case "/etc/resolv.conf":
		return "resolv.conf"
	case "/etc/hosts", "/etc/hostname":
		return "engine"
	}
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		if within(dest, dir) {
			return "kernel"
		}
	}
	return ""
}

func (p *pass) resolvConf() specs.Mount { return fileMount("/etc/resolv.conf", p.host.ResolvConf) }

// fileMount binds one file that the agent may read and nothing more.
func fileMount(dest, source string) specs.Mount {
	return specs.Mount{
		Destination: dest,
		Type:        "bind",
		Source:      source,
		Options:     []string{"bind", "rprivate", "nosuid", "nodev", "noexec", "ro"},
	}
}

// missing returns the mounts that every container has and out lacks. out is what was kept.
func (p *pass) missing(out []specs.Mount) []specs.Mount {
	has := func(dest string) bool {
		return slices.ContainsFunc(out, func(m specs.Mount) bool { return m.Destination == dest })
	}
	var want []specs.Mount
	for _, t := range p.sb.Tools {
		want = append(want, toolMount(t))
	}
	want = append(want, []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: p.ptsOptions()},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
		p.resolvConf(),
	}...)
	bind := "bind"
	if p.host.Rootless {
		bind = "rbind" // the kernel refuses a user namespace to leave out what is mounted below (mount_namespaces(7))
	}
	for _, f := range p.sb.Files {
		want = append(want, p.grantMount(f, specs.Mount{Options: []string{bind}}))
	}
	// A read-only root needs a place to write that is nobody else's; it counts as the sandbox's memory.
	if p.in.Root.Readonly {
		want = append(want, specs.Mount{
			Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "mode=1777", "size=1g"},
		})
	}
	granted := func(dest string) bool {
		return slices.ContainsFunc(p.sb.Files, func(f FileRule) bool { return f.Path == dest })
	}
	return slices.DeleteFunc(want, func(m specs.Mount) bool {
		return has(m.Destination) || !isBind(m) && granted(m.Destination)
	})
}

// ptsOptions leaves out the tty group where the user namespace does not map it: the kernel would refuse the mount.
func (p *pass) ptsOptions() []string {
	options := []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}
	const tty = 5
	mapped := len(p.out.Linux.GIDMappings) == 0 && !p.host.Rootless || slices.ContainsFunc(p.out.Linux.GIDMappings, func(m specs.LinuxIDMapping) bool {
		return m.ContainerID <= tty && tty-m.ContainerID < m.Size
	})
	if mapped {
		options = append(options, "gid=5")
	}
	return options
}

func mountPath(dest string) string { return "mounts[" + dest + "]" }

func describeMount(m specs.Mount) string {
	if isBind(m) {
		return "bind of " + m.Source
	}
	return m.Type // its options may hold a password
}

// differs says what changed between two mounts at one place, or "".
func differs(old, now specs.Mount) string {
	var what []string
	if old.Type != now.Type {
		what = append(what, fmt.Sprintf("type %s to %s", old.Type, now.Type))
	}
	if old.Source != now.Source {
		what = append(what, fmt.Sprintf("source %s to %s", old.Source, now.Source))
	}
	if !slices.Equal(old.Options, now.Options) {
		what = append(what, fmt.Sprintf("options %s to %s", strings.Join(old.Options, ","), strings.Join(now.Options, ",")))
	}
	if !slices.Equal(old.UIDMappings, now.UIDMappings) || !slices.Equal(old.GIDMappings, now.GIDMappings) {
		what = append(what, "id mappings removed")
	}
	return strings.Join(what, "; ")
}

// hidden reports whether one of the mounts lies below a later one.
func hidden(mounts []specs.Mount) bool {
	earlier := map[string]bool{} // the folders above the destinations so far
	for _, m := range mounts {
		if earlier[m.Destination] {
			return true
		}
		for dir := path.Dir(m.Destination); dir != "/"; dir = path.Dir(dir) {
			earlier[dir] = true
		}
	}
	return false
}

func depth(dest string) int { return strings.Count(strings.TrimSuffix(dest, "/"), "/") }
