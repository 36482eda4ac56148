//go:build linux

package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// An act is a system call that a proxy must not be able to make, whoever has taken it over. It is made in the process itself, by a debugger that
// puts it there; a debugger's own rights play no part in it.
type act struct {
	name   string
	number uintptr
	args   func(m *memory, target int) []uintptr // target is a process that is somebody else's
	want   unix.Errno
}

// byLandlock are the acts that the filter lets through, and Landlock refuses.
var byLandlock = []string{"open a file that everybody may read", "open the folder of the host's state", "open a device"}

func values(v ...uintptr) func(*memory, int) []uintptr {
	return func(*memory, int) []uintptr { return v }
}

// path makes a string of the first argument, and appends the others.
func path(p string, more ...uintptr) func(*memory, int) []uintptr {
	return func(m *memory, _ int) []uintptr { return append([]uintptr{m.text(p)}, more...) }
}

// at does so for a call whose first argument is a folder's descriptor.
func at(p string, more ...uintptr) func(*memory, int) []uintptr {
	return func(m *memory, _ int) []uintptr { return append([]uintptr{^uintptr(99), m.text(p)}, more...) } // AT_FDCWD
}

func ofProcess(more ...uintptr) func(*memory, int) []uintptr {
	return func(_ *memory, target int) []uintptr { return append([]uintptr{uintptr(target)}, more...) }
}

const badFD = ^uintptr(0)

var forbidden = []act{
	// Programs and processes.
	{"run a program", unix.SYS_EXECVE, path("/bin/true", 0, 0), unix.EPERM},
	{"run a program by execveat", unix.SYS_EXECVEAT, at("/bin/true", 0, 0, 0), unix.EPERM},
	{"fork", unix.SYS_FORK, values(), unix.EPERM},
	{"fork by vfork", unix.SYS_VFORK, values(), unix.EPERM},
	{"fork by clone", unix.SYS_CLONE, values(uintptr(unix.SIGCHLD), 0, 0, 0, 0), unix.EPERM},
	{"fork by clone3", unix.SYS_CLONE3, values(0, 0), unix.ENOSYS},
	{"trace a process", unix.SYS_PTRACE, values(unix.PTRACE_SEIZE, 1<<21), unix.EPERM},
	{"read another process's memory", unix.SYS_PROCESS_VM_READV, ofProcess(0, 0, 0, 0, 0), unix.EPERM},
	{"write another process's memory", unix.SYS_PROCESS_VM_WRITEV, ofProcess(0, 0, 0, 0, 0), unix.EPERM},
	{"signal a process", unix.SYS_KILL, ofProcess(0), unix.EPERM},
	{"signal a thread of another process", unix.SYS_TGKILL, func(_ *memory, target int) []uintptr { return []uintptr{uintptr(target), uintptr(target), 0} }, unix.EPERM},
	{"signal by pidfd", unix.SYS_PIDFD_OPEN, ofProcess(0), unix.EPERM},
	{"take a descriptor of another process", unix.SYS_PIDFD_GETFD, values(badFD, 0, 0), unix.EPERM},
	{"move a process to another CPU", unix.SYS_SCHED_SETAFFINITY, ofProcess(0, 0), unix.EPERM},

	// Files.
	{"open the passwords", unix.SYS_OPENAT, at("/etc/shadow", unix.O_RDONLY, 0), unix.EACCES},
	{"open a file that everybody may read", unix.SYS_OPENAT, at("/etc/passwd", unix.O_RDONLY, 0), unix.EACCES},
	{"open the folder of the host's state", unix.SYS_OPENAT, at("/run", unix.O_RDONLY, 0), unix.EACCES},
	{"open a device", unix.SYS_OPENAT, at("/dev/null", unix.O_RDONLY, 0), unix.EACCES},
	{"open a file to write", unix.SYS_OPENAT, at("/dev/null", unix.O_WRONLY, 0), unix.EPERM},
	{"make a file", unix.SYS_OPENAT, at("/tmp/made", unix.O_RDONLY|unix.O_CREAT, 0o600), unix.EPERM},
	{"make a file without a name", unix.SYS_OPENAT, at("/tmp", unix.O_RDWR|unix.O_TMPFILE, 0o600), unix.EPERM},
	{"open by the old call", unix.SYS_OPEN, path("/etc/hosts", unix.O_RDONLY, 0), unix.EPERM},
	{"open by openat2", unix.SYS_OPENAT2, at("/etc/hosts", 0, 0), unix.EPERM},
	{"open by handle", unix.SYS_OPEN_BY_HANDLE_AT, values(badFD, 0, 0), unix.EPERM},
	{"remove a file", unix.SYS_UNLINKAT, at("/tmp/none", 0), unix.EPERM},
	{"rename a file", unix.SYS_RENAME, path("/tmp/none", 0), unix.EPERM},
	{"make a folder", unix.SYS_MKDIR, path("/tmp/folder", 0o700), unix.EPERM},
	{"make a link", unix.SYS_LINKAT, values(badFD, 0, badFD, 0, 0), unix.EPERM},
	{"make a device node", unix.SYS_MKNOD, path("/tmp/node", unix.S_IFCHR, 0x103), unix.EPERM},
	{"change a file's mode", unix.SYS_FCHMOD, values(badFD, 0o777), unix.EPERM},
	{"change a file's owner", unix.SYS_FCHOWN, values(badFD, 0, 0), unix.EPERM},
	{"cut a file off", unix.SYS_FTRUNCATE, values(0, 0), unix.EPERM},
	{"take O_APPEND from the log", unix.SYS_FCNTL, values(0, unix.F_SETFL, 0), unix.EPERM},
	{"map a file shared", unix.SYS_MMAP, values(0, 4096, unix.PROT_READ, unix.MAP_SHARED, badFD, 0), unix.EPERM},
	{"list a folder", unix.SYS_GETDENTS64, values(badFD, 0, 0), unix.EPERM},
	{"list processes by their folders", unix.SYS_READLINK, path("/proc/1/exe", 0, 0), unix.EPERM},
	{"watch files", unix.SYS_INOTIFY_INIT1, values(0), unix.EPERM},
	{"use a device's controls", unix.SYS_IOCTL, values(0, unix.TIOCSTI, 0), unix.EPERM},

	// Sockets.
	{"open a socket of the host's programs", unix.SYS_SOCKET, values(unix.AF_UNIX, unix.SOCK_STREAM, 0), unix.EPERM},
	{"open a pair of them", unix.SYS_SOCKETPAIR, values(unix.AF_UNIX, unix.SOCK_STREAM, 0, 0), unix.EPERM},
	{"open a netlink socket", unix.SYS_SOCKET, values(unix.AF_NETLINK, unix.SOCK_RAW, 0), unix.EPERM},
	{"open a packet socket", unix.SYS_SOCKET, values(unix.AF_PACKET, unix.SOCK_RAW, 0), unix.EPERM},
	{"open a raw socket", unix.SYS_SOCKET, values(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP), unix.EPERM},
	{"open a ping socket", unix.SYS_SOCKET, values(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP), unix.EPERM},
	{"open an MPTCP socket", unix.SYS_SOCKET, values(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP), unix.EPERM},
	{"open an SCTP socket", unix.SYS_SOCKET, values(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP), unix.EPERM},
	{"talk to the hypervisor", unix.SYS_SOCKET, values(unix.AF_VSOCK, unix.SOCK_STREAM, 0), unix.EPERM},
	{"use the kernel's ciphers", unix.SYS_SOCKET, values(unix.AF_ALG, unix.SOCK_SEQPACKET, 0), unix.EPERM},
	{"bind", unix.SYS_BIND, values(badFD, 0, 0), unix.EPERM},
	{"listen", unix.SYS_LISTEN, values(badFD, 1), unix.EPERM},
	{"bind to a device", unix.SYS_SETSOCKOPT, values(badFD, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, 0, 0), unix.EPERM},
	{"be transparent", unix.SYS_SETSOCKOPT, values(badFD, unix.SOL_IP, unix.IP_TRANSPARENT, 0, 0), unix.EPERM},
	{"mark packets", unix.SYS_SETSOCKOPT, values(badFD, unix.SOL_SOCKET, unix.SO_MARK, 0, 0), unix.EPERM},

	// Rights, namespaces, mounts.
	{"become root", unix.SYS_SETUID, values(0), unix.EPERM},
	{"become root by setresuid", unix.SYS_SETRESUID, values(0, 0, 0), unix.EPERM},
	{"join groups", unix.SYS_SETGROUPS, values(0, 0), unix.EPERM},
	{"take capabilities", unix.SYS_CAPSET, values(0, 0), unix.EPERM},
	{"become traceable", unix.SYS_PRCTL, values(unix.PR_SET_DUMPABLE, 1, 0, 0, 0), unix.EPERM},
	{"outlive its parent", unix.SYS_PRCTL, values(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0), unix.EPERM},
	{"raise a limit", unix.SYS_PRLIMIT64, values(0, unix.RLIMIT_NOFILE, 0, 0), unix.EPERM},
	{"set a limit", unix.SYS_SETRLIMIT, values(unix.RLIMIT_NOFILE, 0), unix.EPERM},
	{"leave its process group", unix.SYS_SETSID, values(), unix.EPERM},
	{"unshare a namespace", unix.SYS_UNSHARE, values(unix.CLONE_NEWUTS), unix.EPERM},
	{"unshare a user namespace", unix.SYS_UNSHARE, values(unix.CLONE_NEWUSER), unix.EPERM},
	{"enter a namespace", unix.SYS_SETNS, values(badFD, 0), unix.EPERM},
	{"mount", unix.SYS_MOUNT, values(0, 0, 0, 0, 0), unix.EPERM},
	{"mount by fsopen", unix.SYS_FSOPEN, path("tmpfs", 0), unix.EPERM},
	{"unmount", unix.SYS_UMOUNT2, path("/none", 0), unix.EPERM},
	{"change the root", unix.SYS_CHROOT, path("/"), unix.EPERM},
	{"pivot the root", unix.SYS_PIVOT_ROOT, values(0, 0), unix.EPERM},
	{"change the folder", unix.SYS_CHDIR, path("/"), unix.EPERM},

	// The kernel.
	{"write code", unix.SYS_MMAP, values(0, 4096, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, badFD, 0), unix.EPERM},
	{"make memory into code", unix.SYS_MPROTECT, values(0, 0, unix.PROT_EXEC), unix.EPERM},
	{"make a file in memory", unix.SYS_MEMFD_CREATE, path("x", 0), unix.EPERM},
	{"load BPF", unix.SYS_BPF, values(5, 0, 0), unix.EPERM},
	{"count events", unix.SYS_PERF_EVENT_OPEN, values(0, 0, badFD, badFD, 0), unix.EPERM},
	{"use userfaultfd", unix.SYS_USERFAULTFD, values(1 << 20), unix.EPERM},
	{"use keyrings", unix.SYS_KEYCTL, values(1 << 20), unix.EPERM},
	{"add a key", unix.SYS_ADD_KEY, values(0, 0, 0, 0, 0), unix.EPERM},
	{"use io_uring", unix.SYS_IO_URING_SETUP, values(0, 0), unix.EPERM},
	{"change the filter", unix.SYS_SECCOMP, values(99, 0, 0), unix.EPERM},
	{"change the personality", unix.SYS_PERSONALITY, values(0xffffffff), unix.EPERM},
	{"change its descriptor table", unix.SYS_MODIFY_LDT, values(0, 0, 0), unix.EPERM},
	{"reach ports of the machine", unix.SYS_IOPL, values(0), unix.EPERM},
	{"restart the machine", unix.SYS_REBOOT, values(0, 0, 0, 0), unix.EPERM},
	{"load a module", unix.SYS_INIT_MODULE, values(0, 0, 0), unix.EPERM},
	{"load a kernel", unix.SYS_KEXEC_LOAD, values(0, 0, 0, badFD), unix.EPERM},
	{"set the clock", unix.SYS_CLOCK_SETTIME, values(99, 0), unix.EPERM},
	{"read the kernel's log", unix.SYS_SYSLOG, values(99, 0, 0), unix.EPERM},
	{"make a call that is not known yet", 700, values(), unix.EPERM},
}

// needed are calls that a proxy lives on: made in the same way they work, so that the others are refused for what they are.
var needed = []act{
	{"read the name servers", unix.SYS_OPENAT, at("/etc/resolv.conf", unix.O_RDONLY|unix.O_CLOEXEC, 0), 0},
	{"open a TCP socket", unix.SYS_SOCKET, values(unix.AF_INET, unix.SOCK_STREAM, 0), 0},
	{"map memory", unix.SYS_MMAP, values(0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, badFD, 0), 0},
}

// I9: whoever has taken over a proxy can do nothing of this. The control makes the same calls in the same way in a process of root that is not
// confined, and gets other answers.
func TestNothingForbiddenWorksInsideTheRealProxy(t *testing.T) {
	d := Engine(t, "v2")
	box := Contained(t, d, Policy(t, onlyGood))
	proxy := inspect(t, d, box).Proxy.PID
	target := box.PID(t)
	got := map[string]unix.Errno{}
	err := trace(proxy, func(s *stopped) error {
		for _, a := range slices.Concat(forbidden, needed) {
			errno, err := s.call(a, target)
			if err != nil {
				return fmt.Errorf("%s: %w", a.name, err)
			}
			got[a.name] = errno
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range forbidden {
		if slices.Contains(byLandlock, a.name) {
			Require(t, needLandlock)
		}
		without := control(t, a)
		t.Logf("%-40s %-8s without walls: %s", a.name, name(got[a.name]), name(without))
		if got[a.name] != a.want {
			t.Errorf("%s: %s, want %s", a.name, name(got[a.name]), name(a.want))
		}
		if without == a.want {
			t.Errorf("%s: the answer is the same without walls, and means nothing", a.name)
		}
	}
	for _, a := range needed {
		if got[a.name] != a.want {
			t.Errorf("%s: %s, want %s", a.name, name(got[a.name]), name(a.want))
		}
	}
	// It has noticed nothing.
	if now := inspect(t, d, box).Proxy; now.PID != proxy || now.Restarts != 0 {
		t.Errorf("there is another proxy: %+v", now)
	}
	if got := box.Probe(t, "https", "good.test:443", "good.test"); !got.OK {
		t.Errorf("what is allowed is not reached: %s", got)
	}
}

// Calls of another ABI end the proxy. The sandbox gets another one.
func TestAForeignCallEndsTheRealProxy(t *testing.T) {
	d := Engine(t, "v2")
	box := Contained(t, d, Policy(t, onlyGood))
	for _, a := range []struct {
		name string
		make func(s *stopped) error
	}{
		{"x32", func(s *stopped) error {
			_, err := s.call(act{number: 0x40000000 | unix.SYS_GETPID, args: values()}, 0)
			return err
		}},
		{"int 0x80", func(s *stopped) error { return s.int80(20) }}, // getpid of the 32-bit table
	} {
		proxy := inspect(t, d, box).Proxy.PID
		err := trace(proxy, a.make)
		if ended := (*endedError)(nil); !errors.As(err, &ended) || ended.status.Signal() != unix.SIGSYS {
			t.Errorf("%s: %v, want an end by SIGSYS", a.name, err)
		}
		eventually(t, "there is another proxy", func() bool {
			now := inspect(t, d, box).Proxy.PID
			return now != proxy && now != 0
		})
		twin := startTwin(t)
		if err := trace(twin, a.make); err != nil {
			t.Errorf("%s, without walls: %v", a.name, err)
		}
	}
	if got := box.Probe(t, "https", "good.test:443", "good.test"); !got.OK {
		t.Errorf("what is allowed is not reached: %s", got)
	}
}

func name(e unix.Errno) string {
	if e == 0 {
		return "works"
	}
	return unix.ErrnoName(e)
}

// control makes the act in a process without walls: of root, in a PID and a mount namespace and with a /tmp of its own. What works does so in
// there, or in the lab.
func control(t *testing.T, a act) (errno unix.Errno) {
	t.Helper()
	twin := startTwin(t)
	err := trace(twin, func(s *stopped) (err error) {
		errno, err = s.call(a, 1) // itself, as it is called in there
		return err
	})
	if err != nil {
		t.Fatalf("%s, without walls: %v", a.name, err)
	}
	return errno
}

func startTwin(t *testing.T) (pid int) {
	t.Helper()
	twin := exec.Command("sh", "-c", "mount -t tmpfs none /tmp && exec sleep 3600")
	twin.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Unshareflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	if err := twin.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = twin.Process.Kill()
		_ = twin.Wait()
	})
	eventually(t, "the twin sleeps", func() bool { // before, a debugger would take its signals
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", twin.Process.Pid))
		return err == nil && string(comm) == "sleep\n"
	})
	return twin.Process.Pid
}

// stopped is a process whose first thread is held by a debugger.
type stopped struct {
	pid   int
	saved unix.PtraceRegs
}

// endedError says that the process ended of a call.
type endedError struct{ status unix.WaitStatus }

func (e *endedError) Error() string { return fmt.Sprintf("the process ended: %#x", int(e.status)) }

// trace holds the process while f makes calls in it, and lets it go on as if nothing had been. ptrace(2) belongs to a thread.
func trace(pid int, f func(*stopped) error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: what is still held when the thread ends is let go
		result <- func() (err error) {
			if err := unix.PtraceSeize(pid); err != nil {
				return fmt.Errorf("seize: %w", err)
			}
			s := &stopped{pid: pid}
			// Where it waits is known to be a system call only after a while: a process that has just started loads libraries.
			for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
				if err := unix.PtraceInterrupt(pid); err != nil {
					return fmt.Errorf("interrupt: %w", err)
				}
				if err := s.wait(); err != nil {
					return err
				}
				if err := unix.PtraceGetRegs(pid, &s.saved); err != nil {
					return fmt.Errorf("get registers: %w", err)
				}
				var code [2]byte
				if _, err := unix.PtracePeekText(pid, uintptr(s.saved.Rip-2), code[:]); err == nil && code == [2]byte{0x0f, 0x05} &&
					(s.saved.Orig_rax == unix.SYS_FUTEX || s.saved.Orig_rax == unix.SYS_CLOCK_NANOSLEEP || s.saved.Orig_rax == unix.SYS_EPOLL_PWAIT) {
					break
				}
				if time.Now().After(deadline) {
					return errors.New("it waits nowhere")
				}
				if err := unix.PtraceCont(pid, 0); err != nil {
					return fmt.Errorf("continue: %w", err)
				}
			}
			if err := f(s); err != nil {
				return err
			}
			if err := unix.PtraceSetRegs(pid, &s.saved); err != nil {
				return fmt.Errorf("restore registers: %w", err)
			}
			return unix.PtraceDetach(pid)
		}()
	}()
	return <-result
}

func (s *stopped) wait() error {
	var ws unix.WaitStatus
	if _, err := unix.Wait4(s.pid, &ws, unix.WALL, nil); err != nil {
		return fmt.Errorf("wait: %w", err)
	}
	if !ws.Stopped() {
		return &endedError{ws}
	}
	return nil
}

// call makes one system call.
func (s *stopped) call(a act, target int) (unix.Errno, error) {
	m := &memory{s: s, next: uintptr(s.saved.Rsp) - 8192} // below what the stack holds, red zone included
	args := a.args(m, target)
	if m.err != nil {
		return 0, m.err
	}
	regs := s.saved
	regs.Rip -= 2 // the instruction by which it waits
	regs.Rax, regs.Orig_rax = uint64(a.number), ^uint64(0)
	for i, to := range []*uint64{&regs.Rdi, &regs.Rsi, &regs.Rdx, &regs.R10, &regs.R8, &regs.R9} {
		*to = 0
		if i < len(args) {
			*to = uint64(args[i])
		}
	}
	after, err := s.step(regs)
	if err != nil {
		return 0, err
	}
	if result := int64(after.Rax); result < 0 && result > -4096 {
		return unix.Errno(-result), nil
	}
	return 0, nil
}

// int80 makes a call by the 32-bit gate, whose instruction is put in the place of the other one: both have two bytes.
func (s *stopped) int80(number uint64) error {
	at := uintptr(s.saved.Rip - 2)
	if _, err := unix.PtracePokeText(s.pid, at, []byte{0xcd, 0x80}); err != nil {
		return fmt.Errorf("write code: %w", err)
	}
	regs := s.saved
	regs.Rip -= 2
	regs.Rax, regs.Orig_rax = number, ^uint64(0)
	if _, err := s.step(regs); err != nil {
		return err
	}
	_, err := unix.PtracePokeText(s.pid, at, []byte{0x0f, 0x05})
	return err
}

func (s *stopped) step(regs unix.PtraceRegs) (after unix.PtraceRegs, err error) {
	if err := unix.PtraceSetRegs(s.pid, &regs); err != nil {
		return after, fmt.Errorf("set registers: %w", err)
	}
	if err := unix.PtraceSingleStep(s.pid); err != nil {
		return after, fmt.Errorf("step: %w", err)
	}
	if err := s.wait(); err != nil {
		return after, err
	}
	if err := unix.PtraceGetRegs(s.pid, &after); err != nil {
		return after, fmt.Errorf("get registers: %w", err)
	}
	return after, nil
}

// memory is where arguments are put.
type memory struct {
	s    *stopped
	next uintptr
	err  error
}

func (m *memory) text(p string) uintptr {
	at := m.next
	m.next += uintptr(len(p)+1+7) &^ 7
	if _, err := unix.PtracePokeData(m.s.pid, at, append([]byte(p), 0)); err != nil && m.err == nil {
		m.err = fmt.Errorf("write memory: %w", err)
	}
	return at
}
