package spec

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Host holds the facts about this host that the rules need. It is plain data that the caller gathers. Every path is
// absolute, clean and free of symbolic links.
type Host struct {
	// Bundle is the OCI bundle's folder.
	Bundle string
	// ResolvConf is the resolv.conf made for this sandbox; it is bound read-only at /etc/resolv.conf.
	ResolvConf string
	// Protected are paths that no workspace may be or contain: roots of home folders, state folders, control sockets.
	Protected []string
	// Trees are paths that no workspace may be, contain or lie below: /etc, /proc, ~/.ssh.
	Trees []string
	// EngineDirs are the folders in which engines keep the /etc/hosts and /etc/hostname that they generate per container.
	// No workspace may be or contain one, and of what they hold only volumes may be a workspace.
	EngineDirs []string
	// Listener is the socket to which the OCI runtime sends the listener of a filter that asks, see [Seccomp]; empty: whoever loads the
	// filter sees to it without.
	Listener string
	// Hidden are the paths in the container of what Sandbox.Workspace hides, as far as it exists: below Sandbox.Files, where the agent
	// cannot swap them, since they are mounted read-only. It is not nil, even if it is empty, where somebody has looked.
	Hidden []string
	// Rootless says that the caller is root of a user namespace of an ordinary user's, which may have no ids but that one's: what needs
	// another id, or a right over the whole host, is left out.
	Rootless bool
	// Arch is the architecture that containers run on, as Go names it (GOARCH); see [Seccomp].
	Arch string
}

// DefaultProtected returns the static part of Host.Protected: folders that hold what belongs to everybody on the host. The
// caller appends what it must look up (homes, state folders, sockets).
func DefaultProtected() []string {
	return []string{
		"/", "/bin", "/home", "/lib", "/lib32", "/lib64", "/libx32", "/lost+found", "/media", "/mnt", "/nix", "/opt", "/root",
		"/sbin", "/snap", "/srv", "/tmp", "/usr", "/usr/local", "/usr/src", "/var", "/var/cache", "/var/lib",
		"/var/lib/cofferdam", "/var/lib/containerd", "/var/lib/containers", "/var/lib/docker", "/var/lib/docker/volumes",
		"/var/lib/kubelet", "/var/lib/kubelet/pods", "/var/lib/nerdctl", "/var/lib/rancher", "/var/log", "/var/tmp",
	}
}

// DefaultTrees returns the static part of Host.Trees: folders whose content configures or runs the host, or is the kernel's.
// Writing below them is a way to run code outside, reading a way to secrets.
func DefaultTrees() []string {
	return []string{
		"/bin", "/boot", "/dev", "/efi", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/lost+found", "/nix/store",
		"/proc", "/run", "/sbin", "/sys", "/usr/bin", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libexec",
		"/usr/libx32", "/usr/local/bin", "/usr/local/lib", "/usr/local/sbin", "/usr/sbin", "/usr/share", "/var/lib/dpkg",
		"/var/lib/rpm", "/var/lib/systemd", "/var/run", "/var/spool",
	}
}

// CheckWorkspace returns a *[RefusedError] unless source may be handed to an agent: absolute, clean, neither "/" nor
// one of h.Protected nor a folder around one; outside h.Trees, which count in both directions, as the bundle does; and
// not among what engines keep for their containers in h.EngineDirs, but for volumes.
// The caller has resolved symbolic links in source; the check sees text only.
func CheckWorkspace(source string, h Host) error {
	refuse := func(format string, args ...any) error {
		return &RefusedError{Path: "workspace[" + source + "]", Reason: fmt.Sprintf(format, args...)}
	}
	if reason := checkPath(source); reason != "" {
		return refuse("%s", reason)
	}
	if source == "/" {
		return refuse("a workspace cannot be the whole host")
	}
	protected := append([]string{}, h.Protected...)
	if h.ResolvConf != "" {
		protected = append(protected, h.ResolvConf)
	}
	for _, p := range protected {
		if p != "/" && within(p, source) {
			return refuse("it is or holds %s, which is protected", p)
		}
	}
	trees := append([]string{}, h.Trees...)
	if h.Bundle != "" {
		trees = append(trees, h.Bundle)
	}
	for _, t := range trees {
		// "/" as a tree would refuse everything, which is what it says.
		if overlap(source, t) {
			return refuse("it is, holds or lies in %s, which is protected", t)
		}
	}
	for _, dir := range h.EngineDirs {
		if overlap(source, dir) && !inVolume(source, dir) {
			return refuse("it is, holds or lies in %s, where an engine keeps its containers' files", dir)
		}
	}
	return nil
}

// inVolume reports whether p lies in a volume, which belongs to containers, below the engine's folder dir: nerdctl's and
// kubelet's are .../volumes/..., the latter's parts of one .../volume-subpaths/....
func inVolume(p, dir string) bool {
	if !below(p, dir) {
		return false
	}
	elements := strings.Split(strings.TrimPrefix(p, dir), "/")
	above := elements[:len(elements)-1] // a folder of volumes is none
	return slices.Contains(above, "volumes") || slices.Contains(above, "volume-subpaths")
}

// fromEngine reports whether source is an engine's generated hosts or hostname file. The name is checked too, since an
// engine's folder for a container holds more than these (Docker's has the container's configuration), and it is not in a
// volume, where an agent of the past may have left a symbolic link of that name to any file of the host.
func fromEngine(source string, h Host) bool {
	switch path.Base(source) {
	case "hosts", "etc-hosts", "hostname":
	default:
		return false
	}
	return checkPath(source) == "" && slices.ContainsFunc(h.EngineDirs, func(dir string) bool {
		return dir != "/" && below(source, dir) && !inVolume(source, dir)
	})
}

func optional(path string) []string {
	if path == "" {
		return nil
	}
	return []string{path}
}

// check returns an error for a Host that is incomplete: a caller's fault, so not a RefusedError.
func (h Host) check() error {
	for _, f := range []struct {
		name  string
		paths []string
	}{
		{"bundle", []string{h.Bundle}},
		{"resolv.conf", []string{h.ResolvConf}},
		{"listener", optional(h.Listener)},
		{"protected", h.Protected},
		{"trees", h.Trees},
		{"engine dirs", h.EngineDirs},
		{"hidden", h.Hidden},
	} {
		for _, p := range f.paths {
			if reason := checkPath(p); reason != "" {
				return fmt.Errorf("host %s %q: %s", f.name, p, reason)
			}
		}
	}
	return nil
}
