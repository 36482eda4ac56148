package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"unsafe"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/netns/fault"
	"cofferdam.dev/cofferdam/proxy/confine/syscalls"
	"cofferdam.dev/cofferdam/shim/runner/pid1"
	"cofferdam.dev/cofferdam/shim/runner/seccomp"
	"cofferdam.dev/cofferdam/shim/sandbox"
)

// container is libcontainer's, its first process, and the agent in it.
type container struct {
	create func() (*libcontainer.Container, error)
	c      *libcontainer.Container // nil: there is none yet
	p      *libcontainer.Process
	pid    int
	init   pid1.Start
	talk   *os.File  // to the first process
	ask    *os.File  // from where the filter's listener comes
	term   *terminal // nil: no stream is one
	used   []*os.File
}

// A description is a spec in the words of those who carry it out.
type description struct {
	config  *configs.Config
	process *libcontainer.Process // without its files
	start   pid1.Start            // without its streams
}

// describe says how the spec is carried out for the request.
func describe(s *specs.Spec, r Request) (d description, err error) {
	if d.config, err = libcontainerConfig(s, r.Name, !r.Rootless); err != nil {
		return d, err
	}
	filter, err := seccomp.Filter(s.Linux.Seccomp)
	if err != nil {
		return d, err
	}
	if d.start.Filter, err = filter.Program(); err != nil {
		return d, err
	}
	d.start.Asks = slices.ContainsFunc(filter.Rules, func(rule syscalls.Rule) bool { return rule.Ask })
	process := s.Process
	d.start.Args = process.Args
	d.process = &libcontainer.Process{
		Init: true, Args: []string{fmt.Sprintf("/proc/self/fd/%d", pid1.FDBinary)}, Env: process.Env, Cwd: process.Cwd,
		UID: int(process.User.UID), GID: int(process.User.GID), AppArmorProfile: process.ApparmorProfile, Label: process.SelinuxLabel,
	}
	for _, gid := range process.User.AdditionalGids {
		d.process.AdditionalGroups = append(d.process.AdditionalGroups, int(gid))
	}
	if d.process.Rlimits, err = rlimits(process.Rlimits); err != nil {
		return d, err
	}
	if r.Rootless {
		// To give somebody a user namespace in which they are what is root here takes the first of these rights, and to give them further ids the
		// others (user_namespaces(7)). The agent, which lives in there, has none.
		rights := []string{"CAP_SETFCAP"}
		if len(r.Others) > 0 {
			rights = append(rights, "CAP_SETUID", "CAP_SETGID")
		}
		d.process.Capabilities = &configs.Capabilities{Bounding: rights, Effective: rights, Permitted: rights}
		if d.start.User = (&pid1.User{UID: r.UID, GID: r.GID, Others: r.Others, Groups: r.SeveralIDs()}); process.Capabilities != nil {
			if d.start.User.Bounding, err = capabilityBits(process.Capabilities.Bounding); err != nil {
				return d, err
			}
		}
	}
	return d, nil
}

// newContainer describes the container; nothing runs yet, and its root file system need not be there. Whoever gets it calls destroy.
func newContainer(sb *sandbox.Sandbox, r Request, bundle string) (_ *container, err error) {
	d, err := describe(sb.Rewritten, r)
	if err != nil {
		return nil, err
	}
	k := &container{init: d.start, p: d.process}
	defer func() {
		if err != nil {
			k.closeFiles()
		}
	}()
	binary, err := seal(r.Init, filepath.Dir(bundle))
	if err != nil {
		return nil, err
	}
	k.used = append(k.used, binary)
	var inside, listen *os.File
	if k.talk, inside, err = k.socket("init socket"); err != nil {
		return nil, err
	}
	if k.ask, listen, err = k.socket("listener socket"); err != nil {
		return nil, err
	}
	k.p.ExtraFiles = []*os.File{pid1.FDBinary - 3: binary, pid1.FDSocket - 3: inside, pid1.FDListen - 3: listen}
	k.create = func() (*libcontainer.Container, error) {
		if err := sb.EnterBox(); err != nil {
			return nil, err
		}
		// This thread's, and that of a process which it starts; not this process's, whose is the host's.
		d.config.Namespaces.Add(configs.NEWNET, "/proc/thread-self/ns/net")
		return libcontainer.Create(filepath.Join(bundle, "libcontainer"), r.Name, d.config)
	}
	return k, nil
}

// socket makes a pair of sockets, one for inside.
func (k *container) socket(name string) (outside, inside *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	inside = os.NewFile(uintptr(fds[1]), name)
	k.used = append(k.used, inside)
	if err := unix.SetNonblock(fds[0], true); err != nil { // Close ends a Read then
		unix.Close(fds[0])
		return nil, nil, os.NewSyscallError("set nonblocking", err)
	}
	return os.NewFile(uintptr(fds[0]), name), inside, nil
}

// start has libcontainer set the container up, in BOX, where it brings the calling thread, see sandbox.EnterBox. Its first process, which is ours and has nothing of the agent's yet, then waits for release.
func (k *container) start(stdio [3]*os.File) (err error) {
	if k.c, err = k.create(); err != nil {
		return fmt.Errorf("create container: %w", err)
	}
	if err := fault.Point("run", "container without a process"); err != nil {
		return err
	}
	if k.term, err = newTerminal(stdio); err != nil {
		return err
	}
	streams := []*os.File{stdio[0], stdio[1], stdio[2]}
	for i, f := range streams {
		switch {
		case k.term == nil, IsTerminal(f):
			k.init.Stdio[i] = pid1.Given
		default: // libcontainer makes the terminal all three
			k.init.Stdio[i] = pid1.Extra(len(k.p.ExtraFiles) + 3 - pid1.FDExtra)
			k.p.ExtraFiles = append(k.p.ExtraFiles, f)
		}
	}
	if k.term != nil {
		k.p.ConsoleSocket, k.init.Terminal = k.term.child, true
	} else {
		k.p.Stdin, k.p.Stdout, k.p.Stderr = stdio[0], stdio[1], stdio[2]
	}
	if err := k.c.Start(k.p); err != nil {
		return fmt.Errorf("create container: %w", err)
	}
	k.closeUsed()
	if k.term != nil {
		if err := k.term.receive(); err != nil {
			return err
		}
	}
	if k.pid, err = k.p.Pid(); err != nil {
		return err
	}
	if err := k.c.Exec(); err != nil {
		return fmt.Errorf("start container: %w", err)
	}
	return nil
}

// release has the first process start the agent, to which the caller's terminal belongs from then on.
func (k *container) release() error {
	if k.term != nil {
		if err := k.term.attach(); err != nil {
			return err
		}
	}
	if err := pid1.WriteStart(k.talk, k.init); err != nil {
		return fmt.Errorf("start agent: %w", err)
	}
	return fault.Point("run", "released first process")
}

// passListener waits for the filter's listener, if it has one, and gives it to the sandbox. An agent that was not started has none; why, its
// report says.
func (k *container) passListener(ctx context.Context, sb *sandbox.Sandbox) error {
	if !k.init.Asks {
		return nil
	}
	fd, err := receiveFile(k.ask)
	if errors.Is(err, errNoFile) {
		return nil
	}
	if err == nil {
		err = unix.SetNonblock(fd, true) // to be waited for beside other things
	}
	if err != nil {
		return fmt.Errorf("start agent: receive listener: %w", err)
	}
	return sb.Listen(ctx, os.NewFile(uintptr(fd), "seccomp listener"))
}

// passed on to the agent: what a person or a program sends to the process that they know.
var passedSignals = []os.Signal{
	unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGTSTP, unix.SIGCONT, unix.SIGWINCH,
}

// wait follows the agent to its end.
func (k *container) wait(signals <-chan os.Signal) (status Status, err error) {
	defer func() { err = errors.Join(err, k.closeTerminal()) }()
	reports := make(chan pid1.Report)
	go func() { // ends with the conversation
		defer close(reports)
		for {
			r, err := pid1.ReadReport(k.talk)
			if err != nil {
				return
			}
			reports <- r
		}
	}()
	defer func() {
		k.talk.Close() // the first process ends, and with it all others
		for range reports {
		}
		_, werr := k.p.Wait()
		if !errors.As(werr, new(*exec.ExitError)) { // its status is the agent's, which was reported
			err = errors.Join(err, werr)
		}
	}()
	for {
		select {
		case s := <-signals:
			if err := k.pass(s.(syscall.Signal)); err != nil {
				return 0, err
			}
		case r, ok := <-reports:
			if !ok {
				return 0, errors.New("the sandbox's first process is gone")
			}
			switch r.Event {
			case pid1.Stopped:
				if err := k.suspend(); err != nil {
					return 0, err
				}
			case pid1.Exited:
				return Status(r.Number), nil
			case pid1.Killed:
				return 128 + Status(r.Number), nil
			case pid1.Failed:
				return 0, &StartError{Status: Status(r.Number), Text: r.Text}
			}
		}
	}
}

// StartError says that the agent's command could not be started.
type StartError struct {
	Status Status // 127: not found, 126: not executable
	Text   string
}

func (e *StartError) Error() string { return e.Text }

// pass hands a signal on. Those about the terminal are for whoever has it.
func (k *container) pass(s syscall.Signal) error {
	switch s {
	case unix.SIGWINCH:
		if k.term != nil {
			k.term.resize()
		}
		return nil
	case unix.SIGCONT: // suspend sends it
		return nil
	}
	return k.signal(s)
}

// signal sends to the agent's process group. That the sandbox is ending is for wait to find.
func (k *container) signal(s unix.Signal) error {
	err := pid1.WriteSignal(k.talk, pid1.Signal{Number: s, Group: true})
	if errors.Is(err, unix.EPIPE) || errors.Is(err, os.ErrClosed) || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// suspend stops this process, since the agent has stopped, and lets both go on together: the caller's shell sees a job that stops and
// continues. Where nobody could continue it (an orphaned process group, setpgid(2)), the kernel does not stop it, and the agent goes on at once.
func (k *container) suspend() error {
	if k.term != nil {
		if err := k.term.detach(); err != nil {
			return err
		}
	}
	if err := stopJob(); err != nil {
		return err
	}
	if k.term != nil {
		if err := k.term.attach(); err != nil {
			return err
		}
	}
	return k.signal(unix.SIGCONT)
}

// stopJob stops this process, and what is beside it in a pipeline, until somebody continues them. signal.Reset would not do: Go's handler
// stays installed, and ignores the signal.
func stopJob() error {
	var byDefault, ours [4]uint64 // struct sigaction of the kernel; zero is SIG_DFL
	swap := func(set, old *[4]uint64) error {
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGTSTP), uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(old)), 8, 0, 0)
		if errno != 0 {
			return os.NewSyscallError("rt_sigaction", errno)
		}
		return nil
	}
	if err := swap(&byDefault, &ours); err != nil {
		return err
	}
	err := os.NewSyscallError("kill", unix.Kill(0, unix.SIGTSTP))
	return errors.Join(err, swap(&ours, nil))
}

// destroy ends what is left and removes it.
func (k *container) destroy() error {
	k.closeFiles()
	err := fault.Point("undo", "container")
	if k.c != nil && err == nil {
		if err = k.c.Destroy(); err != nil {
			err = fmt.Errorf("destroy container: %w", err)
		}
	}
	return errors.Join(err, k.closeTerminal())
}

// closeTerminal gives the caller's terminal back, once nothing in the sandbox can write to its own any more. It may be called twice.
func (k *container) closeTerminal() error {
	t := k.term
	if k.term = nil; t == nil {
		return nil
	}
	return t.close()
}

// closeUsed closes what the container has its own copies of.
func (k *container) closeUsed() {
	for _, f := range k.used {
		f.Close()
	}
	k.used = nil
}

func (k *container) closeFiles() {
	k.closeUsed()
	for _, f := range []*os.File{k.talk, k.ask} {
		if f != nil {
			f.Close()
		}
	}
}

// IsTerminal reports whether a file is a terminal.
func IsTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
