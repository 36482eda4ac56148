package confine

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// The tests of [Self] start this test's binary again, built without cgo as the
// proxy is, as root of namespaces of its own: what fails there fails because of
// the walls of this package alone, not for want of a privilege. Each act is done
// twice, with the walls and without.
const (
	envAct      = "COFFERDAM_CONFINE_ACT"
	envConfined = "COFFERDAM_CONFINE_SELF"
)

// The descriptors that the acting process inherits.
const (
	fdLog      = 3 // O_WRONLY|O_APPEND
	fdNames    = 4 // O_RDWR|O_APPEND
	fdListener = 5
)

func TestMain(m *testing.M) {
	if name := os.Getenv(envAct); name != "" {
		os.Exit(perform(name, os.Getenv(envConfined) != ""))
	}
	os.Exit(m.Run())
}

// perform is the acting process: it prints how the act ended, in one line.
func perform(name string, confined bool) int {
	i := slices.IndexFunc(acts, func(a act) bool { return a.name == name })
	if i < 0 {
		fmt.Println("no such act")
		return 1
	}
	a := acts[i]
	if a.prepare != nil {
		a.prepare()
	}
	if confined {
		if _, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
			fmt.Println("no_new_privs:", errno)
			return 1
		}
		lacking, err := Self()
		if err != nil {
			fmt.Println(err)
			return 1
		}
		if lacking != "" {
			fmt.Fprintln(os.Stderr, lacking)
		}
	}
	err := a.do()
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		fmt.Println(unix.ErrnoName(errno))
		return 0
	}
	fmt.Println(err)
	return 0
}

// An act is something that a proxy must not do, unless free.
type act struct {
	name    string
	needs   string // of the kernel; "landlock" if Landlock refuses it and the filter does not
	prepare func() // before the walls are there
	do      func() error
	want    string // how it ends behind the walls: an errno, a signal; <nil> if it is allowed
}

func call(number uintptr, args ...uintptr) func() error {
	var a [6]uintptr
	copy(a[:], args)
	return func() error {
		_, _, errno := unix.RawSyscall6(number, a[0], a[1], a[2], a[3], a[4], a[5])
		return errnoError(errno)
	}
}

// errnoError keeps 0 from becoming an error.
func errnoError(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

// known is for a call that shows that it exists by an error: its first act is to look at arguments which are wrong.
func known(do func() error, because syscall.Errno) func() error {
	return func() error {
		if err := do(); !errors.Is(err, because) {
			return err
		}
		return nil
	}
}

func socket(family, kind, protocol int) func() error {
	return func() error {
		_, err := unix.Socket(family, kind, protocol)
		return err
	}
}

func open(path string, flags int) func() error {
	return func() error {
		_, err := unix.Open(path, flags, 0o600)
		return err
	}
}

// addressed is a socket of the family's that do uses.
func addressed(kind int, do func(fd int) error) func() error {
	return func() error {
		fd, err := unix.Socket(unix.AF_INET, kind, 0)
		if err != nil {
			return fmt.Errorf("socket: %v", err) // which is allowed, so its errno does not count
		}
		return do(fd)
	}
}

func bind(fd int) error { return unix.Bind(fd, &unix.SockaddrInet4{}) }

const page = 4096

// memory is made before there is a filter.
var memory []byte

func makeMemory() {
	var err error
	if memory, err = unix.Mmap(-1, 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON); err != nil {
		panic(err)
	}
}

func fork() error {
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	if pid == 0 {
		unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
	}
	_, err := unix.Wait4(int(pid), nil, 0, nil)
	return err
}

func kill(number uintptr) func() error {
	return func() error {
		parent := uintptr(os.Getppid())
		if number == unix.SYS_KILL {
			return call(number, parent, 0)()
		}
		return call(number, parent, parent, 0)()
	}
}

var acts = slices.Concat([]act{
	// What the kernel can be made to run.
	{name: "run a program", want: "EPERM", do: func() error {
		return unix.Exec("/proc/self/exe", []string{"again"}, []string{envAct + "=nothing"})
	}},
	{name: "run a program by descriptor", want: "EPERM", do: known(call(unix.SYS_EXECVEAT, uintptr(unix.AT_FDCWD&0xffffffff)), unix.EFAULT)},
	{name: "make a process", want: "EPERM", do: fork},
	{name: "make a process by clone3", want: "ENOSYS", do: known(call(unix.SYS_CLONE3, 0, 0), unix.EINVAL)},
	{name: "make memory executable", want: "EPERM", prepare: makeMemory, do: func() error {
		return unix.Mprotect(memory, unix.PROT_READ|unix.PROT_EXEC)
	}},
	{name: "map executable memory", want: "EPERM", do: func() error {
		_, err := unix.Mmap(-1, 0, page, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
		return err
	}},
	{name: "make a file in memory", want: "EPERM", do: func() error {
		_, err := unix.MemfdCreate("x", 0)
		return err
	}},

	// Other processes.
	{name: "signal the parent", want: "EPERM", do: kill(unix.SYS_KILL)},
	{name: "signal the parent's thread", want: "EPERM", do: kill(unix.SYS_TGKILL)},
	{name: "be traced", want: "EPERM", do: call(unix.SYS_PTRACE, unix.PTRACE_TRACEME)},
	{name: "have files signal", want: "EPERM", do: call(unix.SYS_FCNTL, fdListener, unix.F_SETOWN, 0)},

	// Sockets.
	{name: "AF_UNIX", want: "EPERM", do: socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)},
	{name: "AF_NETLINK", want: "EPERM", do: socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)},
	{name: "AF_PACKET", want: "EPERM", do: socket(unix.AF_PACKET, unix.SOCK_RAW, 0)},
	{name: "AF_VSOCK", want: "EPERM", do: socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0), needs: "AF_VSOCK"},
	{name: "raw IP", want: "EPERM", do: socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)},
	{name: "raw IPv6", want: "EPERM", do: socket(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6)},
	{name: "MPTCP", want: "EPERM", do: socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP), needs: "MPTCP"},
	{name: "a pair of sockets", want: "EPERM", do: func() error {
		_, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		return err
	}},
	{name: "bind TCP", want: "EPERM", do: addressed(unix.SOCK_STREAM, bind)},
	{name: "bind UDP", want: "EPERM", do: addressed(unix.SOCK_DGRAM, bind)},
	{name: "listen", want: "EPERM", do: addressed(unix.SOCK_STREAM, func(fd int) error { return unix.Listen(fd, 1) })},
	{name: "attach a filter to a socket", want: "EPERM", do: addressed(unix.SOCK_STREAM, func(fd int) error {
		nothing := unix.SockFilter{Code: unix.BPF_RET}
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing})
	})},

	// Files.
	{name: "read what every user can", want: "EACCES", needs: "landlock", do: open("/etc/passwd", unix.O_RDONLY|unix.O_CLOEXEC)},
	{name: "read a process's status", want: "EACCES", needs: "landlock", do: open("/proc/self/status", unix.O_RDONLY|unix.O_CLOEXEC)},
	{name: "read the name servers", want: "<nil>", do: open("/etc/resolv.conf", unix.O_RDONLY|unix.O_CLOEXEC)},
	{name: "read the hosts", want: "<nil>", do: open("/etc/hosts", unix.O_RDONLY|unix.O_CLOEXEC)},
	{name: "list a folder", want: "EPERM", do: open("/etc", unix.O_RDONLY|unix.O_DIRECTORY)},
	{name: "make a file", want: "EPERM", do: open("made", unix.O_WRONLY|unix.O_CREAT)},
	{name: "open a file to write", want: "EPERM", do: open("log", unix.O_WRONLY|unix.O_APPEND)},
	{name: "open a file to empty it", want: "EPERM", do: open("log", unix.O_TRUNC)},
	{name: "remove a file", want: "EPERM", do: func() error { return unix.Unlink("log") }},
	{name: "rename a file", want: "EPERM", do: func() error { return unix.Rename("log", "other") }},
	{name: "change a file's mode", want: "EPERM", do: func() error { return unix.Fchmod(fdLog, 0o666) }},

	// What was recorded stays.
	{name: "append to the log", want: "<nil>", do: func() error {
		_, err := unix.Write(fdLog, []byte("x\n"))
		return err
	}},
	{name: "cut the log off", want: "EPERM", do: func() error { return unix.Ftruncate(fdLog, 0) }},
	{name: "cut a file off by name", want: "EPERM", do: func() error { return unix.Truncate("log", 0) }},
	{name: "allocate the log", want: "EPERM", do: func() error { return unix.Fallocate(fdLog, 0, 0, 1) }},
	{name: "write into the log", want: "EPERM", do: func() error {
		_, err := unix.Pwrite(fdLog, []byte("x"), 0)
		return err
	}},
	{name: "stop appending", want: "EPERM", do: call(unix.SYS_FCNTL, fdLog, unix.F_SETFL, 0)},
	{name: "map the names", want: "EPERM", do: func() error {
		_, err := unix.Mmap(fdNames, 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		return err
	}},

	// The kernel.
	{name: "mount", want: "EPERM", do: func() error { return unix.Mount("x", "/tmp", "tmpfs", 0, "") }},
	{name: "unshare", want: "EPERM", do: call(unix.SYS_UNSHARE, unix.CLONE_NEWUTS)},
	{name: "change the root", want: "EPERM", do: func() error { return unix.Chroot("/") }},
	{name: "be dumpable", want: "EPERM", do: call(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1)},
	{name: "ask for the kernel's version", want: "EPERM", do: func() error { return unix.Uname(&unix.Utsname{}) }},
	{name: "io_uring", want: "EPERM", needs: "io_uring", do: known(call(unix.SYS_IO_URING_SETUP, 1, 0), unix.EFAULT)},
	{name: "bpf", want: "EPERM", needs: "bpf", do: known(call(unix.SYS_BPF, 1<<20, 0, 0), unix.EINVAL)},
	// 1 is UFFD_USER_MODE_ONLY of linux/userfaultfd.h: all that an unprivileged user may handle.
	{name: "userfaultfd", want: "EPERM", needs: "userfaultfd", do: call(unix.SYS_USERFAULTFD, 1|unix.O_CLOEXEC)},
	{name: "keyrings", want: "EPERM", needs: "keyrings", do: call(unix.SYS_KEYCTL, unix.KEYCTL_GET_KEYRING_ID, uintptr(unix.KEY_SPEC_PROCESS_KEYRING&0xffffffff), 1)},

	// What the proxy lives on.
	{name: "make threads", want: "<nil>", do: makeThreads},
	{name: "collect garbage", want: "<nil>", do: collectGarbage},
	{name: "use a pipe", want: "<nil>", do: func() error {
		r, w, err := os.Pipe()
		if err == nil {
			_, err = w.WriteString("x")
		}
		if err == nil {
			_, err = r.Read(make([]byte, 1))
		}
		return err
	}},
	{name: "take over the listener", want: "<nil>", prepare: func() {
		if err := unix.SetNonblock(fdListener, true); err != nil { // as package process does
			panic(err)
		}
	}, do: func() error {
		l, err := net.FileListener(os.NewFile(fdListener, "listener"))
		if err == nil {
			err = l.Close()
		}
		return err
	}},
	{name: "relay", want: "<nil>", prepare: listen, do: relay},
	{name: "nothing", want: "<nil>", do: func() error { return nil }},
}, machineActs)

// loopback listens before there is a filter.
var loopback net.Listener

func listen() {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		panic(err)
	}
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		panic(err)
	}
	lo.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil { // lo of this process's own namespace
		panic(err)
	}
	if loopback, err = net.Listen("tcp4", "127.0.0.1:0"); err != nil {
		panic(err)
	}
}

// relay sends more than a pipe holds from one connection to another, as bulk is relayed: io.Copy splices.
func relay() error {
	const size = 4 << 20
	var ends [4]net.Conn // 0 to 1, relayed to 2, to 3
	for i := 0; i < len(ends); i += 2 {
		var err error
		if ends[i], err = net.Dial("tcp4", loopback.Addr().String()); err != nil {
			return err
		}
		if ends[i+1], err = loopback.Accept(); err != nil {
			return err
		}
	}
	go func() {
		ends[0].Write(make([]byte, size))
		ends[0].Close()
	}()
	go func() {
		io.Copy(ends[2].(*net.TCPConn), ends[1].(*net.TCPConn))
		ends[2].Close()
	}()
	if n, err := io.Copy(io.Discard, ends[3]); err != nil || n != size {
		return fmt.Errorf("%d bytes, %w", n, err)
	}
	return nil
}

// makeThreads locks more goroutines to threads than there can be idle ones, and ends those threads.
func makeThreads() error {
	const threads = 64
	var started, ended sync.WaitGroup
	for range threads {
		started.Add(1)
		ended.Go(func() {
			runtime.LockOSThread() // and never unlocked
			started.Done()
			started.Wait()
		})
	}
	ended.Wait()
	return nil
}

// collectGarbage preempts goroutines that never yield (by tgkill), and gives memory back.
func collectGarbage() error {
	var stop sync.WaitGroup
	done := make(chan struct{})
	stop.Go(func() {
		for n := 0; ; n++ {
			if n%(1<<16) == 0 {
				select {
				case <-done:
					return
				default:
				}
			}
		}
	})
	for range 20 {
		_ = make([]byte, 4<<20)
		runtime.GC()
	}
	close(done)
	stop.Wait()
	return nil
}

// require skips a test whose means are missing, or fails it if
// COFFERDAM_TEST_REQUIRE names them or says "all".
func require(t *testing.T, name string, ok bool) {
	t.Helper()
	if ok {
		return
	}
	for want := range strings.SplitSeq(os.Getenv("COFFERDAM_TEST_REQUIRE"), ",") {
		if want == name || want == "all" {
			t.Fatalf("missing: %s", name)
		}
	}
	t.Skipf("missing: %s", name)
}

func TestSelf(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "confine.test")
	build := exec.Command("go", "test", "-c", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	attr := func() *syscall.SysProcAttr {
		return &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
	}
	probe := exec.Command("/bin/true")
	probe.SysProcAttr = attr()
	require(t, "user namespaces", probe.Run() == nil)

	for _, a := range acts {
		t.Run(a.name, func(t *testing.T) {
			run := func(confined string) string {
				dir := t.TempDir()
				open := func(name string, flags int) *os.File {
					f, err := os.OpenFile(filepath.Join(dir, name), flags|os.O_CREATE|os.O_APPEND, 0o600)
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { f.Close() })
					f.WriteString("written\n")
					return f
				}
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				listener, err := l.(*net.TCPListener).File()
				if err != nil {
					t.Fatal(err)
				}
				defer listener.Close()
				cmd := exec.Command(binary)
				cmd.Dir = dir
				cmd.Env = []string{envAct + "=" + a.name, envConfined + "=" + confined}
				cmd.ExtraFiles = []*os.File{open("log", os.O_WRONLY), open("names", os.O_RDWR), listener}
				cmd.SysProcAttr = attr()
				out, err := cmd.Output()
				if state := cmd.ProcessState; state != nil {
					if s := state.Sys().(syscall.WaitStatus); s.Signaled() {
						return unix.SignalName(s.Signal())
					}
				}
				if err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				return strings.TrimSuffix(string(out), "\n")
			}
			free, confined := run(""), run("yes")
			if a.needs == "landlock" {
				_, err := ll.LandlockGetABIVersion()
				require(t, a.needs, err == nil)
			} else if a.needs != "" {
				require(t, a.needs, free == "<nil>")
			}
			if free != "<nil>" || confined != a.want {
				t.Errorf("without the walls it ends with %s, behind them with %s, want %s", free, confined, a.want)
			}
		})
	}
}
