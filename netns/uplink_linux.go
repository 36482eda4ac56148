package netns

import (
	"fmt"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// An Uplink is a network namespace in which an engine may put interfaces of its own, and through which the proxy then
// reaches the world. It is born with lo alone. Engines find a namespace by the number of a process in it; here that is a
// thread of this process, which does nothing else: /proc/TID/ns/net is that of the thread (proc(5)). Methods may be called
// concurrently, except Close.
type Uplink struct {
	ns    *os.File
	tid   int
	leave sync.Once
	quit  chan struct{} // closed by leave
}

// NewUplink makes the namespace. It needs CAP_SYS_ADMIN in the caller's user namespace, which then owns it. The caller
// closes the Uplink.
func NewUplink() (*Uplink, error) {
	u := &Uplink{quit: make(chan struct{})}
	made := make(chan error)
	offMain(func() { // on a thread that ends with it, at Close
		var err error
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("create network namespace: %w", err)
		} else {
			u.tid = unix.Gettid()
			u.ns, err = os.Open(ownNet)
		}
		made <- err
		if err == nil {
			<-u.quit
		}
	})
	if err := <-made; err != nil {
		return nil, err
	}
	return u, nil
}

// offMain runs f in a goroutine on a thread of its own, which is not the main one and ends when f returns. (The main thread
// is the one that /proc/PID speaks of, and the one thread that cannot end.)
func offMain(f func()) {
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if unix.Gettid() != unix.Getpid() {
			f()
			return
		}
		elsewhere := make(chan struct{})
		offMain(func() {
			close(elsewhere)
			f()
		})
		<-elsewhere // until then the main thread is taken
		runtime.UnlockOSThread()
	}()
}

// Thread is the number by which an engine finds the namespace, until Leave or Close.
func (u *Uplink) Thread() int { return u.tid }

// NS is the namespace. It is valid until Close.
func (u *Uplink) NS() *os.File { return u.ns }

// Links returns the names of the interfaces that somebody has put there.
func (u *Uplink) Links() ([]string, error) {
	var all []link
	if err := Do(u.ns, func() (err error) {
		all, err = links()
		return err
	}); err != nil {
		return nil, fmt.Errorf("list interfaces of uplink: %w", err)
	}
	var names []string
	for _, l := range all {
		if l.index != loIndex && !l.isFallback() {
			names = append(names, l.name)
		}
	}
	return names, nil
}

// Leave ends the thread; the namespace stays until Close. It may be called twice.
func (u *Uplink) Leave() { u.leave.Do(func() { close(u.quit) }) }

// Close gives the namespace up. It lives on while others hold it: an engine that has pinned it, a process that is in it.
func (u *Uplink) Close() error {
	u.Leave()
	return u.ns.Close()
}
