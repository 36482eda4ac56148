package broker

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// given reports whether a call changes the mode, the owner, the times or an attribute of a regular file by a descriptor that the caller got from here. Who
// can write to a file may do so, and that descriptor's mount is writable: the kernel can carry the call out. It matters nothing if the caller
// puts another descriptor in that one's place meanwhile: resuming is always safe where no set-user-ID file is made.
func (w *worker) given(n *notification) bool {
	switch n.number {
	case unix.SYS_FCHMOD:
		if uint32(n.args[1])&^0o666 != 0 { // executable files are reported
			return false
		}
	case unix.SYS_FCHOWN, unix.SYS_FSETXATTR, unix.SYS_FREMOVEXATTR:
	case unix.SYS_UTIMENSAT:
		if n.args[1] != 0 || n.args[3] != 0 {
			return false
		}
	default:
		return false
	}
	c, _, err := w.recognize(n)
	if err != nil {
		return false
	}
	var st unix.Statx_t
	err = unix.Statx(c.dir, "fd/"+strconv.Itoa(int(int32(n.args[0]))), 0, unix.STATX_MNT_ID|unix.STATX_TYPE, &st)
	return err == nil && st.Mask&unix.STATX_MNT_ID != 0 && uint32(st.Mode)&unix.S_IFMT == unix.S_IFREG && w.mounts[st.Mnt_id]
}
