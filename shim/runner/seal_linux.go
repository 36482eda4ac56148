package runner

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runc/libcontainer/exeseal"
	"golang.org/x/sys/unix"
)

// seal opens a binary such that nobody can change it by what they open: an agent finds it as /proc/1/exe (CVE-2019-5736). It is opened through
// an overlay file system that has no layer to write to, as libcontainer opens its own program, which costs neither the time nor the memory of a
// copy; or it is one, where the kernel makes no overlay here. tmp is an empty folder, or one that holds nothing of the binary's name.
func seal(path, tmp string) (*os.File, error) {
	if f, err := throughOverlay(path, tmp); err == nil {
		return f, nil
	}
	return copyOf(path, tmp)
}

// throughOverlay opens a file through a file system of its own (overlayfs.rst: without an upperdir it is read-only). Unlike that of a read-only
// bind mount, what it opens has no other side. It is mounted nowhere, and ends with the file.
func throughOverlay(path, other string) (*os.File, error) {
	dir, name := filepath.Split(path)
	context, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(context)
	escape := strings.NewReplacer(`\`, `\\`, ":", `\:`)
	// Without an upperdir at least two layers are wanted. The first one counts.
	if err := unix.FsconfigSetString(context, "lowerdir", escape.Replace(dir)+":"+escape.Replace(other)); err != nil {
		return nil, os.NewSyscallError("fsconfig", err)
	}
	_ = unix.FsconfigSetString(context, "xino", "off") // a complaint in the kernel's log less, where it would not do
	if err := unix.FsconfigCreate(context); err != nil {
		return nil, os.NewSyscallError("fsconfig", err)
	}
	root, err := unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID)
	if err != nil {
		return nil, os.NewSyscallError("fsmount", err)
	}
	defer unix.Close(root)
	fd, err := unix.Openat(root, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// copyOf makes a copy that cannot be written to.
func copyOf(path, tmp string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	c, err := exeseal.CloneBinary(f, st.Size(), filepath.Base(path), tmp)
	if err != nil {
		return nil, fmt.Errorf("copy %s: %w", path, err)
	}
	return c, nil
}
