package runner

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// streams stand between the agent and what its input, output and errors are outside. Whoever has a descriptor of a file has more than its bytes:
// through /proc/self/fd a file that was opened to be read can be opened to be written, a folder leads to all that is below and above it, and the mode
// of a file or of a device can be changed, to that of a set-user-ID program. So the agent gets a pipe, and its bytes are copied here. Pipes and
// sockets it gets as they are, since they have nothing else, and a terminal of its own; see terminal.
type streams struct {
	given  [3]*os.File // what the agent gets
	ours   []*os.File  // of these, what was made for it
	inputs []*input
	output []*output
}

// newStreams changes nothing for the caller until the agent reads or writes.
func newStreams(stdio [3]*os.File) (_ *streams, err error) {
	s := &streams{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	terminal := IsTerminal(stdio[0]) || IsTerminal(stdio[1]) || IsTerminal(stdio[2])
	var infos [3]os.FileInfo
	for i, f := range stdio {
		if infos[i], err = f.Stat(); err != nil {
			return nil, err
		}
		switch {
		case infos[i].Mode()&(os.ModeNamedPipe|os.ModeSocket) != 0, IsTerminal(f), !terminal && isNull(f): // libcontainer opens the sandbox's own null
			s.given[i] = f
		case infos[i].IsDir():
			return nil, fmt.Errorf("descriptor %d is a folder", i)
		case i == 0:
			err = s.read(f, infos[i].Mode().IsRegular())
		case i == 2 && os.SameFile(infos[1], infos[2]) && s.given[1] != stdio[1]: // one pipe keeps their order
			s.given[2] = s.given[1]
		default:
			err = s.write(i, f)
		}
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

// isNull reports whether a file is the null device, null(4).
func isNull(f *os.File) bool {
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
}

// pipe returns the end that is used here, with which waiting can be ended, and the agent's.
func pipe(mine int) (own, agents *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, os.NewSyscallError("pipe", err)
	}
	err = os.NewSyscallError("set nonblocking", unix.SetNonblock(fds[mine], true))
	return os.NewFile(uintptr(fds[mine]), "pipe"), os.NewFile(uintptr(fds[1-mine]), "pipe"), err
}

func (s *streams) read(f *os.File, regular bool) error {
	own, agents, err := pipe(1)
	if err != nil {
		return err
	}
	in := &input{from: f, to: own, read: agents, seek: regular, done: make(chan struct{})}
	s.given[0], s.inputs = agents, append(s.inputs, in)
	if regular {
		if in.begin, err = f.Seek(0, io.SeekCurrent); err != nil {
			return err
		}
	}
	return nil
}

func (s *streams) write(i int, f *os.File) error {
	own, agents, err := pipe(0)
	if err != nil {
		return err
	}
	s.given[i], s.ours = agents, append(s.ours, agents)
	s.output = append(s.output, &output{from: own, to: f, done: make(chan struct{})})
	return nil
}

// start copies, once the agent has its ends; those here are closed.
func (s *streams) start() {
	for _, f := range s.ours {
		f.Close()
	}
	s.ours = nil
	for _, in := range s.inputs {
		in.started = true
		go in.copy()
	}
	for _, out := range s.output {
		out.started = true
		go out.copy()
	}
}

// close ends the copying, when nothing runs in the sandbox any more: what was written comes out, and what was not read is there for the caller.
func (s *streams) close() error {
	for _, f := range s.ours {
		f.Close()
	}
	var errs []error
	for _, in := range s.inputs {
		errs = append(errs, in.close())
	}
	for _, out := range s.output {
		errs = append(errs, out.close())
	}
	return errors.Join(errs...)
}

// buffer is as much as a pipe holds, pipe(7), in bytes.
const buffer = 64 << 10

// An input is copied from a file of the caller's.
type input struct {
	from, to *os.File
	read     *os.File // the agent's end: how much in it was not read
	seek     bool     // from has a position, which others may go on from
	begin    int64    // the position at first
	sent     int64    // bytes, final when done is closed
	started  bool
	done     chan struct{}
}

// copy ends with the file or with close, or, of a device that never answers, with the process.
func (in *input) copy() {
	defer close(in.done)
	defer in.to.Close()
	buf := make([]byte, buffer)
	for {
		n, err := in.from.Read(buf)
		m, werr := in.to.Write(buf[:n])
		in.sent += int64(m)
		if err != nil || werr != nil {
			return
		}
	}
}

func (in *input) close() error {
	defer in.read.Close()
	in.to.Close()
	if !in.started || !in.seek {
		return nil
	}
	<-in.done
	unread, err := unix.IoctlGetInt(int(in.read.Fd()), unix.TIOCINQ)
	if err != nil {
		return os.NewSyscallError("ioctl", err)
	}
	_, err = in.from.Seek(in.begin+in.sent-min(int64(unread), in.sent), io.SeekStart) // an agent can write to its end, too
	return err
}

// An output is copied to a file of the caller's.
type output struct {
	from, to *os.File
	started  bool
	err      error // final when done is closed
	done     chan struct{}
}

// copy ends when nobody has the other end any more, with an error, or with close.
func (out *output) copy() {
	defer close(out.done)
	buf := make([]byte, buffer)
	for {
		n, err := out.from.Read(buf)
		if _, werr := out.to.Write(buf[:n]); werr != nil {
			out.err = werr
			out.from.Close() // the agent's next write fails, too
			return
		}
		if err != nil {
			return
		}
	}
}

// close takes what is in the pipe and no more: an agent may have handed its end to somebody elsewhere who goes on to write.
func (out *output) close() error {
	defer out.from.Close()
	if !out.started {
		return nil
	}
	_ = out.from.SetReadDeadline(time.Now()) // closed: it has ended
	<-out.done
	if out.err != nil {
		return fmt.Errorf("output: %w", out.err)
	}
	conn, err := out.from.SyscallConn()
	if err != nil {
		return err
	}
	var left []byte
	cerr := conn.Control(func(fd uintptr) {
		var n int
		if n, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ); err == nil && n > 0 {
			left = make([]byte, n)
			n, err = unix.Read(int(fd), left)
			left = left[:max(n, 0)]
		}
	})
	if err := errors.Join(cerr, err); err != nil {
		return fmt.Errorf("output: %w", err)
	}
	if _, err := out.to.Write(left); err != nil {
		return fmt.Errorf("output: %w", err)
	}
	return nil
}
