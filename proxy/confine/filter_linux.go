package confine

import (
	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/proxy/confine/syscalls"
)

// Proxy is the filter of the proxy process with that process ID: what Go's
// runtime needs, what package net and the relay use, and nothing for a use to
// come.
func Proxy(pid int) syscalls.Filter {
	rules := syscalls.GoRuntime(pid)
	allow := func(call string, number uint32, why string, when ...syscalls.Condition) {
		rules = append(rules, syscalls.Rule{Call: call, Number: number, When: when, Why: why})
	}

	for _, c := range []struct {
		call   string
		number uint32
	}{
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
	allow("openat", unix.SYS_OPENAT, "to read; which files is Landlock's to say", syscalls.Only(2, unix.O_CLOEXEC))
	allow("fcntl", unix.SYS_FCNTL, "F_GETFL", syscalls.Is(1, unix.F_GETFL))
	allow("fcntl", unix.SYS_FCNTL, "F_DUPFD_CLOEXEC", syscalls.Is(1, unix.F_DUPFD_CLOEXEC))
	allow("fcntl", unix.SYS_FCNTL, "F_SETPIPE_SZ", syscalls.Is(1, unix.F_SETPIPE_SZ))
	rules = append(rules, syscalls.Rule{
		Call: "fcntl", Number: unix.SYS_FCNTL, When: []syscalls.Condition{syscalls.Is(1, unix.F_SETFL)}, Errno: unix.EPERM,
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
			allow("socket", unix.SYS_SOCKET, family.name+", "+kind.name+", the family's own protocol", syscalls.Is(0, family.number),
				syscalls.Condition{Arg: 1, Mask: syscalls.WholeInt &^ (unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK), Want: uint64(kind.number)}, syscalls.Is(2, 0))
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
		allow(o.call, o.number, o.name, syscalls.Is(1, o.level), syscalls.Is(2, o.option))
	}
	return syscalls.Filter{Rules: rules}
}
