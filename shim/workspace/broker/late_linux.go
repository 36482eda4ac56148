package broker

import (
	"sync"
)

// latecomers are outcomes of calls that were interrupted while they waited, after they had been carried out: the thread makes such a call
// once more (SA_RESTART), and is to get the outcome that there was. Where the filter could be loaded so that nothing interrupts such a
// call but the end of its thread, none is asked for again.
type latecomers struct {
	mu sync.Mutex
	by map[uint32]late // thread
}

// A late outcome is for the call of that thread which has the same arguments and reads the same, and is the thread's next one.
type late struct {
	caller
	number int32
	args   [6]uint64
	seen   []sight
	out    outcome
}

// A sight is what was read of a caller: of its memory, or, if it has a name, of one of its links in /proc.
type sight struct {
	addr uint64
	link string
	text string
}

// maxLate bounds what is kept.
const maxLate = 256

// keep takes an outcome and the caller over, if it says so.
func (l *latecomers) keep(k late) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by == nil {
		l.by = map[uint32]late{}
	}
	for thread, old := range l.by {
		if thread == k.thread || !old.lives() {
			old.close()
			delete(l.by, thread)
		}
	}
	if len(l.by) == maxLate {
		return false
	}
	l.by[k.thread] = k
	return true
}

// take takes out what is kept for a thread.
func (l *latecomers) take(thread uint32) (late, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k, ok := l.by[thread]
	delete(l.by, thread)
	return k, ok
}

// lateOutcome is that of an earlier call which this one repeats.
func (r *request) lateOutcome() (outcome, bool) {
	k, ok := r.late.take(r.n.pid)
	if !ok {
		return outcome{}, false
	}
	same := k.number == r.n.number && k.args == r.n.args && k.lives()
	for _, s := range k.seen {
		same = same && r.sees(s)
	}
	if !same {
		k.close()
		return outcome{}, false
	}
	k.forget()
	return k.out, true
}

// sees reports whether the same would be read now.
func (r *request) sees(s sight) bool {
	if s.link != "" {
		b, err := r.linkText(s.link)
		return err == nil && string(b) == s.text
	}
	b := make([]byte, len(s.text))
	return r.copy(b, s.addr) == nil && string(b) == s.text
}

func (k *late) close() {
	k.forget()
	k.out.close()
}
