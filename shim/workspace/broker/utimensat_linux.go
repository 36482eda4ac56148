package broker

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// utimensat is unix.UtimesNanoAt, which knows no nil.
func utimensat(dir int, name string, times *[2]unix.Timespec, flags int) error {
	p, err := unix.BytePtrFromString(name)
	if err != nil {
		return err
	}
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(dir), uintptr(unsafe.Pointer(p)), uintptr(unsafe.Pointer(times)), uintptr(flags), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
