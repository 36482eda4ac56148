//go:build linux

// Command probe makes one attempt to get out of where it runs, and prints how it ended as one line of JSON (package outcome).
//
//	probe tcp 1.1.1.1:443            probe in-userns link-down eth0
//
// It is static and goes into the test image. Its exit code is 0 if the attempt succeeded, 1 if not, and 2 if there is no such attempt.
// Limits: an attempt to talk to somebody is over after three seconds of silence, or what -patience says:
//
//	probe -patience 500ms udp 1.1.1.1:123
package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/integration/outcome"
)

// patience is how long a probe waits for a reply.
var patience = 3 * time.Second

// An attempt fills in the outcome. An error is a refusal; OK is set by finish.
type attempt struct {
	usage string
	args  int // at least so many
	do    func(args []string, o *outcome.Outcome) error
}

// attempts is filled by the init functions of the files that hold them: an attempt may run another one.
var attempts = map[string]attempt{}

func main() {
	for len(os.Args) > 2 && os.Args[1] == "-patience" { // the last one counts
		d, err := time.ParseDuration(os.Args[2])
		if err != nil {
			fmt.Fprintln(os.Stderr, "probe:", err)
			os.Exit(2)
		}
		patience = d
		os.Args = append(os.Args[:1], os.Args[3:]...)
	}
	var a attempt
	var known bool
	if len(os.Args) > 1 {
		a, known = attempts[os.Args[1]]
	}
	if !known || len(os.Args)-2 < a.args {
		fmt.Fprintln(os.Stderr, "usage: probe [-patience DURATION] ATTEMPT")
		lines := []string(nil)
		for name, a := range attempts {
			lines = append(lines, strings.TrimSpace("  "+name+" "+a.usage))
		}
		slices.Sort(lines)
		fmt.Fprintln(os.Stderr, strings.Join(lines, "\n"))
		os.Exit(2)
	}
	o := outcome.Outcome{Attempt: os.Args[1:]}
	begin := time.Now()
	err := a.do(os.Args[2:], &o)
	if o.Elapsed == 0 {
		o.Elapsed = time.Since(begin)
	}
	finish(&o, err)
	fmt.Println(o)
	if !o.OK {
		os.Exit(1)
	}
}

// finish turns the error of an attempt into its outcome.
func finish(o *outcome.Outcome, err error) {
	if err == nil {
		o.OK = true
		return
	}
	if o.Detail != "" {
		o.Detail += ": "
	}
	o.Detail += err.Error()
	var errno syscall.Errno
	if o.Errno == "" && errors.As(err, &errno) {
		o.Errno = unix.ErrnoName(errno)
	}
	if o.Errno == "" && errors.Is(err, os.ErrDeadlineExceeded) {
		o.Errno = "ETIMEDOUT"
	}
}

// did returns the error of a raw system call.
func did(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}
