//go:build linux

// Command cofferdam-init is the first process of a sandbox that cofferdam runs
// without a daemon. It is started by cofferdam, never by hand: package pid1 says
// with what, and what it is for.
//
// It is two programs. As PID 1 it takes the runner's order, starts itself once
// more for the agent, and then reaps, reports and passes signals on (supervise).
// As that other process it takes the last steps in the agent's own name, and
// becomes the agent (become): to be in the foreground of the terminal from the
// beginning, to be under the filter, and to look for the command with the agent's
// rights are things that no parent can do for its child.
//
// It imports neither os nor fmt: together they are a fifth of its memory and of
// its time to start.
package main

import (
	"io"
	"runtime"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/shim/runner/pid1"
)

func main() {
	runtime.LockOSThread() // PR_SET_PDEATHSIG and signal masks are the thread's
	if unix.Getpid() == 1 {
		unix.Exit(supervise())
	}
	unix.Exit(become())
}

// keep is the first step of both: descriptors are the agent's only if they are
// handed on, and nobody else is to see into this process.
func keep() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return failure("set not dumpable", err)
	}
	if err := unix.CloseRange(3, 1<<32-1, unix.CLOSE_RANGE_CLOEXEC); err != nil { // Linux 5.11
		return failure("close files on exec", err)
	}
	return nil
}

// A stream is a descriptor that reads and writes, and blocks in the kernel.
type stream int

func (s stream) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(int(s), b)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, err
		case n == 0 && len(b) > 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

func (s stream) Write(b []byte) (n int, err error) {
	for n < len(b) {
		m, err := unix.Write(int(s), b[n:])
		if err != nil && err != unix.EINTR {
			return n, err
		}
		n += max(m, 0)
	}
	return n, nil
}

// An operation that failed, and why.
type operationError struct {
	what string
	err  error
}

func (e *operationError) Error() string { return e.what + ": " + e.err.Error() }

func failure(what string, err error) error { return &operationError{what, err} }

// failed reports that there is no agent, and is the status to exit with.
func failed(to stream, status uint8, err error) int {
	_ = pid1.WriteReport(to, pid1.Report{Event: pid1.Failed, Number: status, Text: err.Error()}) // it may be gone; the status says it too
	return int(status)
}
