package broker

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// names is held, shared, while a place is judged and changed, and alone by what changes where names lead. It counts the latter: what
// was looked up before one is looked up again.
//
// Several sandboxes may have one workspace. Each has a broker, and these take turns by the locks of a file that they share, one for each workspace.
type names struct {
	mu    sync.RWMutex
	files []sharedFile

	readers sync.Mutex // guards the rest
	count   int        // those who hold mu, shared
	own     atomic.Uint64
}

// A sharedFile has the count of all brokers in its first bytes; its first byte is what is locked.
type sharedFile struct {
	fd    int
	moves *atomic.Uint64
}

// SharedSize is the size of a file of [Files.Shared].
const SharedSize = 4096

// share adds a file.
func (n *names) share(fd int) error {
	b, err := unix.Mmap(fd, 0, SharedSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	n.files = append(n.files, sharedFile{fd, (*atomic.Uint64)(unsafe.Pointer(&b[0]))})
	return nil
}

// moves is how often names have come to lead elsewhere.
func (n *names) moves() uint64 {
	sum := n.own.Load()
	for _, f := range n.files {
		sum += f.moves.Load()
	}
	return sum
}

// moved says that names lead elsewhere now. They are held alone.
func (n *names) moved() {
	n.own.Add(1)
	for _, f := range n.files {
		f.moves.Add(1)
	}
}

// hold takes the names, alone or with others. The error is that of a lock (fcntl(2)).
func (n *names) hold(alone bool) (release func(), err error) {
	if alone {
		n.mu.Lock()
		if err := n.lock(unix.F_WRLCK); err != nil {
			n.mu.Unlock()
			return func() {}, err
		}
		return func() {
			_ = n.lock(unix.F_UNLCK)
			n.mu.Unlock()
		}, nil
	}
	n.mu.RLock()
	if err := n.enter(); err != nil {
		n.mu.RUnlock()
		return func() {}, err
	}
	return n.leave, nil
}

func (n *names) enter() error {
	n.readers.Lock()
	defer n.readers.Unlock()
	if n.count == 0 {
		if err := n.lock(unix.F_RDLCK); err != nil {
			return err
		}
	}
	n.count++
	return nil
}

func (n *names) leave() {
	n.readers.Lock()
	if n.count--; n.count == 0 {
		_ = n.lock(unix.F_UNLCK)
	}
	n.readers.Unlock()
	n.mu.RUnlock()
}

// lock locks or unlocks all files, in an order that is the same for all brokers.
func (n *names) lock(how int16) error {
	for i, f := range n.files {
		for {
			err := unix.FcntlFlock(uintptr(f.fd), unix.F_OFD_SETLKW, &unix.Flock_t{Type: how, Len: 1})
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err == nil || how == unix.F_UNLCK {
				break
			}
			for _, f := range n.files[:i] {
				_ = unix.FcntlFlock(uintptr(f.fd), unix.F_OFD_SETLKW, &unix.Flock_t{Type: unix.F_UNLCK, Len: 1})
			}
			return err
		}
	}
	return nil
}
