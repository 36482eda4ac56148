package broker

import (
	"errors"
	"path"
	"strconv"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/shim/workspace"
)

// maxLinks is how many links to nowhere are followed, as many as the kernel does (path_resolution(7)).
const maxLinks = 40

// allowedFlags are those of open(2) that mean something for a file that is written. openat2(2) refuses others, open(2) ignores them.
const allowedFlags = unix.O_ACCMODE | unix.O_CREAT | unix.O_EXCL | unix.O_TRUNC | unix.O_APPEND | unix.O_NONBLOCK | unix.O_DSYNC | unix.O_SYNC |
	unix.O_DIRECT | unix.O_LARGEFILE | unix.O_NOATIME | unix.O_NOCTTY

// Of a mode, what a file in a workspace may have: it is the host's file too, where set-user-ID would make it a way up for others.
const fileMode = 0o777

// opensToWrite reports whether an open(2) with these flags could change something.
func opensToWrite(flags int) bool {
	return flags&unix.O_ACCMODE != unix.O_RDONLY || flags&(unix.O_CREAT|unix.O_TRUNC) != 0
}

func (r *request) open(fd int, name string, flags int, mode uint32) outcome {
	if !opensToWrite(flags) || flags&unix.O_PATH != 0 {
		return resumed
	}
	abs, err := r.absolute(fd, name)
	if err != nil {
		return resumed
	}
	if flags&unix.O_TMPFILE == unix.O_TMPFILE {
		if o, err := r.find(abs, true); err != nil || o.tree == nil {
			return resumed
		}
		return outcome{errno: unix.EOPNOTSUPP} // programs then make a file with a name
	}
	exclusive := flags&(unix.O_CREAT|unix.O_EXCL) == unix.O_CREAT|unix.O_EXCL
	if own, ok := r.ownDescriptor(name); ok { // it may have no name any more
		n, err := strconv.Atoi(own)
		if err != nil {
			return resumed
		}
		o, ok := r.held(n)
		if !ok {
			return resumed
		}
		return r.openObject(o, flags, exclusive)
	}
	for range maxLinks {
		o, err := r.find(abs, flags&unix.O_NOFOLLOW == 0 && !exclusive)
		if err == nil {
			return r.openObject(o, flags, exclusive)
		}
		if !errors.Is(err, unix.ENOENT) || flags&unix.O_CREAT == 0 {
			return resumed
		}
		e, err := r.entry(abs)
		if err != nil || e.tree == nil || abs[len(abs)-1] == '/' {
			return resumed
		}
		target := make([]byte, maxPath)
		n, err := unix.Readlinkat(e.parent, e.base, target)
		switch {
		case errors.Is(err, unix.ENOENT):
			out := r.create(e, flags, mode)
			if out.errno == unix.EEXIST && !exclusive { // somebody was faster
				continue
			}
			return out
		case err != nil: // it is there now
			continue
		case exclusive:
			return outcome{errno: unix.EEXIST}
		case flags&unix.O_NOFOLLOW != 0:
			return outcome{errno: unix.ELOOP}
		case target[0] == '/':
			abs = string(target[:n])
		default:
			abs = e.at + "/" + e.dir + "/" + string(target[:n])
		}
	}
	return outcome{errno: unix.ELOOP}
}

// openObject opens what exists.
func (r *request) openObject(o object, flags int, exclusive bool) outcome {
	switch {
	case o.tree == nil:
		return resumed
	case exclusive:
		return outcome{errno: unix.EEXIST}
	case kind(o.Stat_t) != unix.S_IFREG: // a folder or a link is an error; to a pipe or a socket a read-only mount is no obstacle
		return resumed
	case flags&unix.O_DIRECTORY != 0, flags&(unix.O_ACCMODE|unix.O_TRUNC) == unix.O_RDONLY:
		return resumed
	}
	release, ok := r.hold(false)
	defer release()
	if !ok {
		return stale
	}
	if out, refused := r.refuseObject(o); refused {
		return out
	}
	f, err := r.reopen(o, flags&allowedFlags&^(unix.O_CREAT|unix.O_EXCL))
	if err != nil {
		return failed(err)
	}
	r.report.changed(o.name)
	return outcome{file: f, cloexec: flags&unix.O_CLOEXEC != 0}
}

// reopen opens an object itself, whatever has its name meanwhile.
func (r *request) reopen(o object, flags int) (int, error) {
	return unix.Openat(r.proc, "self/fd/"+strconv.Itoa(o.fd), flags|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
}

// refuseObject judges a change of what exists.
func (r *request) refuseObject(o object) (outcome, bool) {
	if v := o.verdict(o.name); v.Kind != workspace.Free {
		return r.refuse(o.tree, o.name, v), true
	}
	if kind(o.Stat_t) == unix.S_IFREG && o.Nlink > 1 {
		var v workspace.Verdict
		var ok bool
		if err := r.asOwn(func() error { v, ok = r.aliases.find(o); return nil }); err != nil {
			return failed(err), true
		}
		if ok {
			return r.refuse(o.tree, o.name, v), true
		}
	}
	return outcome{}, false
}

// refuse answers as the kernel does where a folder is mounted read-only.
func (r *request) refuse(t *tree, name string, v workspace.Verdict) outcome {
	r.report.refused(path.Join(t.at, name), v)
	return outcome{errno: unix.EROFS}
}

// create makes a regular file that is not there.
func (r *request) create(e entry, flags int, mode uint32) outcome {
	return r.make(e, func(c credentials) outcome {
		f, err := unix.Openat2(e.parent, e.base, &unix.OpenHow{
			Flags: uint64(flags&allowedFlags | unix.O_CREAT | unix.O_EXCL | unix.O_CLOEXEC), Mode: uint64(mode & fileMode &^ c.umask), Resolve: resolve,
		})
		if err != nil {
			return failed(err)
		}
		if mode&0o111&^c.umask != 0 {
			r.report.executable(path.Join(e.at, e.name()))
		}
		return outcome{file: f, cloexec: flags&unix.O_CLOEXEC != 0}
	}, false)
}

// make has do put something new at an entry, as the caller. folder says that it is an empty folder.
func (r *request) make(e entry, do func(credentials) outcome, folder bool) outcome {
	release, ok := r.hold(workspace.MakesGit(e.base))
	defer release()
	if !ok {
		return stale
	}
	if workspace.MakesGit(e.base) {
		if v, err := r.becomesGit(e); err != nil {
			return failed(err)
		} else if v.Kind != workspace.Free {
			return r.refuse(e.tree, e.name(), v)
		}
	}
	if v := e.verdict(e.name()); v.Kind != workspace.Free && !(v.Kind == workspace.Folder && folder) {
		if _, err := e.stat(); err == nil {
			return outcome{errno: unix.EEXIST} // as it would be anyway
		}
		return r.refuse(e.tree, e.name(), v)
	}
	if r.oneID { // else it is known
		var err error
		if r.who, err = readCredentials(r.dir, r.status); err != nil {
			return failed(err)
		}
	}
	out := do(r.who)
	if out.errno == 0 && !out.again {
		r.report.changed(e.name())
	}
	return out
}

func (r *request) mkdir(fd int, name string, mode uint32) outcome {
	e, ok := r.target(fd, name)
	if !ok {
		return resumed
	}
	return r.make(e, func(c credentials) outcome { return done(unix.Mkdirat(e.parent, e.base, mode&0o1777&^c.umask)) }, true)
}

func (r *request) mknod(fd int, name string, mode uint32) outcome {
	e, ok := r.target(fd, name)
	if !ok {
		return resumed
	}
	switch mode & unix.S_IFMT {
	case 0, unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK:
	default:
		return outcome{errno: unix.EPERM} // a device
	}
	return r.make(e, func(c credentials) outcome {
		return done(unix.Mknodat(e.parent, e.base, mode&unix.S_IFMT|mode&fileMode&^c.umask, 0))
	}, false)
}

func (r *request) symlink(target string, fd int, name string) outcome {
	e, ok := r.target(fd, name)
	if !ok || name[len(name)-1] == '/' {
		return resumed
	}
	return r.make(e, func(credentials) outcome { return done(unix.Symlinkat(target, e.parent, e.base)) }, false)
}

// target is the entry that a path names, if it lies in a workspace.
func (r *request) target(fd int, name string) (entry, bool) {
	abs, err := r.absolute(fd, name)
	if err != nil {
		return entry{}, false
	}
	e, err := r.entry(abs)
	return e, err == nil && e.tree != nil
}

func (r *request) link(oldFD int, oldName string, newFD int, newName string, flags int) outcome {
	if flags&^unix.AT_SYMLINK_FOLLOW != 0 {
		return resumed // by a descriptor alone takes a right that no agent has
	}
	abs, err := r.absolute(oldFD, oldName)
	if err != nil {
		return resumed
	}
	o, err := r.find(abs, flags&unix.AT_SYMLINK_FOLLOW != 0)
	if err != nil || o.tree == nil || kind(o.Stat_t) == unix.S_IFDIR {
		return resumed
	}
	e, ok := r.target(newFD, newName)
	if !ok {
		return resumed
	}
	from, err := r.home(o)
	if err != nil {
		return failed(err)
	}
	return r.make(e, func(credentials) outcome {
		if out, refused := r.refuseObject(o); refused { // or it could be written by its new name
			return out
		}
		if st, err := from.stat(); err != nil || st.Dev != o.Dev || st.Ino != o.Ino { // another file has its name now
			return stale
		}
		return done(unix.Linkat(from.parent, from.base, e.parent, e.base, 0))
	}, false)
}

func (r *request) unlink(fd int, name string, flags int) outcome {
	folder := flags&unix.AT_REMOVEDIR != 0
	if flags&^unix.AT_REMOVEDIR != 0 {
		return resumed
	}
	e, ok := r.target(fd, name)
	if !ok || !folder && name[len(name)-1] == '/' {
		return resumed
	}
	release, ok := r.hold(workspace.MakesGit(e.base))
	defer release()
	if !ok {
		return stale
	}
	st, err := e.stat()
	if err != nil {
		return failed(err)
	}
	v, happened := e.verdict(e.name()), func() {}
	switch {
	case v.Kind == workspace.Free, v.Kind == workspace.Folder && folder:
	case v.Kind == workspace.GitConfig && !folder && kind(st) == unix.S_IFREG:
		if happened, err = r.configs.judge(e, nil); err != nil {
			v.Reason = err.Error()
			return r.refuse(e.tree, e.name(), v)
		}
	default:
		return r.refuse(e.tree, e.name(), v)
	}
	var also []func()
	if v, err := r.ceasesGit(e, &also); err != nil {
		return failed(err)
	} else if v.Kind != workspace.Free {
		return r.refuse(e.tree, e.name(), v)
	}
	if err := unix.Unlinkat(e.parent, e.base, flags); err != nil {
		return failed(err)
	}
	happened()
	for _, f := range also {
		f()
	}
	r.report.removed(e.name())
	return outcome{}
}

// hold takes the names, alone or with others, and reports whether they lead where they did when the call's paths were looked up.
func (r *request) hold(alone bool) (release func(), ok bool) {
	if alone {
		r.names.Lock()
		release = r.names.Unlock
	} else {
		r.names.RLock()
		release = r.names.RUnlock
	}
	return release, r.moves.Load() == r.began
}

func (r *request) truncate(name string, length int64) outcome {
	o, ok := r.existing(unix.AT_FDCWD, name, true)
	if !ok || kind(o.Stat_t) != unix.S_IFREG {
		return resumed
	}
	return r.change(o, func() error {
		f, err := r.reopen(o, unix.O_WRONLY)
		if err != nil {
			return err
		}
		r.close(f)
		return unix.Ftruncate(f, length)
	})
}

// existing is the object that a path names, if it lies in a workspace.
func (r *request) existing(fd int, name string, follow bool) (object, bool) {
	abs, err := r.absolute(fd, name)
	if err != nil {
		return object{}, false
	}
	o, err := r.find(abs, follow)
	return o, err == nil && o.tree != nil
}

// held is the object behind a descriptor of the caller's.
func (r *request) held(fd int) (object, bool) {
	o, err := r.theirDescriptor(fd)
	if err != nil {
		return object{}, false
	}
	// By its path, since the descriptor is of the agent's mount, which is read-only.
	abs, err := r.readlink("fd/" + strconv.Itoa(fd))
	if err != nil {
		return object{}, false
	}
	found, err := r.find(abs, false)
	if err != nil || found.tree == nil {
		return object{}, false
	}
	var st unix.Stat_t
	if err := unix.Fstat(o, &st); err != nil || st.Dev != found.Dev || st.Ino != found.Ino {
		return object{}, false
	}
	return found, true
}

// change has do change an object's attributes or content, as the caller.
func (r *request) change(o object, do func() error) outcome {
	release, ok := r.hold(false)
	defer release()
	if !ok {
		return stale
	}
	if out, refused := r.refuseObject(o); refused {
		return out
	}
	if err := do(); err != nil {
		return failed(err)
	}
	r.report.changed(o.name)
	return outcome{}
}

func (r *request) chmod(o object, mode uint32) outcome {
	allowed := uint32(fileMode)
	switch kind(o.Stat_t) {
	case unix.S_IFLNK:
		return resumed // it has none of its own
	case unix.S_IFDIR:
		allowed = 0o3777
	}
	do := func() error {
		err := unix.Fchmodat(r.proc, "self/fd/"+strconv.Itoa(o.fd), mode&allowed, 0)
		if err == nil && kind(o.Stat_t) == unix.S_IFREG && mode&0o111 != 0 && o.Mode&0o111 == 0 {
			r.report.executable(path.Join(o.at, o.name))
		}
		return err
	}
	if kind(o.Stat_t) == unix.S_IFREG && (mode^o.Mode)&fileMode&^0o111 == 0 {
		return r.mark(o, do)
	}
	return r.change(o, do)
}

// mark is change where it is about whether a file is executable. A git configuration may be that too: by trying so git finds out whether the file
// system knows such files, and tracks modes only then.
func (r *request) mark(o object, do func() error) outcome {
	release, ok := r.hold(false)
	if !ok {
		release()
		return stale
	}
	if o.verdict(o.name).Kind != workspace.GitConfig {
		release()
		return r.change(o, do)
	}
	defer release()
	return done(do())
}

func (r *request) chown(o object, uid, gid int) outcome {
	return r.change(o, func() error { return unix.Fchownat(o.fd, "", uid, gid, unix.AT_EMPTY_PATH) })
}

// setTimes takes what utimensat(2) does; nil means now.
func (r *request) setTimes(o object, times []unix.Timespec) outcome {
	e, err := r.home(o)
	if err != nil && o.name != "." {
		return failed(err)
	}
	return r.change(o, func() error {
		if o.name == "." {
			return unix.UtimesNanoAt(o.tree.fd, ".", times, 0)
		}
		return unix.UtimesNanoAt(e.parent, e.base, times, unix.AT_SYMLINK_NOFOLLOW)
	})
}

func (r *request) access(o object, mode uint32) outcome {
	if o.verdict(o.name).Kind != workspace.Free {
		return resumed // read-only, as the kernel says
	}
	return done(unix.Faccessat2(o.fd, "", mode, unix.AT_EACCESS|unix.AT_EMPTY_PATH))
}
