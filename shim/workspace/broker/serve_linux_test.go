package broker

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/proxy/confine/syscalls/load"
	"cofferdam.dev/cofferdam/shim/runner/seccomp"
	"cofferdam.dev/cofferdam/spec"
)

// envAct has the test binary be an agent: under the filter that asks, whose listener it sends to descriptor 3, it does one of the acts.
const envAct = "COFFERDAM_TEST_BROKER_ACT"

var acts = map[string]struct {
	do func(dir string) error
	// interruptible is as before Linux 5.19, and in containers.
	interruptible bool
}{
	"write many files":           {do: writeMany},
	"write files for ever":       {do: writeForEver},
	"save a text":                {do: saveText},
	"make a folder":              {do: makeFolder, interruptible: true},
	"make one folder or another": {do: makeFolder, interruptible: true},
}

func TestMain(m *testing.M) {
	if name, ok := os.LookupEnv(envAct); ok {
		runtime.LockOSThread() // the filter is this thread's
		act := acts[name]
		if err := errors.Join(ask(act.interruptible), act.do(os.Args[1])); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func ask(interruptible bool) error {
	profile, err := spec.Seccomp(runtime.GOARCH, true)
	if err != nil {
		return err
	}
	f, err := seccomp.Filter(profile)
	if err != nil {
		return err
	}
	program, err := f.Program()
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	var l int
	if !interruptible {
		l, err = load.Asking(program)
	} else {
		prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
		fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&prog)))
		l, err = int(fd), os.NewSyscallError("seccomp", errnoOf(errno))
	}
	if err != nil {
		return err
	}
	defer unix.Close(l)
	return unix.Sendmsg(3, []byte{sayListener}, unix.UnixRights(l), nil, 0)
}

func errnoOf(errno unix.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}

// An agentProcess does an act in a folder.
type agentProcess struct {
	*exec.Cmd
	listener listener
	socket   int // its descriptor 3
	said     bytes.Buffer
}

func agent(t *testing.T, act, dir string) *agentProcess {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "agent")
	a := &agentProcess{Cmd: exec.Command("/proc/self/exe", dir), socket: pair[0]}
	a.Env = []string{envAct + "=" + act, "GORACE=atexit_sleep_ms=10"}
	a.ExtraFiles = []*os.File{theirs}
	a.Stderr = &a.said
	err = a.Start()
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Process.Kill(); unix.Close(a.socket) })
	message, oob := make([]byte, 1), make([]byte, 32)
	_, n, _, _, err := unix.Recvmsg(a.socket, message, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f, err := received(oob[:n])
	if err != nil {
		t.Fatal(err, a.wait())
	}
	t.Cleanup(func() { f.Close() })
	a.listener = listener(f.Fd())
	return a
}

func (a *agentProcess) wait() error {
	if err := a.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, a.said.Bytes())
	}
	return nil
}

const many = 600

// writeMany writes files that hold their names. What it is given to write to must be no descriptor that it had.
func writeMany(dir string) error {
	wrong := 0
	for i := range many {
		fd, err := unix.Open(filepath.Join(dir, strconv.Itoa(i)), unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return err
		}
		if fd <= 3 {
			wrong++
			continue
		}
		if _, err := unix.Write(fd, []byte(strconv.Itoa(i))); err != nil {
			wrong++
		}
		unix.Close(fd)
	}
	if wrong > 0 {
		return fmt.Errorf("%d of %d opens gave no new file", wrong, many)
	}
	return nil
}

// TestSignalsLoseNoFile has signals rain on all threads while files are handed out, as the garbage collector's do: one that interrupts the kernel while it
// hands a file over takes the file back, after the call has been answered.
func TestSignalsLoseNoFile(t *testing.T) {
	b, dir := desk(t)
	var agents, servers sync.WaitGroup
	for i := range 3 {
		folder := filepath.Join(dir, strconv.Itoa(i))
		if err := os.Mkdir(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		a := agent(t, "write many files", folder)
		servers.Go(func() {
			if err := b.serve(a.listener, 2); err != nil {
				t.Error(err)
			}
		})
		agents.Go(func() {
			if err := a.wait(); err != nil {
				t.Error(err)
			}
			for i := range many {
				name := strconv.Itoa(i)
				if text, err := os.ReadFile(filepath.Join(folder, name)); err != nil || string(text) != name {
					t.Errorf("%s: %q, %v", name, text, err)
					return
				}
			}
		})
	}
	over := make(chan struct{})
	go func() { agents.Wait(); close(over) }()
	for i := 0; ; i++ {
		select {
		case <-over:
			servers.Wait()
			return
		default:
		}
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		for _, thread := range threads {
			if tid, err := strconv.Atoi(thread.Name()); err == nil {
				_ = unix.Tgkill(os.Getpid(), tid, unix.SIGURG) // it may have ended
			}
		}
		if i%100 == 0 {
			runtime.GC()
		}
	}
}

// makeFolder makes "a". If it is told so by descriptor 3 while it waits, the name in its memory becomes "b" before it asks the second time.
func makeFolder(dir string) error {
	path, err := unix.BytePtrFromString(filepath.Join(dir, "a"))
	if err != nil {
		return err
	}
	go func() {
		for b := []byte{0}; ; {
			if n, err := unix.Read(3, b); err != nil || n == 0 {
				return
			}
			*(*byte)(unsafe.Add(unsafe.Pointer(path), len(dir)+1)) = 'b'
			_, _ = unix.Write(3, b)
		}
	}()
	_, _, errno := unix.RawSyscall(unix.SYS_MKDIRAT, ^uintptr(99), uintptr(unsafe.Pointer(path)), 0o755) // AT_FDCWD
	return errnoOf(errno)
}

// TestAnInterruptedCallHasItsOutcome interrupts a call that has been carried out before it is answered. It is made once more: it must not happen twice, and
// another one must not be taken for it.
func TestAnInterruptedCallHasItsOutcome(t *testing.T) {
	for act, made := range map[string][]string{"make a folder": {"a"}, "make one folder or another": {"a", "b"}} {
		t.Run(act, func(t *testing.T) {
			b, dir := desk(t)
			a := agent(t, act, dir)
			w := newWorker(b, a.listener)
			t.Cleanup(w.callers.forget)
			var first, second notification
			if err := a.listener.receive(&first); err != nil {
				t.Fatal(err)
			}
			out := w.outcome(&first)
			if err := unix.Tgkill(a.Process.Pid, int(first.pid), unix.SIGURG); err != nil {
				t.Fatal(err)
			}
			if err := a.listener.receive(&second); err != nil {
				t.Fatal(err)
			}
			if second.pid != first.pid || second.args != first.args {
				t.Fatalf("%+v, then %+v", first, second)
			}
			w.answer(&first, out)
			w.closeOpened()
			if len(made) > 1 {
				b := []byte{0}
				_, werr := unix.Write(a.socket, b)
				_, rerr := unix.Read(a.socket, b)
				if werr != nil || rerr != nil {
					t.Fatal(werr, rerr)
				}
			}
			w.handle(&second)
			ended := make(chan error, 1)
			go func() { ended <- b.serve(a.listener, 1) }() // Go's runtime may have interrupted it as well
			if err := errors.Join(a.wait(), <-ended); err != nil {
				t.Error(err)
			}
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range entries {
				got = append(got, e.Name())
			}
			if !slices.Equal(got, made) {
				t.Errorf("made %q, want %q", got, made)
			}
			if len(b.late.by) > 0 {
				t.Errorf("%d outcomes are kept", len(b.late.by))
			}
		})
	}
}

// TestAWorkerIsWoken has the signal for it end its wait for a call: that is how it learns of the end on older kernels.
func TestAWorkerIsWoken(t *testing.T) {
	a := agent(t, "write many files", t.TempDir())
	var first notification // its call is not answered, so there is no second one
	if err := errors.Join(wakes(), a.listener.receive(&first)); err != nil {
		t.Fatal(err)
	}
	thread, ended := make(chan int), make(chan unix.Errno)
	go func() {
		runtime.LockOSThread()
		if err := undisturbed(); err != nil {
			t.Error(err)
		}
		thread <- unix.Gettid()
		var n notification
		ended <- a.listener.control(notifyReceive, unsafe.Pointer(&n))
	}()
	tid := <-thread
	for {
		if err := unix.Tgkill(os.Getpid(), tid, wake); err != nil {
			t.Fatal(err)
		}
		select {
		case errno := <-ended:
			if errno != unix.EINTR {
				t.Error(errno)
			}
			return
		case <-time.After(wakeAgain): // it may not have waited yet
		}
	}
}
