//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"time"

	"cofferdam.dev/cofferdam/integration/outcome"
)

// envMortal marks the process in which a mortal attempt is made.
const envMortal = "PROBE_MORTAL"

func init() {
	if os.Getenv(envMortal) != "" {
		runtime.LockOSThread() // in init: main then runs on the process's first thread
	}
}

// mortal makes an attempt in a process of its own. A seccomp filter ends the thread that enters the kernel by a way the filter does not
// know, and with it neither the others nor the process: a Go program hangs. The first thread is then a zombie, see proc_pid_stat(5).
func mortal(do func([]string, *outcome.Outcome) error) func([]string, *outcome.Outcome) error {
	if os.Getenv(envMortal) != "" {
		return do
	}
	return func(_ []string, o *outcome.Outcome) error {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), envMortal+"=1")
		var out bytes.Buffer
		cmd.Stdout = &out
		if err := cmd.Start(); err != nil {
			return err
		}
		ended := make(chan struct{})
		go func() {
			_ = cmd.Wait() // the outcome says it
			close(ended)
		}()
		for {
			select {
			case <-ended:
				inner, err := outcome.Parse(out.Bytes())
				if err != nil {
					o.Errno = "SIGSYS"
					return fmt.Errorf("the attempt ended its process: %w", err)
				}
				*o = inner
				if !inner.OK {
					return fmt.Errorf("%s", inner.Detail)
				}
				return nil
			case <-time.After(10 * time.Millisecond): // nothing to wait for: the process does not end
			}
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
			if err == nil && bytes.HasPrefix(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" Z")) {
				select {
				case <-ended: // it has ended as a whole
					continue
				case <-time.After(100 * time.Millisecond):
				}
				_ = cmd.Process.Kill()
				<-ended
				o.Errno = "SIGSYS"
				return fmt.Errorf("the kernel ended the thread of the attempt")
			}
		}
	}
}
