package broker

import "golang.org/x/sys/unix"

const (
	sysNewfstatat = unix.SYS_NEWFSTATAT
	sysChmod      = unix.SYS_CHMOD
)
