package confine

import (
	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/proxy/confine/syscalls"
)

// is compares an int.
func is[T ~int | ~uint32](arg uint, want T) syscalls.Condition {
	return syscalls.Condition{Arg: arg, Mask: syscalls.WholeInt, Want: uint64(uint32(want))}
}

// only holds if an int has no other bits than these.
func only(arg uint, bits uint32) syscalls.Condition {
	return syscalls.Condition{Arg: arg, Mask: uint64(^bits)}
}

// without holds if none of the bits is set.
func without(arg uint, bits uint64) syscalls.Condition {
	return syscalls.Condition{Arg: arg, Mask: bits}
}

// Proxy is the filter of the proxy process with that process ID: what Go's
// runtime needs (runtime/sys_linux_*.s, internal/runtime/syscall), what package
// net and the relay use, and nothing for a use to come.
func Proxy(pid int) syscalls.Filter {
	var rules []syscalls.Rule
	allow := func(call string, number uint32, why string, when ...syscalls.Condition) {
		rules = append(rules, syscalls.Rule{Call: call, Number: number, When: when, Why: why})
	}

	// Memory. Private, so that no file is written through it.
	allow("mmap", unix.SYS_MMAP, "neither code nor shared memory",
		without(2, unix.PROT_EXEC), without(3, unix.MAP_SHARED)) // MAP_SHARED is a bit of MAP_SHARED_VALIDATE too
	allow("munmap", unix.SYS_MUNMAP, "")
	allow("madvise", unix.SYS_MADVISE, "")

	// Threads and signals.
	allow("clone", unix.SYS_CLONE, "a thread as the Go runtime makes it, never a process", syscalls.Condition{
		Mask: syscalls.WholeAll &^ unix.CLONE_SETTLS, // which only some architectures need
		Want: unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_SYSVSEM | unix.CLONE_THREAD,
	})
	rules = append(rules, syscalls.Rule{
		Call: "clone3", Number: unix.SYS_CLONE3, Errno: unix.ENOSYS,
		Why: "its flags lie in memory, which no filter sees: whoever tries it falls back to clone",
	})
	allow("tgkill", unix.SYS_TGKILL, "the runtime interrupts its own threads", is(0, pid))
	for _, c := range []struct {
		call   string
		number uint32
	}{
		{"futex", unix.SYS_FUTEX},
		{"nanosleep", unix.SYS_NANOSLEEP},
		{"restart_syscall", unix.SYS_RESTART_SYSCALL}, // by the kernel, after SIGSTOP and SIGCONT
		{"clock_gettime", unix.SYS_CLOCK_GETTIME},     // where the vDSO has no clock
		{"sched_yield", unix.SYS_SCHED_YIELD},
		{"sched_getaffinity", unix.SYS_SCHED_GETAFFINITY}, // GOMAXPROCS follows it
		{"getpid", unix.SYS_GETPID},
		{"gettid", unix.SYS_GETTID},
		{"rt_sigaction", unix.SYS_RT_SIGACTION},
		{"rt_sigprocmask", unix.SYS_RT_SIGPROCMASK},
		{"rt_sigreturn", unix.SYS_RT_SIGRETURN},
		{"sigaltstack", unix.SYS_SIGALTSTACK},
		{"getrandom", unix.SYS_GETRANDOM},
		{"exit", unix.SYS_EXIT},
		{"exit_group", unix.SYS_EXIT_GROUP},

		// Descriptors that it has.
		{"read", unix.SYS_READ},
		{"write", unix.SYS_WRITE},
		{"writev", unix.SYS_WRITEV},
		{"pread64", unix.SYS_PREAD64}, // the runtime, of the cgroup's CPU limit
		{"lseek", unix.SYS_LSEEK},
		{"close", unix.SYS_CLOSE},
		{"fstat", unix.SYS_FSTAT},
		{"newfstatat", sysNewfstatat}, // has resolv.conf changed?
		{"epoll_create1", unix.SYS_EPOLL_CREATE1},
		{"epoll_ctl", unix.SYS_EPOLL_CTL},
		{"epoll_pwait", unix.SYS_EPOLL_PWAIT},
		{"eventfd2", unix.SYS_EVENTFD2},
		{"pipe2", unix.SYS_PIPE2}, // splice needs one
		{"splice", unix.SYS_SPLICE},
	} {
		allow(c.call, c.number, "")
	}
	allow("openat", unix.SYS_OPENAT, "to read; which files is Landlock's to say", only(2, unix.O_CLOEXEC))
	allow("fcntl", unix.SYS_FCNTL, "F_GETFL", is(1, unix.F_GETFL))
	allow("fcntl", unix.SYS_FCNTL, "F_DUPFD_CLOEXEC", is(1, unix.F_DUPFD_CLOEXEC))
	allow("fcntl", unix.SYS_FCNTL, "F_SETPIPE_SZ", is(1, unix.F_SETPIPE_SZ))
	rules = append(rules, syscalls.Rule{
		Call: "fcntl", Number: unix.SYS_FCNTL, When: []syscalls.Condition{is(1, unix.F_SETFL)}, Errno: unix.EPERM,
		Why: "F_SETFL could take O_APPEND from the log; Go tries it on each file that it opens, and does without",
	})

	rules = append(rules, syscalls.Rule{
		Call: "uname", Number: unix.SYS_UNAME, Errno: unix.EPERM,
		Why: "package net asks for the host's name, and does without; the kernel's version is nobody's business",
	})

	// Sockets. Those that listen are inherited: there is neither bind nor listen.
	for _, family := range []struct {
		name   string
		number int
	}{{"AF_INET", unix.AF_INET}, {"AF_INET6", unix.AF_INET6}} {
		for _, kind := range []struct {
			name   string
			number int
		}{{"SOCK_STREAM", unix.SOCK_STREAM}, {"SOCK_DGRAM", unix.SOCK_DGRAM}} {
			allow("socket", unix.SYS_SOCKET, family.name+", "+kind.name+", the family's own protocol", is(0, family.number),
				syscalls.Condition{Arg: 1, Mask: syscalls.WholeInt &^ (unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK), Want: uint64(kind.number)}, is(2, 0))
		}
	}
	for _, c := range []struct {
		call   string
		number uint32
	}{
		{"connect", unix.SYS_CONNECT},
		{"accept4", unix.SYS_ACCEPT4},
		{"getsockname", unix.SYS_GETSOCKNAME},
		{"getpeername", unix.SYS_GETPEERNAME},
		{"sendto", unix.SYS_SENDTO},
		{"recvfrom", unix.SYS_RECVFROM},
		{"sendmsg", unix.SYS_SENDMSG},
		{"recvmsg", unix.SYS_RECVMSG},
		{"shutdown", unix.SYS_SHUTDOWN},
	} {
		allow(c.call, c.number, "")
	}
	for _, o := range []struct {
		call          string
		number        uint32
		level, option int
		name          string
	}{
		{"getsockopt", unix.SYS_GETSOCKOPT, unix.SOL_SOCKET, unix.SO_ERROR, "SO_ERROR"},
		{"getsockopt", unix.SYS_GETSOCKOPT, unix.SOL_SOCKET, unix.SO_TYPE, "SO_TYPE"},
		{"getsockopt", unix.SYS_GETSOCKOPT, unix.SOL_SOCKET, unix.SO_PROTOCOL, "SO_PROTOCOL, which x/net/ipv4 asks for each packet"},
		{"setsockopt", unix.SYS_SETSOCKOPT, unix.SOL_SOCKET, unix.SO_BROADCAST, "SO_BROADCAST, which Go sets on every UDP socket"},
		{"setsockopt", unix.SYS_SETSOCKOPT, unix.SOL_SOCKET, unix.SO_KEEPALIVE, "SO_KEEPALIVE"},
		{"setsockopt", unix.SYS_SETSOCKOPT, unix.SOL_SOCKET, unix.SO_LINGER, "SO_LINGER, to reset a connection"},
		{"setsockopt", unix.SYS_SETSOCKOPT, unix.IPPROTO_TCP, unix.TCP_NODELAY, "TCP_NODELAY"},
		{"setsockopt", unix.SYS_SETSOCKOPT, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, "TCP_KEEPIDLE"},
		{"setsockopt", unix.SYS_SETSOCKOPT, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, "TCP_KEEPINTVL"},
		{"setsockopt", unix.SYS_SETSOCKOPT, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, "TCP_KEEPCNT"},
		{"setsockopt", unix.SYS_SETSOCKOPT, unix.IPPROTO_IP, unix.IP_PKTINFO, "IP_PKTINFO: whom was a query sent to?"},
		{"setsockopt", unix.SYS_SETSOCKOPT, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, "IPV6_V6ONLY"},
	} {
		allow(o.call, o.number, o.name, is(1, o.level), is(2, o.option))
	}
	return syscalls.Filter{Rules: rules}
}
