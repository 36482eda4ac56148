//go:build linux && !amd64

package main

import "golang.org/x/sys/unix"

// int80 does not exist here.
func int80(nr, a, b, c uintptr) int32 { return -int32(unix.ENOSYS) }
