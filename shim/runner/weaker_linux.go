package runner

import (
	"golang.org/x/sys/unix"
)

// Weaker names the layers that this host cannot give the request, each with what it means. Neither wall hangs on one of them.
func (r Request) Weaker() []string {
	var w []string
	if r.Rootless {
		w = append(w, "no cgroup of its own: memory and processor time are not limited, processes are by RLIMIT_NPROC")
		if r.ProxyID == 0 {
			w = append(w, "one user id: the proxy is the caller, kept in by its system call filter, without a user of its own: "+r.NoIDs)
		}
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION); errno != 0 {
		w = append(w, "no Landlock in this kernel: what files the proxy could open, were it taken over, is up to its user's rights")
	}
	return w
}
