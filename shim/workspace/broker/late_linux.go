package broker

import (
	"sync"

	"golang.org/x/sys/unix"
)

// latecomers are outcomes of calls that were interrupted while they waited, after they had been carried out: the thread makes such a call
// once more (SA_RESTART), and is to get the outcome that there was. Where the filter could be loaded so that nothing interrupts such a
// call, there are none.
type latecomers struct {
	mu sync.Mutex
	by map[uint32]late // thread
}

type late struct {
	number int32
	args   [6]uint64
	dir    int // the thread's in /proc
	out    outcome
}

// maxLate bounds what is kept.
const maxLate = 256

// keep takes an outcome and the thread's folder over, if it says so.
func (l *latecomers) keep(n notification, out outcome, dir int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by == nil {
		l.by = map[uint32]late{}
	}
	if old, ok := l.by[n.pid]; ok {
		old.close()
	} else if len(l.by) == maxLate {
		for pid, old := range l.by {
			if !old.lives() {
				old.close()
				delete(l.by, pid)
			}
		}
		if len(l.by) == maxLate {
			return false
		}
	}
	l.by[n.pid] = late{n.number, n.args, dir, out}
	return true
}

// take returns the outcome of an earlier call that this one repeats.
func (l *latecomers) take(n notification) (outcome, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k, ok := l.by[n.pid]
	if !ok {
		return outcome{}, false
	}
	delete(l.by, n.pid)
	if k.number != n.number || k.args != n.args || !k.lives() {
		k.close()
		return outcome{}, false
	}
	unix.Close(k.dir)
	return k.out, true
}

// lives reports whether the thread is still there, or another one has its number.
func (k late) lives() bool {
	fd, err := unix.Openat(k.dir, "status", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

func (k late) close() {
	unix.Close(k.dir)
	k.out.close()
}
