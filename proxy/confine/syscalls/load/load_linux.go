// Package load has the kernel hold this process to a compiled filter of package
// syscalls. It is a package of its own, which imports next to nothing, for
// programs whose start is to take no time.
package load

import (
	"errors"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Filter applies a program to all threads of this process (seccomp(2),
// SECCOMP_FILTER_FLAG_TSYNC) and to whatever they start, for good. The calling
// thread must have no_new_privs, which all others get with the program, and stay
// the caller's (runtime.LockOSThread) if only it has them.
//
// An error of the kernel's is a [unix.Errno], and then nothing has changed.
func Filter(program []unix.SockFilter) error {
	if len(program) == 0 || len(program) > 1<<16-1 {
		return errors.New("no program, or one that is too long")
	}
	tid, errno := load(program, unix.SECCOMP_FILTER_FLAG_TSYNC)
	switch {
	case errno != 0:
		return errno
	case tid != 0:
		return errors.New("a thread has a filter of its own")
	}
	return nil
}

// Asking applies a program with questions to the calling thread and to whatever
// it starts, for good, and returns the listener that is asked, a descriptor that
// is closed on exec. The thread must have no_new_privs. Where the kernel can
// (Linux 5.19), a call that somebody has begun to answer waits for the answer,
// whatever signals come.
func Asking(program []unix.SockFilter) (listener int, err error) {
	if len(program) == 0 || len(program) > 1<<16-1 {
		return -1, errors.New("no program, or one that is too long")
	}
	const waitKillable = 1 << 5 // SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV of linux/seccomp.h
	fd, errno := load(program, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|waitKillable)
	if errno == unix.EINVAL {
		fd, errno = load(program, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER)
	}
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

func load(program []unix.SockFilter, flags uintptr) (uintptr, unix.Errno) {
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	r, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(program)
	return r, errno
}
