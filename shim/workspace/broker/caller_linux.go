package broker

import (
	"errors"
	"strconv"

	"golang.org/x/sys/unix"
)

// A caller is a thread that has made a call. Its folder in /proc and its status stay open from one call to the next: they are of this
// thread, and of no other one that later has its number. What is read there of a thread that is gone fails.
type caller struct {
	thread uint32 // 0: there is none
	dir    int    // O_PATH
	status int
}

// callers are some whose calls a worker has answered last.
type callers [8]caller

// errGone says that the thread that has made a call is gone, or out of our sight.
var errGone = errors.New("the caller is gone")

// recognize finds who has made a call, and says whether that is somebody new.
func (w *worker) recognize(n *notification) (c *caller, now bool, err error) {
	c = &w.callers[n.pid%uint32(len(w.callers))]
	if c.thread == n.pid && n.pid != 0 {
		return c, false, nil
	}
	c.forget()
	dir, err := unix.Openat(w.proc, strconv.Itoa(int(n.pid)), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, true, errGone
	}
	status, err := unix.Openat(dir, "status", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		unix.Close(dir)
		return nil, true, errGone
	}
	*c = caller{n.pid, dir, status}
	if !w.listener.valid(n.id) { // else it is that thread's folder, since it waits
		c.forget()
		return nil, true, errGone
	}
	return c, true, nil
}

// credentials are the thread's as they are now.
func (c *caller) credentials(b []byte) (credentials, error) {
	n, err := unix.Pread(c.status, b, 0)
	if err != nil {
		return credentials{}, err
	}
	return parseCredentials(b[:n])
}

// lives reports whether the thread is still there.
func (c *caller) lives() bool {
	var b [1]byte
	_, err := unix.Pread(c.status, b[:], 0)
	return err == nil
}

func (c *caller) forget() {
	if c.thread != 0 {
		unix.Close(c.dir)
		unix.Close(c.status)
	}
	*c = caller{}
}

func (c *callers) forget() {
	for i := range c {
		c[i].forget()
	}
}
