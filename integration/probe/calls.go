//go:build linux

package main

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/integration/outcome"
)

func init() {
	attempts["call"] = attempt{"NUMBER: a system call with arguments that are all -1, which none has a use for", 1, func(a []string, _ *outcome.Outcome) error {
		number, err := strconv.ParseUint(a[0], 10, 32)
		if err != nil {
			return err
		}
		const no = ^uintptr(0)
		_, _, errno := unix.Syscall6(uintptr(number), no, no, no, no, no, no)
		return did(errno)
	}}
	attempts["calls"] = attempt{"NUMBER,...: makes each call in a process of its own; Reply has NUMBER=ERROR for each, OK for none, and what else became of it", 1, func(a []string, o *outcome.Outcome) error {
		for number := range strings.SplitSeq(a[0], ",") {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			out, err := exec.CommandContext(ctx, "/proc/self/exe", "call", number).Output()
			cancel()
			switch got, perr := outcome.Parse(out); {
			case perr != nil:
				o.Reply += fmt.Sprintf("%s=%v ", number, err)
			case got.OK:
				o.Reply += number + "=OK "
			default:
				o.Reply += number + "=" + got.Errno + " "
			}
		}
		return nil
	}}
}
