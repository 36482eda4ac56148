package broker

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// handlers carry out the calls that every architecture has; those of older ones are in legacy. Their names are those of the profile that
// package spec makes for an agent with a workspace, which a test compares.
var handlers = map[int32]func(*request) outcome{
	unix.SYS_OPENAT: func(r *request) outcome {
		return r.named(1, func(name string) outcome { return r.open(r.arg(0), name, r.arg(2), uint32(r.n.args[3])) })
	},
	unix.SYS_OPENAT2: openat2,
	unix.SYS_MKDIRAT: func(r *request) outcome {
		return r.named(1, func(name string) outcome { return r.mkdir(r.arg(0), name, uint32(r.n.args[2])) })
	},
	unix.SYS_MKNODAT: func(r *request) outcome {
		return r.named(1, func(name string) outcome { return r.mknod(r.arg(0), name, uint32(r.n.args[2])) })
	},
	unix.SYS_RENAMEAT: func(r *request) outcome {
		return r.two(1, 3, func(from, to string) outcome { return r.rename(r.arg(0), from, r.arg(2), to, 0) })
	},
	unix.SYS_RENAMEAT2: func(r *request) outcome {
		return r.two(1, 3, func(from, to string) outcome {
			return r.rename(r.arg(0), from, r.arg(2), to, uint(uint32(r.n.args[4])))
		})
	},
	unix.SYS_LINKAT: func(r *request) outcome {
		return r.two(1, 3, func(from, to string) outcome { return r.link(r.arg(0), from, r.arg(2), to, r.arg(4)) })
	},
	unix.SYS_SYMLINKAT: func(r *request) outcome {
		return r.two(0, 2, func(target, name string) outcome { return r.symlink(target, r.arg(1), name) })
	},
	unix.SYS_UNLINKAT: func(r *request) outcome {
		return r.named(1, func(name string) outcome { return r.unlink(r.arg(0), name, r.arg(2)) })
	},
	unix.SYS_TRUNCATE: func(r *request) outcome {
		return r.named(0, func(name string) outcome { return r.truncate(name, int64(r.n.args[1])) })
	},
	unix.SYS_FCHMOD: func(r *request) outcome {
		return r.heldBy(0, func(o object) outcome { return r.chmod(o, uint32(r.n.args[1])) })
	},
	unix.SYS_FCHMODAT: func(r *request) outcome {
		return r.object(0, 1, 0, func(o object) outcome { return r.chmod(o, uint32(r.n.args[2])) })
	},
	unix.SYS_FCHMODAT2: func(r *request) outcome {
		return r.object(0, 1, r.arg(3), func(o object) outcome { return r.chmod(o, uint32(r.n.args[2])) })
	},
	unix.SYS_FCHOWN: func(r *request) outcome {
		return r.heldBy(0, func(o object) outcome { return r.chown(o, r.arg(1), r.arg(2)) })
	},
	unix.SYS_FCHOWNAT: func(r *request) outcome {
		return r.object(0, 1, r.arg(4), func(o object) outcome { return r.chown(o, r.arg(2), r.arg(3)) })
	},
	unix.SYS_UTIMENSAT: utimensatCall,
	unix.SYS_FACCESSAT: func(r *request) outcome {
		return r.object(0, 1, 0, func(o object) outcome { return r.access(o, uint32(r.n.args[2])) })
	},
	unix.SYS_FACCESSAT2: func(r *request) outcome {
		return r.object(0, 1, r.arg(3)&^unix.AT_EACCESS, func(o object) outcome { return r.access(o, uint32(r.n.args[2])) })
	},
	unix.SYS_SETXATTR:     func(r *request) outcome { return r.object(-1, 0, 0, r.setAttribute) },
	unix.SYS_LSETXATTR:    func(r *request) outcome { return r.object(-1, 0, unix.AT_SYMLINK_NOFOLLOW, r.setAttribute) },
	unix.SYS_FSETXATTR:    func(r *request) outcome { return r.heldBy(0, r.setAttribute) },
	unix.SYS_REMOVEXATTR:  func(r *request) outcome { return r.object(-1, 0, 0, r.removeAttribute) },
	unix.SYS_LREMOVEXATTR: func(r *request) outcome { return r.object(-1, 0, unix.AT_SYMLINK_NOFOLLOW, r.removeAttribute) },
	unix.SYS_FREMOVEXATTR: func(r *request) outcome { return r.heldBy(0, r.removeAttribute) },
}

// named reads the path that the i-th argument points to. One that cannot be read is the kernel's to refuse.
func (r *request) named(i int, do func(name string) outcome) outcome {
	name, err := r.path(r.n.args[i])
	if err != nil || name == "" {
		return resumed
	}
	return do(name)
}

func (r *request) two(i, k int, do func(a, b string) outcome) outcome {
	return r.named(i, func(a string) outcome { return r.named(k, func(b string) outcome { return do(a, b) }) })
}

// object finds what a path names that is relative to the descriptor of the fd-th argument (-1: to the working folder).
func (r *request) object(fd, i, flags int, do func(object) outcome) outcome {
	dir := unix.AT_FDCWD
	if fd >= 0 {
		dir = r.arg(fd)
	}
	name, err := r.path(r.n.args[i])
	switch {
	case err != nil:
		return resumed
	case name == "" && flags == unix.AT_EMPTY_PATH:
		return r.heldBy(fd, do)
	case name == "" || flags&^(unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH) != 0:
		return resumed
	}
	o, ok := r.existing(dir, name, flags&unix.AT_SYMLINK_NOFOLLOW == 0)
	if !ok {
		return resumed
	}
	return do(o)
}

// heldBy finds what the descriptor of the i-th argument is of.
func (r *request) heldBy(i int, do func(object) outcome) outcome {
	if i < 0 || r.arg(i) < 0 {
		return resumed
	}
	o, ok := r.held(r.arg(i))
	if !ok {
		return resumed
	}
	return do(o)
}

// openat2 has its flags in struct open_how.
func openat2(r *request) outcome {
	const size = 24
	if r.n.args[3] != size {
		return resumed // a later kernel's
	}
	b, err := r.memory(r.n.args[2], size)
	if err != nil {
		return resumed
	}
	flags, mode, restrict := binary.NativeEndian.Uint64(b), binary.NativeEndian.Uint64(b[8:]), binary.NativeEndian.Uint64(b[16:])
	switch {
	case !opensToWrite(int(flags)) || flags>>31 != 0:
		return resumed
	case restrict != 0:
		// How the caller wants a path walked is not how we walk it: programs that ask for it can do without (ENOSYS is what older kernels
		// say, and what they fall back from).
		return outcome{errno: unix.ENOSYS}
	}
	return r.named(1, func(name string) outcome { return r.open(r.arg(0), name, int(flags), uint32(mode)) })
}

// utimensatCall takes a path or, with none, the descriptor alone.
func utimensatCall(r *request) outcome {
	var times []unix.Timespec
	if r.n.args[2] != 0 {
		b, err := r.memory(r.n.args[2], 32)
		if err != nil {
			return resumed
		}
		times = make([]unix.Timespec, 2)
		for i := range times {
			times[i].Sec = int64(binary.NativeEndian.Uint64(b[16*i:]))
			times[i].Nsec = int64(binary.NativeEndian.Uint64(b[16*i+8:]))
		}
	}
	do := func(o object) outcome { return r.setTimes(o, times) }
	if r.n.args[1] == 0 {
		return r.heldBy(0, do)
	}
	return r.object(0, 1, r.arg(3), do)
}

// Bounds of extended attributes, of linux/limits.h.
const (
	maxAttributeName = 256
	maxAttribute     = 64 << 10
)

func (r *request) setAttribute(o object) outcome {
	name, err := r.text(r.n.args[1], maxAttributeName)
	if err != nil || r.n.args[3] > maxAttribute {
		return resumed
	}
	var value []byte
	if r.n.args[3] > 0 {
		if value, err = r.memory(r.n.args[2], int(r.n.args[3])); err != nil {
			return resumed
		}
	}
	if name == "system.posix_acl_access" || name == "system.posix_acl_default" {
		if err := r.ownList(value); err != nil {
			return failed(err)
		}
	}
	return r.attribute(o, func(fd int) error { return unix.Fsetxattr(fd, name, value, r.arg(4)) })
}

func (r *request) removeAttribute(o object) outcome {
	name, err := r.text(r.n.args[1], maxAttributeName)
	if err != nil {
		return resumed
	}
	return r.attribute(o, func(fd int) error { return unix.Fremovexattr(fd, name) })
}

func (r *request) attribute(o object, do func(fd int) error) outcome {
	switch kind(o.Stat_t) {
	case unix.S_IFREG, unix.S_IFDIR:
	default:
		return resumed // of these no user may set any (xattr(7))
	}
	return r.adjust(o, func() error {
		fd, err := r.reopen(o, unix.O_RDONLY|unix.O_NONBLOCK)
		if err != nil {
			return err
		}
		r.close(fd)
		return do(fd)
	})
}
