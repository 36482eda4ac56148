package broker

import (
	"bufio"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// resume leaves a call to the kernel, for which the workspace is read-only. Not so a descriptor that the caller got from here, whose mount is ours:
// by that one, and by the paths that /proc has of it, the kernel would make a set-user-ID file. So such a change of mode is carried out
// here also where it is about no workspace.
func (r *request) resume() outcome {
	c, ok := modeOf(r.n)
	if !ok || c.mode&(unix.S_ISUID|unix.S_ISGID) == 0 {
		return resumed
	}
	fd, err := r.theirs(c)
	if err != nil {
		return failed(err)
	}
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID|unix.STATX_TYPE, &st); err != nil {
		return failed(err)
	}
	if st.Mask&unix.STATX_MNT_ID == 0 || r.mounts[st.Mnt_id] {
		c.mode &= fileMode
	}
	return done(unix.Fchmodat(r.proc, self(fd), c.mode, 0))
}

// A modeChange is what the arguments of a call say: an index of -1 stands for none.
type modeChange struct {
	fd, path, flags int
	mode            uint32
}

func modeOf(n notification) (modeChange, bool) {
	mode := func(i int) uint32 { return uint32(n.args[i]) }
	switch n.number {
	case unix.SYS_FCHMOD:
		return modeChange{0, -1, 0, mode(1)}, true
	case unix.SYS_FCHMODAT:
		return modeChange{0, 1, 0, mode(2)}, true
	case unix.SYS_FCHMODAT2:
		return modeChange{0, 1, int(int32(n.args[3])), mode(2)}, true
	case sysChmod:
		return modeChange{-1, 0, 0, mode(1)}, true
	}
	return modeChange{}, false
}

// theirs opens (O_PATH) what a call is about, in the caller's own mounts and below its own root.
func (r *request) theirs(c modeChange) (int, error) {
	if c.path < 0 {
		return r.theirDescriptor(r.arg(c.fd))
	}
	name, err := r.path(r.n.args[c.path])
	switch {
	case err != nil:
		return -1, err
	case c.flags&^(unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH) != 0:
		return -1, unix.EINVAL
	case name == "" && c.flags&unix.AT_EMPTY_PATH == 0:
		return -1, unix.ENOENT
	case name == "" && r.arg(c.fd) != unix.AT_FDCWD:
		return r.theirDescriptor(r.arg(c.fd))
	case name == "":
		return r.openLink("cwd")
	}
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS}
	if c.flags&unix.AT_SYMLINK_NOFOLLOW != 0 {
		how.Flags |= unix.O_NOFOLLOW
	}
	var dir int
	switch own, is := r.ownDescriptor(name); {
	case is:
		return r.openLink("fd/" + own)
	case name[0] == '/':
		how.Resolve |= unix.RESOLVE_IN_ROOT
		dir, err = r.openLink("root")
	case c.fd < 0 || r.arg(c.fd) == unix.AT_FDCWD:
		dir, err = r.openLink("cwd")
	default:
		dir, err = r.theirDescriptor(r.arg(c.fd))
	}
	if err != nil {
		return -1, err
	}
	fd, err := unix.Openat2(dir, name, &how)
	if err == nil {
		r.close(fd)
	}
	return fd, err
}

// writable are the IDs of the workspaces' mounts and those below them, in this process's namespace (proc_pid_mountinfo(5)).
func (b *broker) writable() (map[uint64]bool, error) {
	fd, err := unix.Openat(b.proc, "self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "mountinfo")
	defer f.Close()
	parents := map[uint64]uint64{}
	s := bufio.NewScanner(f)
	for s.Scan() {
		fields := strings.SplitN(s.Text(), " ", 3)
		if len(fields) < 3 {
			return nil, unix.EINVAL
		}
		id, err := strconv.ParseUint(fields[0], 10, 64)
		if err != nil {
			return nil, err
		}
		if parents[id], err = strconv.ParseUint(fields[1], 10, 64); err != nil {
			return nil, err
		}
	}
	if err := s.Err(); err != nil {
		return nil, err
	}
	ours := map[uint64]bool{}
	for _, t := range b.trees {
		var st unix.Statx_t
		if err := unix.Statx(t.fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil {
			return nil, err
		}
		ours[st.Mnt_id] = true
	}
	for grew := true; grew; {
		grew = false
		for id, parent := range parents {
			if ours[parent] && !ours[id] {
				ours[id], grew = true, true
			}
		}
	}
	return ours, nil
}
