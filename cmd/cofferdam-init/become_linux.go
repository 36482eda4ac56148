package main

import (
	"errors"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/proxy/confine/syscalls/load"
	"cofferdam.dev/cofferdam/shim/runner/pid1"
)

// The descriptors that the agent's process is started with.
const (
	fdChannel = 3 // to PID 1
	fdListen  = 4 // for the filter's listener
	fdExtra   = 5 // those for pid1.Extra
)

// become turns this process into the agent; it returns if that fails.
func become() (status int) {
	if err := keep(); err != nil {
		return failed(fdChannel, pid1.StatusFailed, err)
	}
	start, err := pid1.ReadStart(stream(fdChannel))
	if err != nil {
		return failed(fdChannel, pid1.StatusFailed, err)
	}
	if start.Terminal {
		if err := foreground(0); err != nil {
			return failed(fdChannel, pid1.StatusFailed, failure("become the terminal's foreground", err))
		}
	}
	if err := arrange(start.Stdio); err != nil {
		return failed(fdChannel, pid1.StatusFailed, failure("arrange files", err))
	}
	if start.User != nil {
		if err := bound(start.User.Bounding); err != nil {
			return failed(fdChannel, pid1.StatusFailed, failure("drop capabilities", err))
		}
	}
	if err := restrict(start); err != nil {
		return failed(fdChannel, pid1.StatusFailed, failure("restrict system calls", err))
	}
	status, err = run(start.Args, syscall.Environ())
	return failed(fdChannel, uint8(status), failure(start.Args[0], err))
}

// restrict loads the filter. Its listener, which could let everything through, goes
// to the runner, and to nobody else: it is closed here.
func restrict(start pid1.Start) error {
	if !start.Asks {
		return load.Filter(start.Filter)
	}
	listener, err := load.Asking(start.Filter)
	if err != nil {
		return err
	}
	if err := unix.Sendmsg(fdListen, []byte{0}, unix.UnixRights(listener), nil, unix.MSG_NOSIGNAL); err != nil {
		return err
	}
	return unix.Close(listener)
}

// bound takes from root of the new user namespace what it is not to have: at birth
// it has all capabilities in there, and execve(2) gives it those of the bounding
// set. Any other user has lost them with the execve(2) that this process began with.
func bound(keep uint64) error {
	if unix.Geteuid() != 0 {
		return nil
	}
	for number := range uintptr(64) {
		has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, number, 0, 0, 0)
		if err == unix.EINVAL {
			break // the kernel knows no further ones
		}
		if err != nil {
			return err
		}
		if has == 0 || keep&(1<<number) != 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, number, 0, 0, 0); err != nil {
			return err
		}
	}
	return nil
}

// foreground makes this process's group that of the terminal. Until it is, the
// kernel would stop the group for the attempt, but not if the signal is blocked
// (tcsetpgrp(3)).
func foreground(terminal int) error {
	var old, blocked unix.Sigset_t
	blocked.Val[0] = 1 << (unix.SIGTTOU - 1)
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &blocked, &old); err != nil {
		return err
	}
	err := unix.IoctlSetPointerInt(terminal, unix.TIOCSPGRP, unix.Getpid())
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil); err != nil {
		return err
	}
	return err
}

// arrange gives the first three descriptors their files.
func arrange(stdio [3]pid1.Stream) error {
	for fd, s := range stdio {
		if i, ok := s.Extra(); ok {
			if err := unix.Dup3(fdExtra+i, fd, 0); err != nil {
				return err
			}
		} else if s == pid1.Closed {
			if err := unix.Close(fd); err != nil {
				return err
			}
		}
	}
	return nil
}

// run executes the command, as execvp(3) finds it, but that no script is run
// without a line that says by what. It returns if that fails, with the status
// that shells have for it.
func run(args, env []string) (status int, err error) {
	folders := []string{""} // the command itself
	if !strings.Contains(args[0], "/") {
		folders = nil
		for _, v := range env {
			if path, ok := strings.CutPrefix(v, "PATH="); ok {
				folders = strings.Split(path, ":")
				break
			}
		}
	}
	denied := false
	for _, folder := range folders {
		path := args[0]
		if !strings.Contains(path, "/") {
			if folder == "" {
				folder = "."
			}
			path = folder + "/" + path
		}
		switch err := syscall.Exec(path, args, env); {
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		case errors.Is(err, unix.EACCES):
			denied = true
		default:
			return pid1.StatusNotExecutable, err
		}
	}
	if denied {
		return pid1.StatusNotExecutable, errors.New("permission denied")
	}
	return pid1.StatusNotFound, errors.New("not found")
}
