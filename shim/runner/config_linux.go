package runner

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/sys/capability"
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

// rlimitNumbers are those of setrlimit(2).
var rlimitNumbers = map[string]int{
	"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_CPU": unix.RLIMIT_CPU, "RLIMIT_DATA": unix.RLIMIT_DATA,
	"RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS, "RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK,
	"RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_NPROC": unix.RLIMIT_NPROC,
	"RLIMIT_RSS": unix.RLIMIT_RSS, "RLIMIT_RTTIME": unix.RLIMIT_RTTIME, "RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING,
	"RLIMIT_STACK": unix.RLIMIT_STACK,
}

// rlimits turns the limits of a spec into libcontainer's, which does not look for them there.
func rlimits(in []specs.POSIXRlimit) ([]configs.Rlimit, error) {
	var out []configs.Rlimit
	for _, l := range in {
		number, known := rlimitNumbers[l.Type]
		if !known {
			return nil, fmt.Errorf("describe container: rlimit %q is not known", l.Type)
		}
		out = append(out, configs.Rlimit{Type: number, Hard: l.Hard, Soft: l.Soft})
	}
	return out, nil
}

// capabilityBits turns names into the bits of capabilities(7).
func capabilityBits(names []string) (bits uint64, err error) {
	known, err := capability.ListSupported()
	if err != nil {
		return 0, fmt.Errorf("describe container: list capabilities: %w", err)
	}
	for _, name := range names {
		i := slices.IndexFunc(known, func(c capability.Cap) bool { return "CAP_"+strings.ToUpper(c.String()) == name })
		if i < 0 {
			return 0, fmt.Errorf("describe container: capability %q is not known", name)
		}
		bits |= 1 << known[i]
	}
	return bits, nil
}
