package broker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A request is one system call that waits for its answer. It is used by one goroutine, on one thread.
type request struct {
	*worker
	n      notification
	caller caller
	who    credentials
	// began is what names.moves was before anything was looked up.
	began uint64
}

// An outcome is the answer.
type outcome struct {
	errno   unix.Errno // 0: done
	file    int        // a descriptor for the caller, owned by the outcome; 0: the answer is value
	value   int64
	cloexec bool
	resume  bool // the kernel shall do it
	again   bool // names led elsewhere meanwhile: from the start
	leased  bool // with again: somebody has a lease on the file
}

// resumed leaves the call to the kernel, for which the workspace is read-only.
var resumed = outcome{resume: true}

// stale is the outcome of a call whose paths were looked up too early.
var stale = outcome{again: true}

func failed(err error) outcome {
	if errors.Is(err, unix.EWOULDBLOCK) {
		return outcome{again: true, leased: true} // of ours, on a draft, or of the agent's
	}
	if errno, ok := errors.AsType[unix.Errno](err); ok && errno != 0 {
		return outcome{errno: errno}
	}
	return outcome{errno: unix.EIO}
}

// done is the outcome of an operation.
func done(err error) outcome {
	if err != nil {
		return failed(err)
	}
	return outcome{}
}

// maxPath is PATH_MAX of linux/limits.h, with the zero byte.
const maxPath = 4096

// meet finds the caller, makes this thread it, and returns its root folder; "" if that is none that has a path.
func (r *request) meet() (root string, err error) {
	for {
		c, now, err := r.recognize(&r.n)
		if err != nil {
			return "", err
		}
		r.caller = *c
		if err = r.asCaller(); err == nil {
			if root, err = r.readlink("root"); err == nil || now {
				return root, nil
			}
		} else if now {
			return "", err
		}
		c.forget() // it may be gone, and another one have its number
	}
}

// text reads a string of the caller's memory.
func (r *request) text(addr uint64, limit int) (string, error) {
	b := r.buffer[:min(limit, len(r.buffer))]
	for have := 0; have < len(b); {
		next := addr + uint64(have)
		n := min(len(b)-have, int(4096-next%4096)) // what comes next may not be mapped
		if err := r.copy(b[have:have+n], next); err != nil {
			return "", err
		}
		if end := bytes.IndexByte(b[have:have+n], 0); end >= 0 {
			end += have
			text := string(b[:end+1])
			r.seen = append(r.seen, sight{addr: addr, text: text})
			return text[:end], nil
		}
		have += n
	}
	return "", unix.ENAMETOOLONG
}

func (r *request) path(addr uint64) (string, error) { return r.text(addr, maxPath) }

// memory copies n bytes of the caller's memory.
func (r *request) memory(addr uint64, n int) ([]byte, error) {
	b := make([]byte, n)
	if err := r.copy(b, addr); err != nil {
		return nil, err
	}
	r.seen = append(r.seen, sight{addr: addr, text: string(b)})
	return b, nil
}

func (r *request) copy(b []byte, addr uint64) error {
	got, err := unix.ProcessVMReadv(int(r.n.pid), []unix.Iovec{{Base: &b[0], Len: uint64(len(b))}}, []unix.RemoteIovec{{Base: uintptr(addr), Len: len(b)}}, 0)
	if err != nil {
		return err
	}
	if got != len(b) {
		return unix.EFAULT
	}
	if !r.listener.valid(r.n.id) { // else it is the caller's memory
		return unix.ESRCH
	}
	return nil
}

// arg is an argument of type int.
func (r *request) arg(i int) int { return int(int32(r.n.args[i])) }

// base is the folder that a path of the caller's is relative to, as a path of its own.
func (r *request) base(fd int) (string, error) {
	if fd == unix.AT_FDCWD {
		return r.readlink("cwd")
	}
	return r.readlink("fd/" + strconv.Itoa(fd))
}

// readlink reads one of the caller's links in /proc.
func (r *request) readlink(name string) (string, error) {
	b, err := r.linkText(name)
	if err != nil {
		return "", err
	}
	text := string(b)
	r.seen = append(r.seen, sight{link: name, text: text})
	return text, nil
}

// linkText uses the worker's buffer.
func (r *request) linkText(name string) ([]byte, error) {
	b := r.buffer[:maxPath]
	n, err := unix.Readlinkat(r.caller.dir, name, b)
	if errors.Is(err, unix.EACCES) {
		err = r.asOwn(func() (err error) { n, err = unix.Readlinkat(r.caller.dir, name, b); return err })
	}
	if err != nil {
		return nil, err
	}
	if n == len(b) || n == 0 || b[0] != '/' { // a pipe, a socket, something that is out of reach
		return nil, unix.ENOENT
	}
	return b[:n], nil
}

// openLink opens (O_PATH) what one of the caller's links in /proc leads to; it is closed with the request.
func (r *request) openLink(name string) (fd int, err error) {
	r.byFile = true
	const flags = unix.O_PATH | unix.O_CLOEXEC
	if fd, err = unix.Openat(r.caller.dir, name, flags, 0); errors.Is(err, unix.EACCES) {
		err = r.asOwn(func() (err error) { fd, err = unix.Openat(r.caller.dir, name, flags, 0); return err })
	}
	if err == nil {
		r.close(fd)
	}
	return fd, err
}

// theirDescriptor opens what a descriptor of the caller's is of.
func (r *request) theirDescriptor(fd int) (int, error) {
	if fd < 0 {
		return -1, unix.EBADF
	}
	return r.openLink("fd/" + strconv.Itoa(fd))
}

// absolute makes a path of the caller's one that means the same here.
func (r *request) absolute(fd int, path string) (string, error) {
	if path == "" {
		return "", unix.ENOENT
	}
	if path[0] == '/' {
		// What a process says of itself by these names it would not say of us.
		if own, ok := r.ownDescriptor(path); ok {
			return r.readlink("fd/" + own)
		}
		return path, nil
	}
	dir, err := r.base(fd)
	if err != nil {
		return "", err
	}
	return dir + "/" + path, nil
}

// ownDescriptor reports which descriptor of the caller's a path names.
func (r *request) ownDescriptor(path string) (string, bool) {
	switch path {
	case "/dev/stdin":
		return "0", true
	case "/dev/stdout":
		return "1", true
	case "/dev/stderr":
		return "2", true
	}
	for _, dir := range []string{"/dev/fd/", "/proc/self/fd/", "/proc/thread-self/fd/"} {
		if fd, ok := strings.CutPrefix(path, dir); ok {
			n, err := strconv.ParseUint(fd, 10, 31)
			return strconv.FormatUint(n, 10), err == nil
		}
	}
	return "", false
}

// credentials are what the kernel looks at when the caller makes a file, and what it makes of the file's mode.
type credentials struct {
	uid, gid int
	groups   string // as in proc_pid_status(5)
	rights   uint64 // effective capabilities
	umask    uint32
}

// unknown are nobody's.
var unknown = credentials{uid: -1, gid: -1, groups: "?"}

// maxStatus is more than there is in /proc/PID/status; who is in more groups writes nothing.
const maxStatus = 16 << 10

func parseCredentials(status []byte) (c credentials, err error) {
	seen := 0
	for line := range bytes.Lines(status) {
		key, value, _ := bytes.Cut(line, []byte(":"))
		var text string
		switch string(key) {
		case "Umask", "Uid", "Gid", "Groups", "CapEff":
			text = string(bytes.TrimSpace(value))
		default:
			continue
		}
		var number uint64
		switch string(key) {
		case "Umask":
			number, err = strconv.ParseUint(text, 8, 32)
			c.umask = uint32(number)
		case "Uid", "Gid":
			fields := strings.Fields(text) // real, effective, saved, of the file system
			if len(fields) != 4 {
				return c, unix.EPERM
			}
			number, err = strconv.ParseUint(fields[3], 10, 32)
			if string(key) == "Uid" {
				c.uid = int(number)
			} else {
				c.gid = int(number)
			}
		case "Groups":
			c.groups = text
		case "CapEff":
			c.rights, err = strconv.ParseUint(text, 16, 64)
		}
		if err != nil {
			return c, unix.EPERM
		}
		if seen++; seen == 5 {
			return c, nil
		}
	}
	return c, unix.EPERM
}

// maxMap is more than 340 lines of a map have, the most there are (user_namespaces(7)).
const maxMap = 16 << 10

// ownID is what an id of the caller's user namespace is in this process's. The kernel shows the maps of a process like that to whoever reads
// them. -1 is no id.
func (r *request) ownID(file string, id int) (int, error) {
	if id == -1 {
		return id, nil
	}
	fd, err := unix.Openat(r.caller.dir, file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	b := make([]byte, maxMap)
	n, err := unix.Read(fd, b)
	if err != nil {
		return 0, err
	}
	return mapped(string(b[:n]), uint32(id))
}

// ownList makes the ids of an access control list, which the caller has from its user namespace, those of this process's (acl(5);
// linux/posix_acl_xattr.h). What is no such list is the kernel's to refuse.
func (r *request) ownList(list []byte) error {
	const (
		head, size  = 4, 8 // of the list and of an entry: tag, permissions, id
		user, group = 0x02, 0x08
	)
	for at := head; at+size <= len(list); at += size {
		entry := list[at : at+size]
		file := "uid_map"
		switch binary.LittleEndian.Uint16(entry) {
		case user:
		case group:
			file = "gid_map"
		default:
			continue
		}
		id, err := r.ownID(file, int(int32(binary.LittleEndian.Uint32(entry[4:]))))
		if err != nil {
			return err
		}
		binary.LittleEndian.PutUint32(entry[4:], uint32(id))
	}
	return nil
}

// mapped looks an id up in a map. One that is not in there is none, as to chown(2).
func mapped(text string, id uint32) (int, error) {
	for line := range strings.Lines(text) {
		var inside, outside, count uint32
		fields := strings.Fields(line)
		for i, to := range []*uint32{&inside, &outside, &count} {
			if i >= len(fields) {
				return 0, unix.EPERM
			}
			number, err := strconv.ParseUint(fields[i], 10, 32)
			if err != nil {
				return 0, unix.EPERM
			}
			*to = uint32(number)
		}
		if id >= inside && id-inside < count {
			return int(outside + (id - inside)), nil
		}
	}
	return 0, unix.EINVAL
}

// asCaller makes this thread, for the file system, the caller, whose paths it is to look up and whose files it is to make.
func (r *request) asCaller() (err error) {
	if r.oneID { // there is nobody else that it could be
		return nil
	}
	if r.who, err = r.caller.credentials(r.buffer); err != nil {
		return err
	}
	return r.impersonate(r.who)
}

// asOwn has do look, as the process itself, at what of a caller only its own user and root may see.
func (r *request) asOwn(do func() error) error {
	if r.oneID {
		return do()
	}
	if err := r.impersonate(r.own); err != nil {
		return err
	}
	return errors.Join(do(), r.impersonate(r.who))
}

// Rights of the file system (capabilities(7)): of these the thread has those that the caller has. The others of [keep] it has always.
const fileRights = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_FOWNER | 1<<unix.CAP_FSETID

// impersonate makes this thread somebody.
func (w *worker) impersonate(c credentials) error {
	if c.groups != w.as.groups {
		var list []uint32
		for f := range strings.FieldsSeq(c.groups) {
			gid, err := strconv.ParseUint(f, 10, 32)
			if err != nil {
				return unix.EPERM
			}
			list = append(list, uint32(gid))
		}
		var first unsafe.Pointer
		if len(list) > 0 {
			first = unsafe.Pointer(&list[0])
		}
		// The kernel's call, which is about this thread alone.
		if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(list)), uintptr(first), 0); errno != 0 {
			return errno
		}
		w.as.groups = c.groups
	}
	if c.gid != w.as.gid {
		if err := set(unix.SYS_SETFSGID, c.gid); err != nil {
			return err
		}
		w.as.gid = c.gid
	}
	// In another user namespace a caller's capabilities are about its own ids alone: only the host's root has them here.
	rights := w.own.rights &^ fileRights
	if c.uid == 0 {
		rights |= w.own.rights & fileRights & c.rights
	}
	if c.uid == w.as.uid && rights == w.as.rights {
		return nil
	}
	w.as.uid = unknown.uid // until both are set: the kernel changes rights with the id (capabilities(7))
	if err := set(unix.SYS_SETFSUID, c.uid); err != nil {
		return err
	}
	data := [2]unix.CapUserData{
		{Effective: uint32(rights), Permitted: uint32(w.own.rights)}, {Effective: uint32(rights >> 32), Permitted: uint32(w.own.rights >> 32)},
	}
	if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]); err != nil {
		return err
	}
	w.as.uid, w.as.rights = c.uid, rights
	return nil
}

// set sets an id of the file system, and looks whether it is set: the calls tell of no error (setfsuid(2)).
func set(call uintptr, id int) error {
	_, _, _ = unix.RawSyscall(call, uintptr(id), 0, 0)
	now, _, _ := unix.RawSyscall(call, ^uintptr(0), 0, 0)
	if int(int32(now)) != int(int32(id)) {
		return unix.EPERM
	}
	return nil
}
