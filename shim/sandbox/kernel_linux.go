package sandbox

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The oldest kernel that has what is called here: openat2(2) is of 5.6, close_range(2) of 5.9, mount_setattr(2) of 5.12, and an answer of a seccomp listener that
// is a descriptor, in one step, of 5.14.
const kernelMajor, kernelMinor = 5, 14

// CheckKernel returns this kernel's release, and an error if that is too old.
func CheckKernel() (release string, err error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", fmt.Errorf("kernel: %w", err)
	}
	release = unix.ByteSliceToString(u.Release[:])
	return release, checkRelease(release)
}

func checkRelease(release string) error {
	major, rest, _ := strings.Cut(release, ".")
	minor := rest
	if end := strings.IndexFunc(rest, func(c rune) bool { return c < '0' || c > '9' }); end >= 0 { // "14.21", "14-rc1"
		minor = rest[:end]
	}
	a, errA := strconv.Atoi(major)
	b, errB := strconv.Atoi(minor)
	if errA != nil || errB != nil || a < kernelMajor || a == kernelMajor && b < kernelMinor {
		return fmt.Errorf("kernel: Linux %s is older than %d.%d", release, kernelMajor, kernelMinor)
	}
	return nil
}
