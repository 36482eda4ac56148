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

// wait waits for a call. It ends with unix.ENOENT once no process is left that could make one.
func (l listener) wait() (n notification, err error) {
	for {
		fds := []unix.PollFd{{Fd: int32(l), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return n, err
		}
		switch {
		case fds[0].Revents&unix.POLLIN != 0:
		case fds[0].Revents != 0:
			return n, unix.ENOENT
		default:
			continue
		}
		n = notification{} // the kernel wants it empty
		switch errno := l.control(notifyReceive, unsafe.Pointer(&n)); errno {
		case 0:
			return n, nil
		case unix.EINTR, unix.ENOENT: // the caller is gone
		default:
			return n, errno
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

// add gives the caller a descriptor, a copy of fd, and returns its number there.
func (l listener) add(id uint64, fd int, cloexec bool) (int, unix.Errno) {
	a := addition{id: id, source: uint32(fd)}
	if cloexec {
		a.newFlags = unix.O_CLOEXEC
	}
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(l), notifyAdd, uintptr(unsafe.Pointer(&a)))
	return int(n), errno
}

// hurry has the kernel switch right over between the caller and us, where it can.
func (l listener) hurry() {
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(l), notifySetFlags, flagSyncWake)
}
