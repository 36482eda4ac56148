package confine

import (
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Filter says which system calls a process may make. It is a description:
// String prints it, and [Self] has the kernel apply it. A call that no rule
// matches fails with EPERM, so the zero Filter refuses everything. A call of
// another architecture's or of x32 ends the process, whatever the rules say.
type Filter []Rule

// A Rule lets a call through, or gives it an error of its own, if all of its
// conditions hold. The first rule that matches counts.
type Rule struct {
	Call   string        // as in syscalls(2)
	Number uint32        // on this architecture
	When   []Condition   // on its arguments; none: always
	Errno  syscall.Errno // what it fails with; 0: it is let through
	Why    string        // for the reader
}

// A Condition holds if the argument's bits in Mask are those of Want. The kernel
// reads only the lower half of an argument whose C type is int, so its mask
// leaves out the upper one.
type Condition struct {
	Arg        uint // from 0 to 5
	Mask, Want uint64
}

const (
	wholeInt = 1<<32 - 1
	wholeAll = 1<<64 - 1
)

// is compares an int.
func is[T ~int | ~uint32](arg uint, want T) Condition {
	return Condition{Arg: arg, Mask: wholeInt, Want: uint64(uint32(want))}
}

// only holds if an int has no other bits than these.
func only(arg uint, bits uint32) Condition {
	return Condition{Arg: arg, Mask: uint64(^bits)}
}

// without holds if none of the bits is set.
func without(arg uint, bits uint64) Condition {
	return Condition{Arg: arg, Mask: bits}
}

// Proxy is the filter of the proxy process with that process ID: what Go's
// runtime needs (runtime/sys_linux_*.s, internal/runtime/syscall), what package
// net and the relay use, and nothing for a use to come.
func Proxy(pid int) Filter {
	var f Filter
	allow := func(call string, number uint32, why string, when ...Condition) {
		f = append(f, Rule{Call: call, Number: number, When: when, Why: why})
	}

	// Memory. Private, so that no file is written through it.
	allow("mmap", unix.SYS_MMAP, "neither code nor shared memory",
		without(2, unix.PROT_EXEC), without(3, unix.MAP_SHARED)) // MAP_SHARED is a bit of MAP_SHARED_VALIDATE too
	allow("munmap", unix.SYS_MUNMAP, "")
	allow("madvise", unix.SYS_MADVISE, "")

	// Threads and signals.
	allow("clone", unix.SYS_CLONE, "a thread as the Go runtime makes it, never a process", Condition{
		0, wholeAll &^ unix.CLONE_SETTLS, // which only some architectures need
		unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_SYSVSEM | unix.CLONE_THREAD,
	})
	f = append(f, Rule{
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
	f = append(f, Rule{
		Call: "fcntl", Number: unix.SYS_FCNTL, When: []Condition{is(1, unix.F_SETFL)}, Errno: unix.EPERM,
		Why: "F_SETFL could take O_APPEND from the log; Go tries it on each file that it opens, and does without",
	})

	f = append(f, Rule{
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
				Condition{1, wholeInt &^ (unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK), uint64(kind.number)}, is(2, 0))
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
	return f
}

// String has one line for each rule, and one for what no rule matches.
func (f Filter) String() string {
	var b strings.Builder
	for _, r := range f {
		line := r.Call
		for _, c := range r.When {
			line += "  " + c.String()
		}
		if r.Errno != 0 {
			line += "  -> " + unix.ErrnoName(r.Errno)
		}
		if r.Why != "" {
			line = fmt.Sprintf("%-64s # %s", line, r.Why)
		}
		b.WriteString(line + "\n")
	}
	b.WriteString("else  -> EPERM\nother architecture, x32  -> the process ends\n")
	return b.String()
}

func (c Condition) String() string {
	if c.Mask == wholeAll || c.Mask == wholeInt {
		return fmt.Sprintf("arg%d == %#x", c.Arg, c.Want)
	}
	return fmt.Sprintf("arg%d & %#x == %#x", c.Arg, c.Mask, c.Want)
}
