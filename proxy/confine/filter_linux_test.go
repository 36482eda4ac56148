package confine

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/proxy/confine/syscalls"
	"cofferdam.dev/cofferdam/proxy/confine/syscalls/syscallstest"
)

var update = flag.Bool("update", false, "write the golden files")

// What a reviewer should read: the whole of what is left to a proxy.
func TestDescriptions(t *testing.T) {
	for name, text := range map[string]string{
		"proxy.filter": Proxy(4711).String(),
		"proxy.files":  ProxyFiles().String(),
	} {
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if want, err := os.ReadFile(path); err != nil || string(want) != text {
			t.Errorf("%s differs (-update writes it), %v:\n%s", path, err, text)
		}
	}
}

const (
	allowed = syscallstest.Allowed
	killed  = syscallstest.Killed
)

var (
	refused = syscallstest.Refused(unix.EPERM)
	unknown = syscallstest.Refused(unix.ENOSYS)
)

func TestFilterDecides(t *testing.T) {
	compiled := syscallstest.Compile(t, Proxy(4711))
	run := func(arch, number uint32, args ...uint64) uint32 {
		c := syscallstest.Call{Arch: arch, Number: number}
		copy(c.Args[:], args)
		return compiled(c)
	}
	const thread = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_SYSVSEM | unix.CLONE_THREAD
	for _, row := range []struct {
		what   string
		number uint32
		args   []uint64
		want   uint32
	}{
		{"read", unix.SYS_READ, nil, allowed},
		{"execve", unix.SYS_EXECVE, nil, refused},
		{"a thread", unix.SYS_CLONE, []uint64{thread}, allowed},
		{"a thread with storage", unix.SYS_CLONE, []uint64{thread | unix.CLONE_SETTLS}, allowed},
		{"a process", unix.SYS_CLONE, []uint64{uint64(unix.SIGCHLD)}, refused},
		{"a process like vfork's", unix.SYS_CLONE, []uint64{unix.CLONE_VM | unix.CLONE_VFORK | uint64(unix.SIGCHLD)}, refused},
		{"a thread in a namespace", unix.SYS_CLONE, []uint64{thread | unix.CLONE_NEWUSER}, refused},
		{"a thread with upper bits", unix.SYS_CLONE, []uint64{thread | 1<<40}, refused},
		{"clone3", unix.SYS_CLONE3, nil, unknown},
		{"own thread", unix.SYS_TGKILL, []uint64{4711, 4712, 23}, allowed},
		{"own thread, upper half ignored", unix.SYS_TGKILL, []uint64{1<<32 | 4711, 4712, 23}, allowed},
		{"other process", unix.SYS_TGKILL, []uint64{4712, 4712, 23}, refused},
		{"every process", unix.SYS_TGKILL, []uint64{syscalls.WholeAll, 4712, 23}, refused},
		{"memory", unix.SYS_MMAP, []uint64{0, 4096, unix.PROT_READ | unix.PROT_WRITE, unix.MAP_PRIVATE | unix.MAP_ANON}, allowed},
		{"code", unix.SYS_MMAP, []uint64{0, 4096, unix.PROT_READ | unix.PROT_EXEC, unix.MAP_PRIVATE | unix.MAP_ANON}, refused},
		{"shared memory", unix.SYS_MMAP, []uint64{0, 4096, unix.PROT_READ, unix.MAP_SHARED}, refused},
		{"shared memory, validated", unix.SYS_MMAP, []uint64{0, 4096, unix.PROT_READ, unix.MAP_SHARED_VALIDATE}, refused},
		{"open to read", unix.SYS_OPENAT, []uint64{0, 0, unix.O_RDONLY | unix.O_CLOEXEC}, allowed},
		{"open to write", unix.SYS_OPENAT, []uint64{0, 0, unix.O_WRONLY}, refused},
		{"open to read and write", unix.SYS_OPENAT, []uint64{0, 0, unix.O_RDWR | unix.O_CLOEXEC}, refused},
		{"open and create", unix.SYS_OPENAT, []uint64{0, 0, unix.O_CREAT}, refused},
		{"open and empty", unix.SYS_OPENAT, []uint64{0, 0, unix.O_TRUNC}, refused},
		{"open a folder", unix.SYS_OPENAT, []uint64{0, 0, unix.O_DIRECTORY}, refused},
		{"open a path", unix.SYS_OPENAT, []uint64{0, 0, unix.O_PATH}, refused},
		{"tcp", unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_STREAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK, 0}, allowed},
		{"udp 6", unix.SYS_SOCKET, []uint64{unix.AF_INET6, unix.SOCK_DGRAM, 0}, allowed},
		{"mptcp", unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP}, refused},
		{"ping", unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP}, refused},
		{"raw", unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP}, refused},
		{"unix", unix.SYS_SOCKET, []uint64{unix.AF_UNIX, unix.SOCK_STREAM, 0}, refused},
		{"netlink", unix.SYS_SOCKET, []uint64{unix.AF_NETLINK, unix.SOCK_DGRAM, 0}, refused},
		{"no delay", unix.SYS_SETSOCKOPT, []uint64{3, unix.IPPROTO_TCP, unix.TCP_NODELAY}, allowed},
		{"a socket filter", unix.SYS_SETSOCKOPT, []uint64{3, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER}, refused},
		{"a protocol above tcp", unix.SYS_SETSOCKOPT, []uint64{3, unix.IPPROTO_TCP, unix.TCP_ULP}, refused},
		{"status flags", unix.SYS_FCNTL, []uint64{3, unix.F_SETFL, 0}, refused},
		{"a signal for a file", unix.SYS_FCNTL, []uint64{3, unix.F_SETOWN, 1}, refused},
		{"kill", unix.SYS_KILL, []uint64{4711, 0}, refused},
	} {
		if got := run(syscalls.AuditArch, row.number, row.args...); got != row.want {
			t.Errorf("%s: %#x, want %#x", row.what, got, row.want)
		}
		if got := run(syscalls.AuditArch^1, row.number, row.args...); got != killed {
			t.Errorf("%s on another architecture: %#x", row.what, got)
		}
		if got := run(syscalls.AuditArch, row.number|0x40000000, row.args...); got != killed {
			t.Errorf("%s as x32: %#x", row.what, got)
		}
	}
}

// TestNothingElse: every call that no rule names is refused, and so is every
// call where there are no rules.
func TestNothingElse(t *testing.T) {
	named := make(map[uint32]bool)
	for _, r := range Proxy(4711).Rules {
		named[r.Number] = true
	}
	run, zero := syscallstest.Compile(t, Proxy(4711)), syscallstest.Compile(t, syscalls.Filter{})
	for number := range uint32(1024) {
		if got := run(syscallstest.Call{Arch: syscalls.AuditArch, Number: number}); !named[number] && got != refused {
			t.Errorf("call %d: %#x", number, got)
		}
		if got := zero(syscallstest.Call{Arch: syscalls.AuditArch, Number: number}); got != refused {
			t.Errorf("call %d without rules: %#x", number, got)
		}
	}
}
