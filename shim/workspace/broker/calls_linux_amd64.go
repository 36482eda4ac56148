package broker

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// The calls that only older architectures have.
var legacy = map[int32]func(*request) outcome{
	unix.SYS_OPEN: func(r *request) outcome {
		return r.named(0, func(name string) outcome { return r.open(unix.AT_FDCWD, name, r.arg(1), uint32(r.n.args[2])) })
	},
	unix.SYS_CREAT: func(r *request) outcome {
		return r.named(0, func(name string) outcome {
			return r.open(unix.AT_FDCWD, name, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC, uint32(r.n.args[1]))
		})
	},
	unix.SYS_MKDIR: func(r *request) outcome {
		return r.named(0, func(name string) outcome { return r.mkdir(unix.AT_FDCWD, name, uint32(r.n.args[1])) })
	},
	unix.SYS_MKNOD: func(r *request) outcome {
		return r.named(0, func(name string) outcome { return r.mknod(unix.AT_FDCWD, name, uint32(r.n.args[1])) })
	},
	unix.SYS_RENAME: func(r *request) outcome {
		return r.two(0, 1, func(from, to string) outcome { return r.rename(unix.AT_FDCWD, from, unix.AT_FDCWD, to, 0) })
	},
	unix.SYS_LINK: func(r *request) outcome {
		return r.two(0, 1, func(from, to string) outcome { return r.link(unix.AT_FDCWD, from, unix.AT_FDCWD, to, 0) })
	},
	unix.SYS_SYMLINK: func(r *request) outcome {
		return r.two(0, 1, func(target, name string) outcome { return r.symlink(target, unix.AT_FDCWD, name) })
	},
	unix.SYS_UNLINK: func(r *request) outcome {
		return r.named(0, func(name string) outcome { return r.unlink(unix.AT_FDCWD, name, 0) })
	},
	unix.SYS_RMDIR: func(r *request) outcome {
		return r.named(0, func(name string) outcome { return r.unlink(unix.AT_FDCWD, name, unix.AT_REMOVEDIR) })
	},
	unix.SYS_CHMOD: func(r *request) outcome {
		return r.object(-1, 0, 0, func(o object) outcome { return r.chmod(o, uint32(r.n.args[1])) })
	},
	unix.SYS_CHOWN: func(r *request) outcome {
		return r.object(-1, 0, 0, func(o object) outcome { return r.chown(o, r.arg(1), r.arg(2)) })
	},
	unix.SYS_LCHOWN: func(r *request) outcome {
		return r.object(-1, 0, unix.AT_SYMLINK_NOFOLLOW, func(o object) outcome { return r.chown(o, r.arg(1), r.arg(2)) })
	},
	unix.SYS_ACCESS: func(r *request) outcome {
		return r.object(-1, 0, 0, func(o object) outcome { return r.access(o, uint32(r.n.args[1])) })
	},
	unix.SYS_UTIME:     func(r *request) outcome { return r.oldTimes(-1, 0, 1, 8, 1e9) },
	unix.SYS_UTIMES:    func(r *request) outcome { return r.oldTimes(-1, 0, 1, 16, 1e3) },
	unix.SYS_FUTIMESAT: func(r *request) outcome { return r.oldTimes(0, 1, 2, 16, 1e3) },
}

// oldTimes reads two times of so many bytes each, the second half of which, if there is one, counts units of so many nanoseconds.
func (r *request) oldTimes(fd, path, arg, size int, unit int64) outcome {
	var times []unix.Timespec
	if r.n.args[arg] != 0 {
		b, err := r.memory(r.n.args[arg], 2*size)
		if err != nil {
			return resumed
		}
		times = make([]unix.Timespec, 2)
		for i := range times {
			times[i].Sec = int64(binary.NativeEndian.Uint64(b[size*i:]))
			if size > 8 {
				part := int64(binary.NativeEndian.Uint64(b[size*i+8:]))
				if part < 0 || part >= 1e9/unit {
					return resumed
				}
				times[i].Nsec = part * unit
			}
		}
	}
	return r.object(fd, path, 0, func(o object) outcome { return r.setTimes(o, times) })
}
