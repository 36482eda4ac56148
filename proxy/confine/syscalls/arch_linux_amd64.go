package syscalls

import "golang.org/x/sys/unix"

// AuditArch is the AUDIT_ARCH_* of linux/audit.h that a filter lets through.
const AuditArch = unix.AUDIT_ARCH_X86_64
