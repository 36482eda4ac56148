package spec

import (
	"errors"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// checkFiles validates Sandbox.Files against the host, the root and one another, and returns them by path.
func checkFiles(p *pass) (map[string]FileRule, error) {
	grants := map[string]FileRule{}
	for i, f := range p.sb.Files {
		at := "files[" + f.Path + "]"
		if reason := checkPath(f.Path); reason != "" {
			return nil, refused(at, "%s", reason)
		}
		if err := checkGrantPath(f.Path); err != nil {
			return nil, err
		}
		switch f.Access {
		case Read, Write:
		case Deny:
			return nil, refused(at, "a deny cannot be enforced yet; leave out what is not granted")
		default:
			return nil, refused(at, "unknown access %v", f.Access)
		}
		err := CheckWorkspace(f.Source, p.host)
		if r, ok := errors.AsType[*RefusedError](err); ok {
			return nil, refused(at, "source %s: %s", f.Source, r.Reason)
		}
		if err != nil {
			return nil, err
		}
		// An agent that writes to the root file system of a container, its own or another, could swap mount points in it.
		if p.in.Root.Path != "rootfs" && overlap(f.Source, p.in.Root.Path) {
			return nil, refused(at, "source %s and the root file system %s hold one another", f.Source, p.in.Root.Path)
		}
		for _, g := range p.sb.Files[:i] {
			if overlap(f.Path, g.Path) {
				return nil, refused(at, "it and %s hold one another; grants do not nest", g.Path)
			}
			if readable(f, g) || readable(g, f) {
				return nil, refused(at, "source %s is readable by one grant and writable by another", f.Source)
			}
		}
		grants[f.Path] = f
	}
	return grants, nil
}

// readable reports whether what f lets the agent only read could be written through g.
func readable(f, g FileRule) bool {
	return f.Access == Read && g.Access == Write && within(f.Source, g.Source)
}

// checkGrantPath refuses a path that would hide or hold one of the mounts that every container has.
func checkGrantPath(dest string) error {
	if dest == "/" {
		return refused("files[/]", "a workspace cannot take the place of the image")
	}
	for _, dir := range []string{"/proc", "/sys", "/dev", "/etc/resolv.conf", "/etc/hosts", "/etc/hostname"} {
		if overlap(dest, dir) {
			return refused("files["+dest+"]", "a workspace cannot be, hold or lie in %s", dir)
		}
	}
	return nil
}

// grantMount binds f. asked is the engine's mount at that place, of which it keeps what does not widen: no execution, whether mounts below the source come along, and ids mapped as the user namespace maps them.
func (p *pass) grantMount(f FileRule, asked specs.Mount) specs.Mount {
	has := func(names ...string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return slices.Contains(asked.Options, n) })
	}
	m := specs.Mount{Destination: f.Path, Type: "bind", Source: f.Source}
	recursive := has("rbind")
	if recursive {
		m.Options = []string{"rbind"}
	} else {
		m.Options = []string{"bind"}
	}
	m.Options = append(m.Options, "rprivate", "nosuid", "nodev")
	if has("noexec", "rnoexec") {
		m.Options = append(m.Options, "noexec")
	}
	// Whatever the access: who may write is asked about it, see asked. "ro" alone leaves the mounts below the source writable.
	m.Options = append(m.Options, "ro")
	if recursive {
		m.Options = append(m.Options, "rro")
	}
	users := p.out.Linux
	if len(users.UIDMappings) == 0 {
		return m
	}
	own := slices.Equal(asked.UIDMappings, users.UIDMappings) && slices.Equal(asked.GIDMappings, users.GIDMappings)
	none := len(asked.UIDMappings)+len(asked.GIDMappings) == 0
	if own {
		m.UIDMappings, m.GIDMappings = asked.UIDMappings, asked.GIDMappings
	}
	if own || none {
		// Without mappings of its own the option means those of the container.
		for _, o := range []string{"idmap", "ridmap"} {
			if has(o) {
				m.Options = append(m.Options, o)
			}
		}
	}
	return m
}
