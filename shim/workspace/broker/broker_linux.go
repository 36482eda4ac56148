package broker

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A broker carries out the calls of all processes of a sandbox.
type broker struct {
	trees  []*tree
	proc   int  // /proc of this process's PID namespace
	oneID  bool // all callers have this process's ids
	report *recorder
	own    credentials // this process's

	names   names
	mounts  map[uint64]bool // those of the workspaces in this process's namespace
	aliases aliases
	texts   texts
	drafts  drafts

	// turns has a thread's calls answered one after the other: one that is interrupted asks once more while the first is being answered. The
	// threads share them by their numbers.
	turns [256]sync.Mutex
	late  latecomers
}

// A worker answers one call at a time, on a thread of its own.
type worker struct {
	*broker
	listener listener
	as       credentials // which the thread has for the file system
	callers  callers

	// Of the call that is being answered.
	opened []int
	seen   []sight
	byFile bool // it is about a descriptor of the caller's, which may be of something else the next time
	buffer []byte
}

func newWorker(b *broker, l listener) *worker {
	return &worker{broker: b, listener: l, as: unknown, buffer: make([]byte, maxStatus)}
}

// serve answers the calls of a listener on n threads until no process is left that could make one.
func (b *broker) serve(l listener, n int) error {
	if err := wakes(); err != nil {
		return err
	}
	l.hurry()
	ended, threads := make(chan error, n), make(chan int, n)
	for range n {
		go func() {
			// What is the thread's own, such as its ids, goes with it: it is never unlocked.
			runtime.LockOSThread()
			threads <- unix.Gettid()
			w := newWorker(b, l)
			err := w.run()
			w.callers.forget()
			ended <- err
		}()
	}
	over := make(chan struct{})
	go func() { l.ended(-1); close(over) }()
	var again <-chan time.Time
	for left := n; left > 0; {
		select {
		case err := <-ended:
			if left--; !errors.Is(err, unix.ENOENT) {
				return err
			}
		case <-over:
			over, again = nil, time.Tick(wakeAgain)
		case <-again: // an older kernel leaves them waiting
			for range n {
				thread := <-threads
				_ = unix.Tgkill(os.Getpid(), thread, wake) // it may have ended
				threads <- thread
			}
		}
	}
	return nil
}

const (
	// wake is the signal for a worker whose listener has come to its end. Nothing else sends it.
	wake      = unix.Signal(63)
	wakeAgain = 20 * time.Millisecond
)

// wakes has the signal wake end what it interrupts. The Go runtime has all signals start it again (SA_RESTART).
func wakes() error {
	var action struct { // struct kernel_sigaction
		handler, flags, restorer uintptr
		mask                     uint64
	}
	at := uintptr(unsafe.Pointer(&action))
	if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(wake), 0, at, unsafe.Sizeof(action.mask), 0, 0); errno != 0 {
		return os.NewSyscallError("rt_sigaction", errno)
	}
	const restart = 0x10000000 // SA_RESTART of asm-generic/signal-defs.h
	action.flags &^= restart
	if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(wake), at, 0, unsafe.Sizeof(action.mask), 0, 0); errno != 0 {
		return os.NewSyscallError("rt_sigaction", errno)
	}
	return nil
}

func (w *worker) run() error {
	if err := undisturbed(); err != nil {
		return err
	}
	var n notification
	for {
		if err := w.listener.receive(&n); err != nil {
			return err
		}
		w.handle(&n)
	}
}

// undisturbed keeps signals from this thread, but for those that are about what it does itself, and wake. One that comes while the kernel hands
// a file to a caller would take the file back, after the call has been answered: what the caller then writes would go elsewhere. The
// Go runtime sends some to interrupt a thread.
func undisturbed() error {
	var none unix.Sigset_t
	for i := range none.Val {
		none.Val[i] = ^none.Val[i]
	}
	bits := uint(unsafe.Sizeof(none.Val[0]) * 8)
	for _, s := range []unix.Signal{unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP, unix.SIGSYS, wake} {
		none.Val[uint(s-1)/bits] &^= 1 << (uint(s-1) % bits)
	}
	return os.NewSyscallError("block signals", unix.PthreadSigmask(unix.SIG_SETMASK, &none, nil))
}

// handle answers one call. Whatever goes wrong, there is an answer.
func (w *worker) handle(n *notification) {
	turn := w.turn(n.pid)
	w.answer(n, w.outcome(n))
	turn.Unlock()
	w.closeOpened()
}

// turn waits for a thread's turn, and locks it.
func (w *worker) turn(thread uint32) *sync.Mutex {
	turn := &w.turns[thread%uint32(len(w.turns))]
	for range 100 {
		if turn.TryLock() {
			return turn
		}
		// Most likely its last call has just been answered: the thread is faster than who answered it, and may be on the same processor.
		_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	}
	turn.Lock()
	return turn
}

func (w *worker) outcome(n *notification) (out outcome) {
	defer func() {
		if recover() != nil { // a mistake of ours must not cost the agent's other calls
			out = outcome{errno: unix.EIO}
		}
	}()
	do := handlers[n.number]
	if do == nil {
		do = legacy[n.number]
	}
	if do == nil || w.given(n) {
		return resumed
	}
	leased := false
	for i := range maxAgain {
		w.closeOpened()
		w.settle(leased)
		w.seen, w.byFile = w.seen[:0], false
		r := &request{worker: w, n: *n, began: w.names.moves()}
		root, err := r.meet()
		switch {
		case errors.Is(err, errGone):
			return resumed
		case err != nil:
			return failed(err)
		}
		if i == 0 {
			if out, ok := r.lateOutcome(); ok {
				return out
			}
		}
		if out = resumed; root == "/" { // to a process in a root of its own, paths mean something else
			out = do(r)
		}
		if out.resume {
			out = r.resume()
		}
		if !out.again {
			return out
		}
		if leased = out.leased; leased { // no names are held here
			<-time.After(leaseWait)
		}
	}
	return outcome{errno: unix.EAGAIN}
}

// maxAgain is how often a call is looked up.
const maxAgain = 100

// leaseWait is how long a call waits for who has a lease on a file before it is looked up again.
const leaseWait = 10 * time.Millisecond

func (w *worker) closeOpened() {
	for _, fd := range w.opened {
		unix.Close(fd)
	}
	w.opened = w.opened[:0]
}

// answer answers. An outcome that comes too late is kept.
func (w *worker) answer(n *notification, out outcome) {
	var errno unix.Errno
	switch {
	case out.resume:
		errno = w.listener.resume(n.id)
	case out.file != 0:
		out, errno = w.give(n, out)
	default:
		errno = w.listener.answer(n.id, out.value, out.errno)
	}
	if errno != unix.ENOENT || out.resume || w.byFile || !w.keep(n, out) {
		out.close()
	}
}

// give answers with a file, in two steps: first the caller gets it, and then the number that it has there. In one step it could be lost, if we
// are stopped meanwhile (SIGSTOP, or a computer that goes to sleep). Here it is closed in between: a draft is open for writing no longer than there.
func (w *worker) give(n *notification, out outcome) (outcome, unix.Errno) {
	fd, errno := w.listener.add(n.id, out.file, out.cloexec)
	switch errno {
	case 0:
		out.close()
		out = outcome{value: int64(fd)}
		return out, w.listener.answer(n.id, out.value, 0)
	case unix.ENOENT:
		return out, errno
	}
	return out, w.listener.answer(n.id, 0, unix.EMFILE) // it has no room for it
}

// keep takes the outcome over, if it says so.
func (w *worker) keep(n *notification, out outcome) bool {
	c := &w.callers[n.pid%uint32(len(w.callers))]
	if c.thread != n.pid || !w.late.keep(late{*c, n.number, n.args, slices.Clone(w.seen), out}) {
		return false
	}
	*c = caller{} // it has gone with it
	return true
}

func (o outcome) close() {
	if o.file != 0 {
		unix.Close(o.file)
	}
}
