package confine

import "golang.org/x/sys/unix"

// What differs between architectures.
const sysNewfstatat = unix.SYS_FSTATAT
