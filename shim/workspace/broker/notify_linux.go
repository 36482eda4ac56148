package broker

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A notification is struct seccomp_notif of linux/seccomp.h: a system call that waits.
type notification struct {
	id      uint64
	pid     uint32 // the thread, in this process's PID namespace; 0 if it is not in there
	flags   uint32
	number  int32
	arch    uint32
	pointer uint64
	args    [6]uint64
}

// A response is struct seccomp_notif_resp.
type response struct {
	id    uint64
	value int64
	errno int32 // negative
	flags uint32
}

// An addition is struct seccomp_notif_addfd.
type addition struct {
	id       uint64
	flags    uint32
	source   uint32
	target   uint32
	newFlags uint32
}

// Requests of ioctl(2), and flags, of linux/seccomp.h.
const (
	notifyReceive  = 0xc0502100
	notifySend     = 0xc0182101
	notifyValid    = 0x40082102
	notifyAdd      = 0x40182103
	notifySetFlags = 0x40082104

	flagContinue = 1 // SECCOMP_USER_NOTIF_FLAG_CONTINUE
	flagSyncWake = 1 // SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP, Linux 6.6
)

// A listener is the descriptor on which the calls of the processes under one filter arrive.
type listener int

func (l listener) control(request uintptr, arg unsafe.Pointer) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(l), request, uintptr(arg))
	return errno
}

// receive waits for a call. It ends with unix.ENOENT once no process is left that could make one, on Linux before 6.11 only if a signal comes
// then, see ended.
func (l listener) receive(n *notification) error {
	for {
		*n = notification{} // the kernel wants it empty
		switch errno := l.control(notifyReceive, unsafe.Pointer(n)); {
		case errno == 0:
			return nil
		case errno != unix.EINTR && errno != unix.ENOENT:
			return errno
		}
		if l.ended(0) { // else that caller is gone, or it was a signal
			return unix.ENOENT
		}
	}
}

// ended waits so many milliseconds for the end, -1: for as long as it takes. It is not woken by calls.
func (l listener) ended(timeout int) bool {
	fds := []unix.PollFd{{Fd: int32(l)}}
	for {
		n, err := unix.Poll(fds, timeout)
		if n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return true
		}
		if err == nil {
			return false
		}
	}
}

// valid reports whether the call still waits: what was read of its thread is that thread's, and not of another one with its number.
func (l listener) valid(id uint64) bool { return l.control(notifyValid, unsafe.Pointer(&id)) == 0 }

// resume has the kernel carry the call out. That is always safe: the agent has no right by it that it would not have without us.
func (l listener) resume(id uint64) unix.Errno {
	return l.control(notifySend, unsafe.Pointer(&response{id: id, flags: flagContinue}))
}

func (l listener) answer(id uint64, value int64, errno unix.Errno) unix.Errno {
	return l.control(notifySend, unsafe.Pointer(&response{id: id, value: value, errno: -int32(errno)}))
}

// add gives the caller, while it waits, a copy of a descriptor, and returns which number it has there.
func (l listener) add(id uint64, fd int, cloexec bool) (int, unix.Errno) {
	a := addition{id: id, source: uint32(fd)}
	if cloexec {
		a.newFlags = unix.O_CLOEXEC
	}
	for {
		got, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(l), notifyAdd, uintptr(unsafe.Pointer(&a)))
		if errno != unix.EINTR { // else it was taken back
			return int(got), errno
		}
	}
}

// hurry has the kernel switch right over between the caller and us, where it can.
func (l listener) hurry() {
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(l), notifySetFlags, flagSyncWake)
}
