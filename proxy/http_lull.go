package proxy

import (
	"errors"
	"net"
	"sync"
	"syscall"
	"time"
)

// waiting is what an HTTP connection waits for.
type waiting uint8

const (
	forNothing  waiting = iota
	forAgent            // to send the next request
	forUpstream         // to answer, or to be connected
)

// lullAfter is how long a connection waits before that is worth a deadline or a
// goroutine. Most waits are over by then, and cost a flag.
const lullAfter = 50 * time.Millisecond

// lull does what long waits need. Between requests that is an end. While an
// upstream is waited for it is to notice that the agent has gone, which nobody
// reads from then.
type lull struct {
	agent *net.TCPConn
	keep  time.Duration // between requests
	gone  func()        // called once the agent is, at most once per watch
	moved *activity     // a wait is taken to begin with its last byte

	mu      sync.Mutex // guards the rest
	waits   waiting
	lent    bool // the agent is read from by who sends a body
	armed   bool // timer will fire
	timer   *time.Timer
	ends    bool          // the agent's deadline is set
	watched chan struct{} // closed when the watch has ended; nil if there is none
}

// begin says that a wait begins.
func (l *lull) begin(w waiting) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waits = w
	if l.armed {
		return
	}
	l.armed = true
	if l.timer == nil {
		l.timer = time.AfterFunc(lullAfter, l.fire)
	} else {
		l.timer.Reset(lullAfter)
	}
}

// over says that the wait is.
func (l *lull) over() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waits = forNothing
	if l.ends {
		l.ends = false
		l.agent.SetReadDeadline(time.Time{})
	}
}

// lend says whether somebody else reads from the agent while an upstream is
// waited for: who does notices by itself.
func (l *lull) lend(lent bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lent = lent
}

// fire is called while the timer is armed.
func (l *lull) fire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	left := lullAfter - time.Since(time.Unix(0, l.moved.last.Load()))
	switch {
	case l.waits == forNothing || l.ends || l.watched != nil:
		l.armed = false
		return
	case left > 0:
		l.timer.Reset(left)
		return
	case l.waits == forAgent:
		l.ends = true
		l.agent.SetReadDeadline(time.Now().Add(l.keep))
	case l.lent:
		l.timer.Reset(lullAfter)
		return
	default:
		l.watched = make(chan struct{})
		go l.watch(l.watched)
	}
	l.armed = false
}

// settle ends the watch, before the agent is read from again.
func (l *lull) settle() {
	l.mu.Lock()
	watched := l.watched
	l.mu.Unlock()
	if watched == nil {
		return
	}
	l.agent.SetReadDeadline(time.Unix(1, 0))
	<-watched
	l.agent.SetReadDeadline(time.Time{})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watched = nil
}

// watch waits until the agent resets the connection. That it has sent all it will
// says nothing: it may well close its half and wait for the answer. It ends when
// settle is called.
func (l *lull) watch(done chan struct{}) {
	defer close(done)
	raw, err := l.agent.SyscallConn()
	if err != nil {
		return
	}
	waitErr := raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return err != nil && !errors.Is(err, syscall.EAGAIN) && !errors.Is(err, syscall.EINTR)
	})
	if waitErr == nil {
		l.gone()
	}
}

// stop ends it all.
func (l *lull) stop() {
	l.settle()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
	}
	l.waits, l.armed = forNothing, true // nothing arms it again
}
