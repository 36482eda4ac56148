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
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	tid, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC,
		uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(program)
	switch {
	case errno != 0:
		return errno
	case tid != 0:
		return errors.New("a thread has a filter of its own")
	}
	return nil
}
