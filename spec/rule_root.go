package spec

import (
	"errors"
	"path"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// ruleRoot keeps the root file system where engines put it: in the bundle, or in a folder of its own (Docker, `ctr run
// --rootfs`), which then is judged as a workspace, since the agent writes there as well.
func ruleRoot(p *pass) error {
	root := p.in.Root
	if root.Path != "rootfs" && root.Path != path.Join(p.host.Bundle, "rootfs") {
		err := CheckWorkspace(root.Path, p.host)
		if r, ok := errors.AsType[*RefusedError](err); ok {
			return refused("root.path", "%s: %s", root.Path, r.Reason)
		}
		if err != nil {
			return err
		}
	}
	p.out.Root = &specs.Root{Path: root.Path, Readonly: root.Readonly}

	// The recursive form: runc applies it to all of the host's mounts in the container's new mount namespace, and what
	// stays shared there would carry mounts out of it and in.
	p.out.Linux.RootfsPropagation = "rprivate"
	if old := p.in.Linux.RootfsPropagation; old == "" {
		p.added("linux.rootfsPropagation", "rprivate", "mounts do not travel between the container and the host")
	} else if old != "rprivate" {
		p.changed("linux.rootfsPropagation", old+" to rprivate", "mounts do not travel between the container and the host")
	}
	return nil
}
