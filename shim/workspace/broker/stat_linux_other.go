//go:build linux && !amd64

package broker

import "golang.org/x/sys/unix"

const (
	sysNewfstatat = unix.SYS_FSTATAT
	sysChmod      = -1 // there is none
)
