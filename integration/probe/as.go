//go:build linux

package main

import (
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"cofferdam.dev/cofferdam/integration/outcome"
)

func init() {
	attempts["as"] = attempt{usage: "UID GID COMMAND...", args: 3, do: become}
}

// become takes the ids of somebody else and executes a command, which then has the output for itself.
func become(args []string, _ *outcome.Outcome) error {
	uid, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	path, err := exec.LookPath(args[2])
	if err != nil {
		return err
	}
	for _, set := range []func() error{
		func() error { return syscall.Setgroups([]int{gid}) }, func() error { return syscall.Setgid(gid) }, func() error { return syscall.Setuid(uid) },
	} {
		if err := set(); err != nil {
			return err
		}
	}
	return syscall.Exec(path, args[2:], os.Environ())
}
