package spec

import (
	"fmt"
	"path"
	"slices"
)

// Paths that containerd (pkg/oci/spec.go at v2.3.7) and moby (oci/defaults.go) hide or protect in every container. Engines
// add some that depend on the machine, which are kept.
var (
	maskedPaths = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
		"/sys/devices/virtual/powercap",
	}
	// hostMemory has files that only root of the host may read, which the root of a container is where no user namespace is between: what
	// each page of its memory is used for, and by whom, and how the kernel's own is laid out. Exploits look there for their place.
	hostMemory = []string{
		"/proc/kpagecgroup", "/proc/kpagecount", "/proc/kpageflags", "/proc/pagetypeinfo", "/proc/slabinfo", "/proc/vmallocinfo",
	}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// rulePaths makes masked and read-only paths the union of the spec's and the default ones.
func rulePaths(p *pass) (err error) {
	masked := maskedPaths
	if !p.host.Rootless {
		masked = slices.Concat(masked, hostMemory)
	}
	p.out.Linux.MaskedPaths, err = p.paths("linux.maskedPaths", p.in.Linux.MaskedPaths, masked)
	if err != nil {
		return err
	}
	if len(p.sb.Workspace.Hidden) > 0 && p.host.Hidden == nil {
		return refused("workspace.hidden", "nobody has looked where %q is", p.sb.Workspace.Hidden[0])
	}
	for _, h := range p.host.Hidden {
		if !slices.ContainsFunc(p.sb.Files, func(f FileRule) bool { return below(h, f.Path) }) {
			return fmt.Errorf("host hidden %q: it lies in no folder of the sandbox", h)
		}
		if !slices.Contains(p.out.Linux.MaskedPaths, h) {
			p.added("linux.maskedPaths["+h+"]", "", "the policy hides it")
			p.out.Linux.MaskedPaths = append(p.out.Linux.MaskedPaths, h)
		}
	}
	p.out.Linux.ReadonlyPaths, err = p.paths("linux.readonlyPaths", p.in.Linux.ReadonlyPaths, readonlyPaths)
	return err
}

func (p *pass) paths(at string, given, always []string) ([]string, error) {
	var out []string
	for _, g := range given {
		if checkPath(path.Clean(g)) != "" {
			return nil, refused(at+"["+g+"]", "path is not absolute text")
		}
		clean := path.Clean(g)
		for _, f := range p.sb.Files {
			// Like a mount below a workspace, see ruleMounts; and leaving it out would show what was to be hidden.
			if overlap(clean, f.Path) && !slices.Contains(p.host.Hidden, clean) {
				return nil, refused(at+"["+g+"]", "it and the workspace %s hold one another, where it cannot be enforced", f.Path)
			}
		}
		switch {
		case slices.Contains(out, clean):
			p.dropped(at+"["+g+"]", "", "given twice")
			continue
		case clean != g:
			p.changed(at+"["+g+"]", clean, "shortest form")
		}
		out = append(out, clean)
	}
	for _, a := range always {
		if !slices.Contains(out, a) {
			p.added(at+"["+a+"]", "", "part of every container's defaults")
			out = append(out, a)
		}
	}
	return out, nil
}
