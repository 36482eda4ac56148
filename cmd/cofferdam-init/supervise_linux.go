package main

import (
	"errors"
	"io"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/proxy/confine/syscalls/load"
	"cofferdam.dev/cofferdam/shim/runner/pid1"
)

// supervise is PID 1: it returns with the agent, and the kernel ends what is left.
func supervise() (status int) {
	runner := stream(pid1.FDSocket)
	agent, child, err := launch(runner)
	if err != nil {
		return failed(runner, pid1.StatusFailed, err)
	}
	became := make(chan struct{})
	go obey(runner, agent, became) // ends with the process
	switch report, err := pid1.ReadReport(child); {
	case err == nil && report.Event == pid1.Failed:
		return failed(runner, report.Number, errors.New(report.Text))
	case !errors.Is(err, io.EOF):
		return failed(runner, pid1.StatusFailed, errors.New("the agent's process said something else than was agreed"))
	}
	unix.Close(int(child))
	close(became)
	tell(runner, pid1.Report{Event: pid1.Started})
	return reap(runner, agent)
}

// launch takes the order and makes the agent's process, with which child is a
// stream that ends as it becomes the agent. Then nothing of the order is left
// here: no file of the agent's, and its filter is that of this process as well.
func launch(runner stream) (agent int, child stream, err error) {
	if err := keep(); err != nil {
		return 0, 0, err
	}
	if err := unreachable(); err != nil {
		return 0, 0, err
	}
	// What shares the socket outside may have made it non-blocking.
	if err := unix.SetNonblock(int(runner), false); err != nil {
		return 0, 0, failure("socket to the runner", err)
	}
	start, err := pid1.ReadStart(runner)
	if err != nil {
		return 0, 0, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, 0, failure("make a socket", err)
	}
	files := []uintptr{0, 1, 2, uintptr(pair[1]), pid1.FDListen}
	for _, s := range start.Stdio {
		if i, ok := s.Extra(); ok {
			for len(files) <= fdExtra+i {
				files = append(files, uintptr(pid1.FDExtra+len(files)-fdExtra))
			}
		}
	}
	agent, err = syscall.ForkExec("/proc/self/exe", []string{"cofferdam-init"}, &syscall.ProcAttr{
		Env: syscall.Environ(), Files: files, Sys: attributes(start.User),
	})
	if err != nil {
		return 0, 0, failure("make the agent's process", err)
	}
	for fd := range len(files) {
		if fd < fdChannel {
			unix.Close(fd) // or the agent's readers would wait for the end of ours
		} else if fd >= fdExtra {
			unix.Close(pid1.FDExtra + fd - fdExtra)
		}
	}
	unix.Close(pid1.FDBinary)
	unix.Close(pid1.FDListen)
	unix.Close(pair[1])
	child = stream(pair[0])
	if err := load.Filter(start.Filter); err != nil {
		return 0, 0, failure("restrict system calls", err)
	}
	if err := pid1.WriteStart(child, start); err != nil {
		return 0, 0, failure("pass the order on", err)
	}
	return agent, child, nil
}

// unreachable closes the ways to this process that keep left open: signals, and
// the runner's death.
func unreachable() error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return failure("end with the runner", err)
	}
	name, _ := unix.BytePtrFromString("cofferdam-init")
	if err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(name)), 0, 0, 0); err != nil {
		return failure("set name", err)
	}
	// The kernel keeps signals from PID 1 that it has no handler for
	// (pid_namespaces(7)). Go's runtime has one for each, and most of them end the
	// process. It needs them to interrupt goroutines, of which none here computes,
	// and to turn faults into panics, which here are the end as well.
	for number := 1; number <= 64; number++ {
		if number == int(unix.SIGKILL) || number == int(unix.SIGSTOP) {
			continue
		}
		var byDefault [4]uint64 // struct sigaction of the kernel: SIG_DFL, no flags, nothing masked
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(number), uintptr(unsafe.Pointer(&byDefault)), 0, 8, 0, 0)
		if errno != 0 {
			return failure("take signals back", errno)
		}
	}
	return nil
}

// attributes of the agent's process: a process group of its own, and if there is
// a user, a namespace in which this process's own, 0, is that one.
func attributes(user *pid1.User) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if user != nil {
		attr.Cloneflags = unix.CLONE_NEWUSER
		for _, m := range pid1.Map(user.UID, user.Others) {
			attr.UidMappings = append(attr.UidMappings, syscall.SysProcIDMap{ContainerID: int(m.Inside), HostID: int(m.Outside), Size: int(m.Count)})
		}
		for _, m := range pid1.Map(user.GID, user.Others) {
			attr.GidMappings = append(attr.GidMappings, syscall.SysProcIDMap{ContainerID: int(m.Inside), HostID: int(m.Outside), Size: int(m.Count)})
		}
		attr.GidMappingsEnableSetgroups = user.Groups
	}
	return attr
}

// obey passes the runner's signals on, once there is an agent: Go's runtime, which
// the process runs until then, loses some and takes others for a crash. A runner
// that is gone, or says something else, ends this process, and so the container.
func obey(runner stream, agent int, became <-chan struct{}) {
	for {
		signal, err := pid1.ReadSignal(runner)
		if err != nil {
			unix.Exit(128 + int(unix.SIGKILL))
		}
		<-became
		if !signal.Group || unix.Kill(-agent, signal.Number) != nil {
			_ = unix.Kill(agent, signal.Number) // it may just have ended
		}
	}
}

// reap waits for every process that has no other parent, until the agent ends.
func reap(runner stream, agent int) (status int) {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WUNTRACED|unix.WCONTINUED, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return pid1.StatusFailed // there is no agent: cannot be
		case pid != agent:
		case ws.Exited():
			tell(runner, pid1.Report{Event: pid1.Exited, Number: uint8(ws.ExitStatus())})
			return ws.ExitStatus()
		case ws.Signaled():
			tell(runner, pid1.Report{Event: pid1.Killed, Number: uint8(ws.Signal())})
			return 128 + int(ws.Signal())
		case ws.Stopped():
			tell(runner, pid1.Report{Event: pid1.Stopped, Number: uint8(ws.StopSignal())})
		case ws.Continued():
			tell(runner, pid1.Report{Event: pid1.Continued})
		}
	}
}

// tell reports. An error means that the runner is gone, which obey notices.
func tell(runner stream, r pid1.Report) { _ = pid1.WriteReport(runner, r) }
