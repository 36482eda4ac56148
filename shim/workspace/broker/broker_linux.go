package broker

import (
	"errors"
	"runtime"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// A broker carries out the calls of all processes of a sandbox.
type broker struct {
	trees  []*tree
	proc   int  // /proc of this process's PID namespace
	oneID  bool // this process's ids are all there are
	report *recorder

	// names is held while a call is carried out, from the look at its paths to the end: shared, or alone by what changes where names
	// lead or what counts as a git directory. So what was judged is what is changed.
	names   sync.RWMutex
	aliases aliases
	configs configs
	late    latecomers
}

// A worker answers one call at a time, on a thread of its own.
type worker struct {
	*broker
	listener listener
	as       credentials // which the thread has for the file system
	opened   []int       // by the request
}

// serve answers the calls of a listener on n threads until no process is left that could make one.
func (b *broker) serve(l listener, n int) error {
	l.hurry()
	ended := make(chan error, n)
	for range n {
		go func() {
			// What is the thread's own, such as its ids, goes with it: it is never unlocked.
			runtime.LockOSThread()
			w := &worker{broker: b, listener: l, as: credentials{uid: -1, gid: -1, groups: "?"}}
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
	for _, fd := range w.opened {
		unix.Close(fd)
	}
	w.opened = w.opened[:0]
}

func (w *worker) outcome(n notification, dir int) (out outcome) {
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
	if root, err := (&request{worker: w, dir: dir}).readlink("root"); err != nil || root != "/" { // in a root of its own, paths mean something else
		return resumed
	}
	w.names.RLock()
	out = w.attempt(do, &request{worker: w, n: n, dir: dir})
	w.names.RUnlock()
	if out.alone {
		w.names.Lock()
		out = w.attempt(do, &request{worker: w, n: n, dir: dir, alone: true})
		w.names.Unlock()
	}
	return out
}

// attempt carries a call out. A mistake of ours must not cost the agent's other calls.
func (w *worker) attempt(do func(*request) outcome, r *request) (out outcome) {
	defer func() {
		if recover() != nil {
			out = outcome{errno: unix.EIO}
		}
	}()
	return do(r)
}

// answer answers, and closes dir unless it keeps it.
func (w *worker) answer(n notification, out outcome, dir int) {
	var errno unix.Errno
	switch {
	case out.resume:
		errno = w.listener.resume(n.id)
	case out.file != 0:
		errno = w.listener.give(n.id, out.file, out.cloexec)
		if errno != 0 && errno != unix.ENOENT {
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
