package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// acts are what this test binary does as an agent.
var acts = map[string]func() error{
	"orphans":     orphans,
	"attack":      attack,
	"leave-group": leaveGroup,
}

// orphans leaves many processes without a parent, which end, and waits until none of them is left, not as a zombie either.
func orphans() error {
	for range 50 {
		if err := exec.Command("sh", "-c", "(exit 3) & sh -c 'exit 4' &").Run(); err != nil {
			return err
		}
	}
	own := strconv.Itoa(os.Getpid())
	end := time.Now().Add(10 * time.Second)
	for range time.Tick(time.Millisecond) {
		paths, err := filepath.Glob("/proc/[0-9]*")
		if err != nil {
			return err
		}
		if len(paths) == 2 && paths[0] == "/proc/1" && paths[1] == "/proc/"+own {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("processes %v", paths)
		}
	}
	return nil
}

// leaveGroup moves to a group of another process, and waits.
func leaveGroup() error {
	other := exec.Command("sleep", "1000")
	other.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	if err := other.Start(); err != nil {
		return err
	}
	if err := unix.Setpgid(0, other.Process.Pid); err != nil {
		return err
	}
	fmt.Println("left")
	return other.Wait()
}

// attack does to PID 1 what it can do to a process of its own.
func attack() error {
	victim := exec.Command("sleep", "1000")
	if err := victim.Start(); err != nil {
		return err
	}
	var failed []error
	for name, try := range map[string]func(pid int) error{
		"trace": func(pid int) error {
			if err := unix.PtraceSeize(pid); err != nil {
				return err
			}
			return nil
		},
		"attach": func(pid int) error {
			other := exec.Command("sleep", "1000") // one process is traced once
			if pid != 1 {
				if err := other.Start(); err != nil {
					return err
				}
				pid = other.Process.Pid
			}
			return unix.PtraceAttach(pid)
		},
		"open its memory":        func(pid int) error { return open(pid, "mem") },
		"read its environment":   func(pid int) error { return read(pid, "environ") },
		"read its mappings":      func(pid int) error { return read(pid, "maps") },
		"open its descriptors":   func(pid int) error { return eachDescriptor(pid, open) },
		"follow its descriptors": func(pid int) error { return eachDescriptor(pid, follow) },
		"follow its program":     func(pid int) error { return follow(pid, "exe") },
		"follow its root folder": func(pid int) error { return follow(pid, "root") },
		"follow its namespace":   func(pid int) error { return follow(pid, "ns/pid") },
		"read its memory": func(pid int) error {
			var b [1]byte
			_, err := unix.ProcessVMReadv(pid, []unix.Iovec{{Base: &b[0], Len: 1}}, []unix.RemoteIovec{{Base: 0x400000, Len: 1}}, 0)
			if errors.Is(err, unix.EFAULT) { // it was let look, and there is nothing
				return nil
			}
			return err
		},
		"take its descriptor": func(pid int) error {
			if pid != 1 {
				return nil // the filter has no such call: there is no control
			}
			fd, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				return err
			}
			_, err = unix.PidfdGetfd(fd, 4, 0)
			return err
		},
	} {
		if err := try(victim.Process.Pid); err != nil {
			failed = append(failed, fmt.Errorf("control: %s: %w", name, err))
		}
		if err := try(1); !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
			failed = append(failed, fmt.Errorf("%s: %w", name, fmt.Errorf("%v", err)))
		}
	}

	// Signals: the kernel drops them, whoever sends them how.
	before, err := running()
	if err != nil {
		failed = append(failed, err)
	}
	for number := unix.Signal(1); number <= 64; number++ {
		if err := unix.Kill(1, number); err != nil {
			failed = append(failed, fmt.Errorf("signal %d: %w", number, err)) // it would show nothing
		}
		if err := unix.Tgkill(1, 1, number); err != nil {
			failed = append(failed, fmt.Errorf("signal %d to the thread: %w", number, err))
		}
	}
	if err := unix.Kill(-1, unix.SIGKILL); err != nil {
		failed = append(failed, fmt.Errorf("kill all: %w", err))
	}
	after, err := running()
	if err != nil || before != after {
		failed = append(failed, fmt.Errorf("PID 1 was %q, is %q: %w", before, after, err))
	}
	return errors.Join(failed...)
}

// running is PID 1's state, waiting or not, and what it does with signals.
func running() (string, error) {
	text, err := os.ReadFile("/proc/1/status")
	if err != nil {
		return "", err
	}
	var kept []byte
	for line := range bytes.Lines(text) {
		for _, key := range []string{"State:", "TracerPid:", "SigPnd:", "ShdPnd:", "SigIgn:", "SigCgt:"} {
			if bytes.HasPrefix(line, []byte(key)) {
				kept = append(kept, line...)
			}
		}
	}
	return string(kept), nil
}

func name(pid int, what string) string { return fmt.Sprintf("/proc/%d/%s", pid, what) }

func open(pid int, what string) error {
	f, err := os.Open(name(pid, what))
	if err == nil {
		err = f.Close()
	}
	return err
}

func read(pid int, what string) error {
	_, err := os.ReadFile(name(pid, what))
	return err
}

// eachDescriptor does to the descriptors of a process, which root may list, what is to fail with EACCES; anything else is success.
func eachDescriptor(pid int, do func(pid int, what string) error) error {
	list, err := os.ReadDir(name(pid, "fd"))
	if err != nil {
		return err
	}
	for _, fd := range list {
		if err := do(pid, "fd/"+fd.Name()); !errors.Is(err, unix.EACCES) {
			return nil
		}
	}
	if len(list) == 0 {
		return errors.New("it has none")
	}
	return unix.EACCES
}

func follow(pid int, what string) error {
	_, err := os.Readlink(name(pid, what))
	return err
}
