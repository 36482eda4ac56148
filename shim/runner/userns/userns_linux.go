// Package userns moves a process of an ordinary user into a user namespace of its own, in which it is root. Its own uid and gid are all there
// are, and its subordinate ids, where the host has given it any ([FindIDs]).
//
// unshare(2) refuses a process with several threads, and a Go program has several before its first line. So the package is a constructor
// in C, which runs before Go does, as that of libcontainer's nsenter: [Exec] replaces the program by itself with a variable in its
// environment, the constructor finds it, and [Inside] tells the new program's main how it went. The process stays the same one: who
// kills it kills what was started, and a terminal has one process to stop.
//
// Subordinate ids are given out by newuidmap(1) and newgidmap(1), which are set-user-ID programs and must be run from outside: a child of
// the constructor's does that. Where they refuse, the namespace has the caller's ids only.
package userns

// #include "userns.h"
import "C"

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// variable tells the constructor to act; its value is the number of the descriptor that Inside reads. idsVariable has [IDs.text].
const (
	variable    = "_COFFERDAM_USERNS"
	idsVariable = "_COFFERDAM_USERNS_IDS"
)

// ErrNone says that there is no user namespace to be had: this host does not let the caller make one.
var ErrNone = errors.New("make a user namespace")

// EndBySignals has the signals by which a person ends a program (SIGINT, SIGTERM) end this process at once. It is called well before Exec:
// what a handler of Go's has caught and nobody has acted on yet, execve(2) would forget.
func EndBySignals() error {
	for _, number := range []unix.Signal{unix.SIGINT, unix.SIGTERM} {
		var byDefault [4]uint64 // struct sigaction of the kernel; zero is SIG_DFL
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(number), uintptr(unsafe.Pointer(&byDefault)), 0, 8, 0, 0)
		if errno != 0 {
			return os.NewSyscallError("rt_sigaction", errno)
		}
	}
	return nil
}

// Exec runs this program anew, with the same arguments, in a user namespace with these ids, if there are any, unless ctx was cancelled.
// groups says that processes in there may change their groups; then the caller's own are given up. payload is for Inside. It returns only with
// an error.
func Exec(ctx context.Context, payload []byte, ids IDs, groups bool) error {
	fd, err := unix.MemfdCreate("cofferdam-request", 0) // to be inherited
	if err != nil {
		return fmt.Errorf("create request memfd: %w", err)
	}
	f := os.NewFile(uintptr(fd), "cofferdam-request")
	if _, err := f.Write(payload); err != nil {
		return fmt.Errorf("write request memfd: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	env := append(os.Environ(), variable+"="+strconv.Itoa(fd))
	if len(ids.Ranges) > 0 {
		env = append(env, idsVariable+"="+ids.text(groups))
	}
	err = unix.Exec("/proc/self/exe", os.Args, env)
	return fmt.Errorf("run %s again: %w", os.Args[0], err)
}

// Inside reports whether this process was made by Exec, and returns what was handed to that. An error says that the namespace could not
// be made. It may be called once.
func Inside() (payload []byte, ok bool, err error) {
	if C.userns_fd < 0 {
		return nil, false, nil
	}
	f := os.NewFile(uintptr(C.userns_fd), "cofferdam-request")
	defer f.Close()
	if C.userns_errno != 0 {
		return nil, true, fmt.Errorf("%w: %s: %w", ErrNone, C.GoString(C.userns_step), unix.Errno(C.userns_errno))
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, true, fmt.Errorf("read request memfd: %w", err)
	}
	if payload, err = io.ReadAll(f); err == nil && len(payload) == 0 {
		err = errors.New("is empty")
	}
	if err != nil {
		return nil, true, fmt.Errorf("read request memfd: %w", err)
	}
	return payload, true, nil
}

// HasIDs reports whether the namespace has more ids than the caller's.
func HasIDs() bool { return C.userns_ids != 0 }
