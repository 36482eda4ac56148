package runner

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"
)

// terminal joins the caller's terminal to a new one in the sandbox. The agent never gets the caller's own: whoever has that can read what is
// typed after the agent is gone, and push characters into it (ioctl_tty(2), TIOCSTI).
type terminal struct {
	caller  console.Console
	reading bool     // stdin is the caller's terminal; else only output is
	out     *os.File // where the agent's output goes
	socket  *os.File // on which libcontainer sends the master; nil once it has come
	child   *os.File // its other end

	master *os.File
	stop   *os.File      // closed to end the reading of input
	copied chan struct{} // closed when all output was copied
}

// newTerminal returns nil if none of stdio is a terminal.
func newTerminal(stdio [3]*os.File) (*terminal, error) {
	t := &terminal{}
	for i, f := range stdio {
		c, err := console.ConsoleFromFile(f)
		if err != nil {
			continue
		}
		if t.caller == nil {
			t.caller = c
		}
		if i == 0 {
			t.reading = true
		} else if t.out == nil {
			t.out = f
		}
	}
	if t.caller == nil {
		return nil, nil
	}
	if t.out == nil {
		t.out = stdio[0] // output goes elsewhere; the echo of what is typed comes here
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("terminal: %w", os.NewSyscallError("socketpair", err))
	}
	t.socket, t.child = os.NewFile(uintptr(fds[0]), "console socket"), os.NewFile(uintptr(fds[1]), "console socket")
	return t, nil
}

// receive takes the new terminal's master, once the container was created, and begins to copy output.
func (t *terminal) receive() error {
	t.child.Close()
	defer t.socket.Close()
	fd, err := receiveFile(t.socket)
	if err == nil {
		err = unix.SetNonblock(fd, true) // so that Close ends a Read
	}
	if err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	t.master = os.NewFile(uintptr(fd), "ptmx")
	t.resize()
	t.copied = make(chan struct{})
	go func() { // ends when nothing in the sandbox has the terminal open any more (EIO), or with master
		defer close(t.copied)
		_, _ = io.Copy(t.out, t.master)
	}()
	if !t.reading { // the caller's terminal stays as it is for others, and ends lines itself
		if err := console.ClearONLCR(t.master.Fd()); err != nil {
			return fmt.Errorf("terminal: %w", err)
		}
	}
	return nil
}

var errNoFile = errors.New("no descriptor came")

// receiveFile takes one descriptor, cmsg(3).
func receiveFile(socket *os.File) (int, error) {
	conn, err := socket.SyscallConn()
	if err != nil {
		return 0, err
	}
	name, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	var n int
	rerr := conn.Read(func(fd uintptr) bool {
		_, n, _, _, err = unix.Recvmsg(int(fd), name, oob, unix.MSG_CMSG_CLOEXEC)
		return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
	})
	if err := errors.Join(rerr, os.NewSyscallError("recvmsg", err)); err != nil {
		return 0, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return 0, errNoFile
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return 0, errNoFile
	}
	return fds[0], nil
}

// attach takes the caller's terminal: what is typed goes to the sandbox as it is.
func (t *terminal) attach() error {
	t.resize()
	if !t.reading {
		return nil
	}
	if err := t.raw(); err != nil {
		return errors.Join(fmt.Errorf("terminal: %w", err), t.caller.Reset())
	}
	r, w, err := os.Pipe()
	if err != nil {
		return errors.Join(fmt.Errorf("terminal: %w", err), t.caller.Reset())
	}
	t.stop = w
	go t.forward(r) // ends with detach
	return nil
}

// raw hands everything through: what is typed, and what the sandbox's terminal has made of the output, which containerd's SetRaw would
// have made again.
func (t *terminal) raw() error {
	if err := t.caller.SetRaw(); err != nil {
		return err
	}
	settings, err := unix.IoctlGetTermios(int(t.caller.Fd()), unix.TCGETS)
	if err != nil {
		return os.NewSyscallError("tcgetattr", err)
	}
	settings.Oflag &^= unix.OPOST
	return os.NewSyscallError("tcsetattr", unix.IoctlSetTermios(int(t.caller.Fd()), unix.TCSETS, settings))
}

// forward copies what is typed until stop's other end is closed. It polls first: a Read that is never answered would take the first key that
// was meant for whoever has the terminal next.
func (t *terminal) forward(stop *os.File) {
	defer stop.Close()
	buf := make([]byte, 4096)
	fds := []unix.PollFd{{Fd: int32(t.caller.Fd()), Events: unix.POLLIN}, {Fd: int32(stop.Fd()), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, -1); err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return
		}
		if fds[1].Revents != 0 {
			return
		}
		n, err := t.caller.Read(buf)
		if err != nil {
			return
		}
		if _, err := t.master.Write(buf[:n]); err != nil {
			return
		}
	}
}

// detach gives the caller's terminal back as it was.
func (t *terminal) detach() error {
	if t.stop == nil {
		return nil
	}
	t.stop.Close()
	t.stop = nil
	if err := t.caller.Reset(); err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	return nil
}

// resize gives the sandbox's terminal the size of the caller's.
func (t *terminal) resize() {
	size, err := unix.IoctlGetWinsize(int(t.caller.Fd()), unix.TIOCGWINSZ)
	if err == nil {
		_ = unix.IoctlSetWinsize(int(t.master.Fd()), unix.TIOCSWINSZ, size)
	}
}

// lastOutput is how long output is waited for that may still come when nothing runs in the sandbox any more: an agent can have handed its terminal
// to somebody elsewhere, who keeps it.
const lastOutput = time.Second

// close waits for the last output, which comes when the sandbox has ended, and gives everything back.
func (t *terminal) close() error {
	if t.master == nil {
		return errors.Join(t.socket.Close(), t.child.Close())
	}
	select { // before the caller's terminal does again what the sandbox's has done
	case <-t.copied:
	case <-time.After(lastOutput):
	}
	return errors.Join(t.detach(), t.master.Close())
}
