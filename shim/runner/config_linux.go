package runner

import (
	"fmt"

	"github.com/opencontainers/cgroups"
	_ "github.com/opencontainers/cgroups/devices" // device rules are only applied with it
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// libcontainerConfig turns a rewritten spec into what libcontainer takes. The filter is left out: it is loaded in the sandbox.
func libcontainerConfig(s *specs.Spec, name string, ownCgroup bool) (*configs.Config, error) {
	without, linux := *s, *s.Linux
	linux.Seccomp = nil
	without.Linux = &linux
	c, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{
		CgroupName: name, Spec: &without,
		RootlessCgroups: !ownCgroup,
	})
	if err != nil {
		return nil, fmt.Errorf("describe container: %w", err)
	}
	if !ownCgroup {
		// Without one there is nothing to set, and libcontainer takes a limit that cannot be set for a failure.
		c.Cgroups.Resources = &cgroups.Resources{}
	}
	c.ParentDeathSignal = int(unix.SIGKILL)
	return c, nil
}
