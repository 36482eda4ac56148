package broker

import (
	"errors"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// A broker carries out the calls of all processes of a sandbox.
type broker struct {
	trees  []*tree
	proc   int  // /proc of this process's PID namespace
	oneID  bool // this process's ids are all there are
	report *recorder
	own    credentials // this process's

	names   names
	mounts  map[uint64]bool // those of the workspaces in this process's namespace
	aliases aliases
	texts   texts
	drafts  drafts
	late    latecomers
}

// A worker answers one call at a time, on a thread of its own.
type worker struct {
	*broker
	listener listener
	as       credentials // which the thread has for the file system
	opened   []int       // by the request
	status   []byte      // a buffer
}

// serve answers the calls of a listener on n threads until no process is left that could make one.
func (b *broker) serve(l listener, n int) error {
	l.hurry()
	ended := make(chan error, n)
	for range n {
		go func() {
			// What is the thread's own, such as its ids, goes with it: it is never unlocked.
			runtime.LockOSThread()
			w := &worker{broker: b, listener: l, as: unknown, status: make([]byte, maxStatus)}
			ended <- w.run()
		}()
	}
	for range n {
		if err := <-ended; !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}

func (w *worker) run() error {
	for {
		n, err := w.listener.wait()
		if err != nil {
			return err
		}
		w.handle(n)
	}
}

// handle answers one call. Whatever goes wrong, there is an answer.
func (w *worker) handle(n notification) {
	dir, err := unix.Openat(w.proc, strconv.Itoa(int(n.pid)), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil || !w.listener.valid(n.id) {
		if err == nil {
			unix.Close(dir)
		}
		w.answer(n, resumed, -1) // it is gone, or out of our sight
		return
	}
	w.answer(n, w.outcome(n, dir), dir)
	w.closeOpened()
}

func (w *worker) outcome(n notification, dir int) (out outcome) {
	defer func() {
		if recover() != nil { // a mistake of ours must not cost the agent's other calls
			out = outcome{errno: unix.EIO}
		}
	}()
	if out, ok := w.late.take(n); ok {
		return out
	}
	do := handlers[n.number]
	if do == nil {
		do = legacy[n.number]
	}
	if do == nil {
		return resumed
	}
	defer func() { // also of a call that was looked up again
		if out.resume {
			out = w.resume(n, dir)
		}
	}()
	for range maxAgain {
		w.settle(true)
		r := &request{worker: w, n: n, dir: dir, began: w.names.moves()}
		if root, err := r.readlink("root"); err != nil || root != "/" { // to a process in a root of its own, paths mean something else
			return resumed
		}
		if err := r.asCaller(); err != nil {
			return failed(err)
		}
		if out = do(r); !out.again {
			return out
		}
		w.closeOpened()
	}
	return outcome{errno: unix.EAGAIN}
}

// maxAgain is how often a call is looked up.
const maxAgain = 100

func (w *worker) closeOpened() {
	for _, fd := range w.opened {
		unix.Close(fd)
	}
	w.opened = w.opened[:0]
}

// answer answers, and closes dir unless it keeps it.
func (w *worker) answer(n notification, out outcome, dir int) {
	var errno unix.Errno
	switch {
	case out.resume:
		errno = w.listener.resume(n.id)
	case out.file != 0:
		var fd int
		switch fd, errno = w.listener.add(n.id, out.file, out.cloexec); errno {
		case 0: // a draft is open for writing here no longer than there
			unix.Close(out.file)
			out.file = 0
			errno = w.listener.answer(n.id, int64(fd), 0)
		case unix.ENOENT:
		default:
			errno = w.listener.answer(n.id, 0, unix.EMFILE) // the caller has no room for it
		}
	default:
		errno = w.listener.answer(n.id, 0, out.errno)
	}
	if errno == unix.ENOENT && !out.resume && w.late.keep(n, out, dir) {
		return
	}
	out.close()
	unix.Close(dir)
}

func (o outcome) close() {
	if o.file != 0 {
		unix.Close(o.file)
	}
}
