package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/netns/fault"
	"cofferdam.dev/cofferdam/shim/workspace/broker"
)

// BrokerBinary is the name of the broker; it is installed beside the binary that starts it.
const BrokerBinary = "cofferdam-broker"

// doorkeeper starts the broker once the agent first asks, and hands it the listeners. An agent that writes to no workspace costs no
// process. If the broker ends, nobody answers any more, and calls that ask fail: the workspace is read-only then.
type doorkeeper struct {
	binary string
	shared string // folder of the files that brokers share
	config broker.Config
	start  Starter

	mu      sync.Mutex
	stderr  *os.File     // may be nil
	files   broker.Files // nil: there is no workspace that may be written to, or it is not mounted yet
	agents  bool         // it is the agent who asks, and no longer the OCI runtime on its way there
	closed  bool
	waiting map[*os.File]struct{} // listeners that nobody else has yet
	control *broker.Control       // nil: not started
	failed  error
	exited  <-chan struct{}
}

// place says where the workspaces are. The files become the doorkeeper's.
func (d *doorkeeper) place(f broker.Files) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files = f
}

// complain says where the broker's standard error goes. The file stays the caller's.
func (d *doorkeeper) complain(f *os.File) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stderr = f
}

// open says that the agent runs from here on.
func (d *doorkeeper) open() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.agents = true
}

// add takes a listener over. Its calls wait until they are answered.
func (d *doorkeeper) add(ctx context.Context, l *os.File) error {
	conn, err := l.SyscallConn()
	if err != nil {
		l.Close()
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return l.Close()
	}
	if d.waiting == nil {
		d.waiting = map[*os.File]struct{}{}
	}
	d.waiting[l] = struct{}{}
	go func() { // ends with the agent's first call, the last process under the filter, or close
		var err error
		for done := false; err == nil && !done; {
			var events int16
			if err = conn.Read(func(fd uintptr) bool { events = pending(int(fd)); return events != 0 }); err != nil {
				break
			}
			if done = events&unix.POLLIN == 0; !done { // else nobody is left
				done, err = d.hand(l)
			}
		}
		if err != nil && !errors.Is(err, os.ErrClosed) {
			log.G(ctx).WithError(err).Error("workspace: read-only from now on")
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.waiting, l)
		l.Close() // the broker's copy is the last one: with it go the calls that wait
	}()
	return nil
}

func pending(fd int) int16 {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if _, err := unix.Poll(fds, 0); err != nil {
		return 0
	}
	return fds[0].Revents
}

// hand gives a listener with a call that waits to the broker, which is started if it was not. What the OCI runtime does under the filter
// before the agent runs is let go on, unseen: to the workspace that is a refusal.
func (d *doorkeeper) hand(l *os.File) (done bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return true, nil
	}
	if !d.agents {
		return false, broker.Resume(l)
	}
	if d.control == nil && d.failed == nil {
		d.failed = d.run()
	}
	if d.failed != nil {
		return true, d.failed
	}
	return true, d.control.Listen(l)
}

// run starts the process. mu is held.
func (d *doorkeeper) run() (err error) {
	if d.files.Shared, err = shareTrees(d.shared, d.files.Trees); err != nil {
		return fmt.Errorf("share workspaces: %w", err)
	}
	cmd, control, started, err := broker.Command(d.binary, d.config, d.files)
	if err != nil {
		return err
	}
	cmd.Stderr = d.stderr
	result, over := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(over)
		// The kernel kills the process when the thread that started it ends: this one stays as long.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		exited, err := d.start(cmd)
		started()
		result <- err
		if err != nil {
			return
		}
		err = <-exited
		d.mu.Lock()
		defer d.mu.Unlock()
		if !d.closed {
			d.failed = fmt.Errorf("broker ended: %w", errors.Join(err, errors.New("nobody answers any more")))
			log.L.WithError(d.failed).WithField("sandbox", d.config.Sandbox).Error("workspace: read-only from now on")
		}
	}()
	err = <-result
	if err == nil {
		err = fault.Point("made", "broker process")
	}
	if err != nil {
		return errors.Join(fmt.Errorf("start broker: %w", err), control.Close())
	}
	// The broker's copies are to be the last ones: what it has locked when it is killed is free then, for the brokers of other sandboxes.
	for _, f := range d.files.Shared {
		f.Close()
	}
	d.control, d.exited = control, over
	return nil
}

// report asks the broker what the agent has done; zero if it has done nothing.
func (d *doorkeeper) report() (broker.Report, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.control == nil || d.closed {
		return broker.Report{}, nil
	}
	return d.control.Report()
}

// close ends the broker and waits for it. It may be called twice.
func (d *doorkeeper) close() error {
	d.mu.Lock()
	first := !d.closed
	d.closed = true
	for l := range d.waiting {
		l.Close()
	}
	control, exited, files := d.control, d.exited, d.files
	d.mu.Unlock()
	if !first {
		return nil
	}
	for _, t := range files.Trees {
		t.Close()
	}
	files.Mounts.Close() // may be nil
	var errs [2]error
	if control != nil {
		errs[0] = control.Close()
		<-exited
	}
	if files.Shared != nil {
		errs[1] = unshareTrees(d.shared, files.Shared)
	}
	return errors.Join(errs[:]...)
}

// receiveListeners takes the listeners that the OCI runtime sends to the socket: of the container's first process, and of each that Exec
// adds.
func (s *Sandbox) receiveListeners(ctx context.Context, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := os.RemoveAll(path); err != nil { // of a sandbox that was killed
		return err
	}
	socket, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return fmt.Errorf("listener socket: %w", err)
	}
	if err := s.undo.add("listener socket", func() error {
		if err := socket.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	}); err != nil {
		return err
	}
	ctx = log.WithLogger(context.WithoutCancel(ctx), log.G(ctx).WithField("sandbox", s.ID))
	go func() { // ends with the socket
		for {
			conn, err := socket.AcceptUnix()
			if err != nil {
				return
			}
			go func() { // ends with the runtime's connection
				defer conn.Close()
				l, err := receiveListener(conn)
				if err == nil {
					err = s.Listen(ctx, l)
				}
				if err != nil {
					log.G(ctx).WithError(err).Error("receive listener")
				}
			}()
		}
	}()
	return nil
}

// maxProcessState bounds the container process state of the runtime-spec that comes with a listener; it is not looked at: which container
// it is about, the socket says.
const maxProcessState = 1 << 20

func receiveListener(conn *net.UnixConn) (*os.File, error) {
	state, oob := make([]byte, maxProcessState), make([]byte, unix.CmsgSpace(4*8))
	_, n, _, _, err := conn.ReadMsgUnix(state, oob)
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return nil, err
	}
	var fds []int
	for _, m := range messages {
		more, err := unix.ParseUnixRights(&m)
		if err != nil {
			return nil, err
		}
		fds = append(fds, more...)
	}
	if len(fds) != 1 {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return nil, fmt.Errorf("%d descriptors instead of a listener", len(fds))
	}
	unix.CloseOnExec(fds[0])
	if err := unix.SetNonblock(fds[0], true); err != nil { // to be waited for beside other things
		unix.Close(fds[0])
		return nil, os.NewSyscallError("set nonblocking", err)
	}
	return os.NewFile(uintptr(fds[0]), "seccomp listener"), nil
}
