package shim

import (
	"fmt"
	"os"
	"os/exec"

	runc "github.com/containerd/go-runc"
	"golang.org/x/sys/unix"
)

// A nullMonitor starts the OCI runtime as its inner one does, but with a null device for streams that are not there which nobody can change.
// An added process is given these descriptors as they are, and root in a container is root for the host's own device: the mode of that
// would be the agent's to set, for everybody. The container's first process has them replaced by the runtime.
type nullMonitor struct {
	runc.ProcessMonitor
	null *os.File
}

func newNullMonitor(inner runc.ProcessMonitor) (*nullMonitor, error) {
	null, err := openNull()
	if err != nil {
		return nil, fmt.Errorf("null device: %w", err)
	}
	return &nullMonitor{inner, null}, nil
}

// openNull opens the null device by a mount of its own, which is read-only: bytes go in and out of a device there as anywhere.
func openNull() (*os.File, error) {
	mount, err := unix.OpenTree(unix.AT_FDCWD, os.DevNull, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("open_tree", err)
	}
	defer unix.Close(mount)
	if err := unix.MountSetattr(mount, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return nil, os.NewSyscallError("mount_setattr", err)
	}
	return os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", mount), os.O_RDWR, 0)
}

// Start is that of the inner monitor.
func (m *nullMonitor) Start(cmd *exec.Cmd) (chan runc.Exit, error) {
	m.replace(cmd)
	return m.ProcessMonitor.Start(cmd)
}

// StartLocked is that of the inner monitor.
func (m *nullMonitor) StartLocked(cmd *exec.Cmd) (chan runc.Exit, error) {
	m.replace(cmd)
	return m.ProcessMonitor.StartLocked(cmd)
}

func (m *nullMonitor) replace(cmd *exec.Cmd) {
	if cmd.Stdin == nil || isNull(cmd.Stdin) {
		cmd.Stdin = m.null
	}
	if cmd.Stdout == nil || isNull(cmd.Stdout) {
		cmd.Stdout = m.null
	}
	if cmd.Stderr == nil || isNull(cmd.Stderr) {
		cmd.Stderr = m.null
	}
}

// isNull reports whether a stream is the null device, null(4).
func isNull(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
}
