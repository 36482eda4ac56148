package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/netns/netnstest"
	"cofferdam.dev/cofferdam/shim/runner/pid1"
	"cofferdam.dev/cofferdam/shim/runner/seccomp"
	"cofferdam.dev/cofferdam/spec"
)

// The test binary is also what stands in for libcontainer (prepare, then the binary under test in the same process), and an agent.
const envPrepare = "COFFERDAM_INIT_PREPARE"

// The first thread of a process cannot end before it: no goroutine of a test is to be on it that has its thread end.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	if how, ok := os.LookupEnv(envPrepare); ok {
		fmt.Fprintln(os.Stderr, "prepare:", prepare(how))
		os.Exit(99)
	}
	if len(os.Args) == 2 && acts[os.Args[1]] != nil {
		if err := acts[os.Args[1]](); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	status := m.Run()
	if built, err := binary(); err == nil {
		os.RemoveAll(filepath.Dir(built))
	}
	os.Exit(status)
}

// prepare finishes the container: its own /proc, the capabilities of a sandbox, and no_new_privs unless how says not to.
func prepare(how string) error {
	runtime.LockOSThread()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	allowed := spec.AllowedCapabilities()
	for number, name := range map[int]string{
		unix.CAP_SYS_ADMIN: "CAP_SYS_ADMIN", unix.CAP_SYS_PTRACE: "CAP_SYS_PTRACE", unix.CAP_SYS_RESOURCE: "CAP_SYS_RESOURCE",
		unix.CAP_NET_ADMIN: "CAP_NET_ADMIN", unix.CAP_DAC_READ_SEARCH: "CAP_DAC_READ_SEARCH", unix.CAP_SYS_NICE: "CAP_SYS_NICE",
		unix.CAP_SYS_BOOT: "CAP_SYS_BOOT", unix.CAP_SYS_MODULE: "CAP_SYS_MODULE", unix.CAP_SYS_TTY_CONFIG: "CAP_SYS_TTY_CONFIG",
		unix.CAP_PERFMON: "CAP_PERFMON", unix.CAP_BPF: "CAP_BPF", unix.CAP_CHECKPOINT_RESTORE: "CAP_CHECKPOINT_RESTORE",
	} {
		for _, a := range allowed {
			if a == name {
				return fmt.Errorf("%s is a sandbox's: choose another oracle", name)
			}
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(number), 0, 0, 0); err != nil {
			return fmt.Errorf("drop %s: %w", name, err)
		}
	}
	if how != "privileged" {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
	}
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, envPrepare+"=") {
			env = append(env, v)
		}
	}
	return unix.Exec(fmt.Sprintf("/proc/self/fd/%d", pid1.FDBinary), []string{"cofferdam-init"}, env)
}

// binary builds the program under test, once, as it is shipped.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "cofferdam-init")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "cofferdam-init")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return path, nil
})

// A box is a container with the program under test as its first process, and this process as the runner.
type box struct {
	t      testing.TB
	conn   *net.UnixConn
	cmd    *exec.Cmd
	listen *os.File // from where a filter's listener comes
	output *os.File // what the agent writes to Extra(0), for boxes without a terminal
	waited chan error
}

// A setup is what is special about a box; none is a container as cofferdam makes it.
type setup struct {
	env      []string
	tty      *os.File // its terminal
	stdout   *os.File // the first process's output
	how      string   // for prepare
	bind     bool     // the box goes with the thread that started it, which ends with started
	started  func()
	addFiles []*os.File
}

// filter is the filter of every sandbox.
var filter = sync.OnceValues(func() ([]unix.SockFilter, error) {
	profile, err := spec.Seccomp(runtime.GOARCH, false)
	if err != nil {
		return nil, err
	}
	f, err := seccomp.Filter(profile)
	if err != nil {
		return nil, err
	}
	return f.Program()
})

// order is a command under the filter, whose output is the box's.
func order(t testing.TB, args ...string) pid1.Start {
	t.Helper()
	program, err := filter()
	if err != nil {
		t.Fatal(err)
	}
	return pid1.Start{Args: args, Filter: program, Stdio: [3]pid1.Stream{pid1.Given, pid1.Extra(0), pid1.Extra(0)}}
}

// act is this test binary as an agent.
func act(t testing.TB, name string) pid1.Start {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return order(t, self, name)
}

// makeBox starts a container whose first process waits for its order.
func makeBox(t testing.TB, s setup) *box {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "runner"), os.NewFile(uintptr(pair[1]), "init")
	defer ours.Close()
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	if pair, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	listen, inside := os.NewFile(uintptr(pair[0]), "listener"), os.NewFile(uintptr(pair[1]), "listener")
	t.Cleanup(func() { listen.Close() })
	defer inside.Close()
	output, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close()
	b := &box{t: t, conn: conn.(*net.UnixConn), listen: listen, output: output, waited: make(chan error, 1)}
	b.cmd = exec.Command("/proc/self/exe")
	b.cmd.Env = append([]string{envPrepare + "=" + s.how, "PATH=" + os.Getenv("PATH"), "GORACE=atexit_sleep_ms=10"}, s.env...)
	b.cmd.ExtraFiles = append([]*os.File{program, theirs, inside, write}, s.addFiles...)
	b.cmd.Stderr = os.Stderr
	if s.stdout != nil {
		b.cmd.Stdout = s.stdout
	}
	b.cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
	if s.tty != nil {
		b.cmd.Stdin, b.cmd.Stdout, b.cmd.Stderr = s.tty, s.tty, s.tty
		b.cmd.SysProcAttr.Setsid, b.cmd.SysProcAttr.Setctty = true, true
	}
	started := make(chan error)
	go func() {
		if s.bind {
			runtime.LockOSThread() // and never unlocked: the thread ends with this function
		}
		started <- b.cmd.Start()
		if s.bind {
			s.started()
		}
	}()
	if err := <-started; err != nil {
		netnstest.Skip(t, "pid namespaces", err.Error())
	}
	go func() { b.waited <- b.cmd.Wait() }()
	t.Cleanup(func() {
		b.conn.Close()
		b.output.Close()
		b.cmd.Process.Kill()
	})
	if err := b.conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return b
}

// enter starts a command in a new box.
func enter(t testing.TB, s setup, start pid1.Start) *box {
	t.Helper()
	b := makeBox(t, s)
	if err := pid1.WriteStart(b.conn, start); err != nil {
		t.Fatal(err)
	}
	return b
}

// expect reads the next reports.
func (b *box) expect(want ...pid1.Report) {
	b.t.Helper()
	for _, w := range want {
		got, err := pid1.ReadReport(b.conn)
		if err != nil || got != w {
			b.t.Fatalf("report %+v, %v, want %+v", got, err, w)
		}
	}
}

// ends waits for the end of the container, which must have that status, and returns what the agent wrote.
func (b *box) ends(status int) string {
	b.t.Helper()
	if report, err := pid1.ReadReport(b.conn); !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, unix.ECONNRESET) {
		b.t.Errorf("report %+v, %v, want the end", report, err)
	}
	err := <-b.waited
	if got := b.cmd.ProcessState.Sys().(syscall.WaitStatus); !got.Exited() || got.ExitStatus() != status {
		b.t.Errorf("the container ends with %v (%v), want exit status %d", b.cmd.ProcessState, err, status)
	}
	return b.all()
}

// all is what the agent wrote: it ends once no process of the container is left.
func (b *box) all() string {
	b.t.Helper()
	if err := b.output.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		b.t.Fatal(err)
	}
	out, err := io.ReadAll(b.output)
	if err != nil {
		b.t.Errorf("processes of the container are left: %v", err)
	}
	return string(out)
}

// line reads one line of the agent's.
func (b *box) line() string {
	b.t.Helper()
	if err := b.output.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		b.t.Fatal(err)
	}
	var line []byte
	for one := make([]byte, 1); ; line = append(line, one[0]) {
		if _, err := b.output.Read(one); err != nil {
			b.t.Fatalf("%v after %q", err, line)
		}
		if one[0] == '\n' {
			return string(line)
		}
	}
}

func (b *box) signal(number unix.Signal, group bool) {
	b.t.Helper()
	if err := pid1.WriteSignal(b.conn, pid1.Signal{Number: number, Group: group}); err != nil {
		b.t.Fatal(err)
	}
}

var started = pid1.Report{Event: pid1.Started}

func exited(status uint8) pid1.Report { return pid1.Report{Event: pid1.Exited, Number: status} }

func killed(by unix.Signal) pid1.Report { return pid1.Report{Event: pid1.Killed, Number: uint8(by)} }

func stopped(by unix.Signal) pid1.Report { return pid1.Report{Event: pid1.Stopped, Number: uint8(by)} }
