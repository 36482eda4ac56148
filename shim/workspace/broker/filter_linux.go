package broker

import (
	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/proxy/confine/syscalls"
)

// filter is that of the process with this ID: what Go's runtime needs, and what this package does for an agent. It may read other processes' memory,
// and do nothing else to them; it starts none, makes no socket, and mounts nothing.
func filter(pid int) syscalls.Filter {
	rules := syscalls.GoRuntime(pid)
	allow := func(call string, number uint32, why string, when ...syscalls.Condition) {
		rules = append(rules, syscalls.Rule{Call: call, Number: number, When: when, Why: why})
	}
	allow("fcntl", unix.SYS_FCNTL, "F_GETFL", syscalls.Is(1, unix.F_GETFL))
	allow("fcntl", unix.SYS_FCNTL, "F_SETFL", syscalls.Is(1, unix.F_SETFL))
	allow("fcntl", unix.SYS_FCNTL, "F_SETLEASE, to see that nobody writes", syscalls.Is(1, unix.F_SETLEASE))
	allow("fcntl", unix.SYS_FCNTL, "F_GETLEASE, to see that somebody waits", syscalls.Is(1, unix.F_GETLEASE))
	allow("fcntl", unix.SYS_FCNTL, "F_OFD_SETLKW, to take turns with other brokers", syscalls.Is(1, unix.F_OFD_SETLKW))
	allow("fcntl", unix.SYS_FCNTL, "F_DUPFD_CLOEXEC", syscalls.Is(1, unix.F_DUPFD_CLOEXEC))
	for _, request := range []int{notifyReceive, notifySend, notifyValid, notifyAdd, notifySetFlags} {
		allow("ioctl", unix.SYS_IOCTL, "of a seccomp listener", syscalls.Is(1, request))
	}
	for _, c := range []struct {
		call   string
		number uint32
	}{
		// Package os.
		{"epoll_create1", unix.SYS_EPOLL_CREATE1},
		{"epoll_ctl", unix.SYS_EPOLL_CTL},
		{"epoll_pwait", unix.SYS_EPOLL_PWAIT},
		{"eventfd2", unix.SYS_EVENTFD2},
		{"read", unix.SYS_READ},
		{"write", unix.SYS_WRITE},
		{"pread64", unix.SYS_PREAD64},
		{"pwrite64", unix.SYS_PWRITE64},
		{"close", unix.SYS_CLOSE},
		{"fstat", unix.SYS_FSTAT},
		{"memfd_create", unix.SYS_MEMFD_CREATE},

		// What it is told, and asked.
		{"recvmsg", unix.SYS_RECVMSG},
		{"sendmsg", unix.SYS_SENDMSG},
		{"ppoll", unix.SYS_PPOLL},
		{"process_vm_readv", unix.SYS_PROCESS_VM_READV},

		// For the agent.
		{"openat", unix.SYS_OPENAT},
		{"openat2", unix.SYS_OPENAT2},
		{"readlinkat", unix.SYS_READLINKAT},
		{"getdents64", unix.SYS_GETDENTS64},
		{"newfstatat", sysNewfstatat},
		{"faccessat2", unix.SYS_FACCESSAT2},
		{"mkdirat", unix.SYS_MKDIRAT},
		{"mknodat", unix.SYS_MKNODAT},
		{"symlinkat", unix.SYS_SYMLINKAT},
		{"linkat", unix.SYS_LINKAT},
		{"renameat2", unix.SYS_RENAMEAT2},
		{"unlinkat", unix.SYS_UNLINKAT},
		{"ftruncate", unix.SYS_FTRUNCATE},
		{"fchmodat", unix.SYS_FCHMODAT},
		{"fchownat", unix.SYS_FCHOWNAT},
		{"utimensat", unix.SYS_UTIMENSAT},
		{"fsetxattr", unix.SYS_FSETXATTR},
		{"fremovexattr", unix.SYS_FREMOVEXATTR},
		{"setgroups", unix.SYS_SETGROUPS},
		{"setfsgid", unix.SYS_SETFSGID},
		{"setfsuid", unix.SYS_SETFSUID},
		{"capset", unix.SYS_CAPSET},
		{"statx", unix.SYS_STATX},
	} {
		allow(c.call, c.number, "")
	}
	return syscalls.Filter{Rules: rules, Else: unix.ENOSYS}
}
