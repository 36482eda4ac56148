package spec

import (
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// AllowedCapabilities returns the capabilities that a process may have, as a new slice. It is the default set of
// containerd and Docker without four:
//
//   - CAP_NET_RAW: raw and packet sockets forge what the proxy's side of the veth sees.
//   - CAP_MKNOD: a device node made in the workspace is one on the host.
//   - CAP_SETFCAP: file capabilities planted in the workspace count on the host.
//   - CAP_AUDIT_WRITE: writes to the host's audit log.
//
// Never part of it, among others: CAP_SYS_ADMIN, CAP_NET_ADMIN (interfaces and routes of the sandbox), CAP_SYS_PTRACE,
// CAP_DAC_READ_SEARCH (open_by_handle_at walks out of a bind mount), CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_BPF, CAP_PERFMON,
// CAP_SYS_RESOURCE (raises limits), CAP_SYS_NICE (real-time priority), CAP_SYSLOG, CAP_LINUX_IMMUTABLE, CAP_SYS_TIME.
func AllowedCapabilities() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_NET_BIND_SERVICE",
		"CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
	}
}

// capabilities cuts each set down to what is allowed and never adds. The result is not nil: without it runc exec would
// fall back to the container's set. Inheritable and ambient ones survive an exec of any program by any user, which no
// default grants (CVE-2022-24769).
func capabilities(in *specs.LinuxCapabilities, r *recorder) *specs.LinuxCapabilities {
	out := &specs.LinuxCapabilities{}
	if in == nil {
		r.added("process.capabilities", "none", "they are said, not left to the runtime")
		return out
	}
	allowed := AllowedCapabilities()
	cut := func(set string, caps, allowed []string) []string {
		var kept, gone []string
		for _, c := range caps {
			if slices.Contains(allowed, c) && !slices.Contains(kept, c) {
				kept = append(kept, c)
			} else {
				gone = append(gone, c)
			}
		}
		if len(gone) > 0 {
			r.dropped("process.capabilities."+set, strings.Join(gone, " "), "not needed by an agent, and a way out or onto the host")
		}
		return kept
	}
	out.Bounding = cut("bounding", in.Bounding, allowed)
	out.Effective = cut("effective", in.Effective, allowed)
	out.Permitted = cut("permitted", in.Permitted, allowed)
	out.Inheritable = cut("inheritable", in.Inheritable, nil)
	out.Ambient = cut("ambient", in.Ambient, nil)
	return out
}
