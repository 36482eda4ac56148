package confine

import "golang.org/x/sys/unix"

// What differs between architectures.
const (
	auditArch     = unix.AUDIT_ARCH_AARCH64
	sysNewfstatat = unix.SYS_FSTATAT
)
