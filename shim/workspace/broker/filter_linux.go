package broker

import (
	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/proxy/confine/syscalls"
)

// filter is that of the process with this ID: what Go's runtime needs, and what this package does for an agent. It may read other processes' memory,
// and do nothing else to them; it starts none, makes no socket, and mounts nothing.
func filter(pid int) syscalls.Filter {
	var rules []syscalls.Rule
	allow := func(call string, number uint32, why string, when ...syscalls.Condition) {
		rules = append(rules, syscalls.Rule{Call: call, Number: number, When: when, Why: why})
	}
	is := func(arg uint, want int) syscalls.Condition {
		return syscalls.Condition{Arg: arg, Mask: syscalls.WholeInt, Want: uint64(uint32(want))}
	}
	without := func(arg uint, bits uint64) syscalls.Condition { return syscalls.Condition{Arg: arg, Mask: bits} }
	allow("mmap", unix.SYS_MMAP, "neither code nor shared memory", without(2, unix.PROT_EXEC), without(3, unix.MAP_SHARED))
	allow("clone", unix.SYS_CLONE, "a thread as the Go runtime makes it, never a process", syscalls.Condition{
		Mask: syscalls.WholeAll &^ unix.CLONE_SETTLS,
		Want: unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_SYSVSEM | unix.CLONE_THREAD,
	})
	allow("tgkill", unix.SYS_TGKILL, "the runtime interrupts its own threads", is(0, pid))
	allow("fcntl", unix.SYS_FCNTL, "F_GETFL", is(1, unix.F_GETFL))
	allow("fcntl", unix.SYS_FCNTL, "F_SETFL", is(1, unix.F_SETFL))
	for _, request := range []int{notifyReceive, notifySend, notifyValid, notifyAdd, notifySetFlags} {
		allow("ioctl", unix.SYS_IOCTL, "of a seccomp listener", is(1, request))
	}
	for _, c := range []struct {
		call   string
		number uint32
	}{
		// Go's runtime and package os.
		{"munmap", unix.SYS_MUNMAP},
		{"madvise", unix.SYS_MADVISE},
		{"futex", unix.SYS_FUTEX},
		{"nanosleep", unix.SYS_NANOSLEEP},
		{"restart_syscall", unix.SYS_RESTART_SYSCALL},
		{"clock_gettime", unix.SYS_CLOCK_GETTIME},
		{"sched_yield", unix.SYS_SCHED_YIELD},
		{"sched_getaffinity", unix.SYS_SCHED_GETAFFINITY},
		{"getpid", unix.SYS_GETPID},
		{"gettid", unix.SYS_GETTID},
		{"rt_sigaction", unix.SYS_RT_SIGACTION},
		{"rt_sigprocmask", unix.SYS_RT_SIGPROCMASK},
		{"rt_sigreturn", unix.SYS_RT_SIGRETURN},
		{"sigaltstack", unix.SYS_SIGALTSTACK},
		{"getrandom", unix.SYS_GETRANDOM},
		{"exit", unix.SYS_EXIT},
		{"exit_group", unix.SYS_EXIT_GROUP},
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
