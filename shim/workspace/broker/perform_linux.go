package broker

import (
	"errors"
	"path"
	"slices"
	"strconv"
	"strings"

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
		target, err := readlink(e.parent, e.base)
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
			abs = target
		default:
			abs = e.at + "/" + e.dir + "/" + target
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
	v, out, refused := r.judgeObject(o, textKinds...)
	if refused {
		return out
	}
	if v.Kind.IsText() {
		return r.edit(o, flags)
	}
	f, err := r.reopen(o, flags&allowedFlags&^(unix.O_CREAT|unix.O_EXCL))
	if err != nil {
		return failed(err)
	}
	r.report.changed(o.name)
	return outcome{file: f, cloexec: flags&unix.O_CLOEXEC != 0}
}

// edit opens a draft of a text. The names are held.
func (r *request) edit(o object, flags int) outcome {
	place, err := r.reopen(o, unix.O_RDWR|unix.O_NONBLOCK)
	if err != nil {
		return failed(err)
	}
	r.close(place)
	e, err := r.home(o)
	if err != nil {
		return failed(err)
	}
	var text []byte
	if flags&unix.O_TRUNC == 0 {
		if text, err = read(e); err != nil {
			return failed(err)
		}
	}
	return r.draft(e, place, o.Mode, text, flags, false)
}

// reopen opens an object itself, whatever has its name meanwhile.
func (r *request) reopen(o object, flags int) (int, error) { return r.openAgain(o.fd, flags) }

// openAgain opens what a descriptor of our own is of, at once or not (unix.EWOULDBLOCK): an agent can take a lease on its file, and have all wait
// for it that wait for us.
func (r *request) openAgain(fd, flags int) (int, error) {
	fd, err := unix.Openat(r.proc, self(fd), flags|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil || flags&unix.O_NONBLOCK != 0 {
		return fd, err
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags&(unix.O_APPEND|unix.O_DIRECT|unix.O_NOATIME)); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// textKinds are those of which a text decides about itself.
var textKinds = []workspace.Kind{workspace.GitConfig, workspace.GitLink}

// judgeObject judges a change of what exists, which may be free or of one of these kinds.
func (r *request) judgeObject(o object, also ...workspace.Kind) (v workspace.Verdict, out outcome, refused bool) {
	v = o.verdict(o.name).For(kind(o.Stat_t) == unix.S_IFDIR)
	if v.Kind != workspace.Free && !slices.Contains(also, v.Kind) {
		return v, r.refuse(o.tree, o.name, v), true
	}
	if kind(o.Stat_t) == unix.S_IFREG && (o.Nlink > 1 || strings.HasSuffix(o.name, gone)) {
		var alias workspace.Verdict
		var ok bool
		if err := r.asOwn(func() error { alias, ok = r.aliases.find(o); return nil }); err != nil {
			return v, failed(err), true
		}
		if ok {
			return alias, r.refuse(o.tree, o.name, alias), true
		}
	}
	return v, outcome{}, false
}

// refuse answers as the kernel does where a folder is mounted read-only.
func (b *broker) refuse(t *tree, name string, v workspace.Verdict) outcome {
	b.report.refused(path.Join(t.at, name), v)
	return outcome{errno: unix.EROFS}
}

// refuseText is refuse for what the text that is, or would be, at an entry says. It may be that it could not be read yet.
func (b *broker) refuseText(e entry, v workspace.Verdict, err error) outcome {
	if errors.Is(err, unix.EWOULDBLOCK) {
		return failed(err)
	}
	v.Reason = err.Error()
	return b.refuse(e.tree, e.name(), v)
}

// create makes a regular file that is not there.
func (r *request) create(e entry, flags int, mode uint32) outcome {
	return r.make(e, making{text: true}, func(v workspace.Verdict, c credentials) outcome {
		mode &= fileMode &^ c.umask
		if v.Kind.IsText() {
			return r.createText(e, v, flags, mode)
		}
		f, err := unix.Openat2(e.parent, e.base, &unix.OpenHow{
			Flags: uint64(flags&allowedFlags | unix.O_CREAT | unix.O_EXCL | unix.O_CLOEXEC), Mode: uint64(mode), Resolve: resolve,
		})
		if err != nil {
			return failed(err)
		}
		if mode&0o111 != 0 {
			r.report.executable(path.Join(e.at, e.name()))
		}
		return outcome{file: f, cloexec: flags&unix.O_CLOEXEC != 0}
	})
}

// createText makes an empty text and opens a draft of it.
func (r *request) createText(e entry, v workspace.Verdict, flags int, mode uint32) outcome {
	happened, err := r.texts.judge(e, []byte{})
	if err != nil {
		return r.refuseText(e, v, err)
	}
	f, err := unix.Openat2(e.parent, e.base, &unix.OpenHow{Flags: unix.O_RDWR | unix.O_CREAT | unix.O_EXCL | unix.O_CLOEXEC, Mode: 0o600, Resolve: resolve})
	if err != nil {
		return failed(err)
	}
	r.close(f)
	happened()
	out := r.draft(e, f, mode, nil, flags, true)
	if out.errno != 0 {
		_ = unix.Unlinkat(e.parent, e.base, 0)
	}
	return out
}

// making says what is made. The zero value is such that only where nothing is protected it may be.
type making struct {
	text   bool   // a regular file whose maker sees to what it says
	folder bool   // an empty one
	link   string // where a symbolic link leads
}

// make has do put something new at an entry, as the caller.
func (r *request) make(e entry, what making, do func(workspace.Verdict, credentials) outcome) outcome {
	// No link comes to have a name while another call gives what has that name one more.
	release, ok := r.hold(workspace.MakesGit(e.base) || what.link != "")
	defer release()
	if !ok {
		return stale
	}
	if out, refused := r.refuseBecoming(e); refused {
		return out
	}
	var v workspace.Verdict
	if what.link != "" {
		v = e.judge.JudgeSymlink(e.name(), what.link, e.isGit)
	} else {
		v = e.verdict(e.name()).For(what.folder)
	}
	if v.Kind != workspace.Free && !(v.Kind == workspace.Folder && what.folder) && !(v.Kind.IsText() && what.text) {
		if _, err := e.stat(); err == nil {
			return outcome{errno: unix.EEXIST} // as it would be anyway
		}
		return r.refuse(e.tree, e.name(), v)
	}
	if r.oneID { // else it is known
		var err error
		if r.who, err = r.caller.credentials(r.buffer); err != nil {
			return failed(err)
		}
	}
	out := do(v, r.who)
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
	return r.make(e, making{folder: true}, func(_ workspace.Verdict, c credentials) outcome {
		return done(unix.Mkdirat(e.parent, e.base, mode&0o1777&^c.umask))
	})
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
	return r.make(e, making{}, func(_ workspace.Verdict, c credentials) outcome {
		return done(unix.Mknodat(e.parent, e.base, mode&unix.S_IFMT|mode&fileMode&^c.umask, 0))
	})
}

func (r *request) symlink(target string, fd int, name string) outcome {
	e, ok := r.target(fd, name)
	if !ok || name[len(name)-1] == '/' {
		return resumed
	}
	return r.make(e, making{link: target}, func(workspace.Verdict, credentials) outcome { return done(unix.Symlinkat(target, e.parent, e.base)) })
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
	var what making
	if kind(o.Stat_t) == unix.S_IFLNK {
		if what.link, err = readlink(from.parent, from.base); err != nil {
			return failed(err)
		}
	}
	return r.make(e, what, func(workspace.Verdict, credentials) outcome {
		if _, out, refused := r.judgeObject(o); refused { // or it could be written by its new name
			return out
		}
		if st, err := from.stat(); err != nil || inodeOf(st) != inodeOf(o.Stat_t) { // another file has its name now
			return stale
		}
		return done(unix.Linkat(from.parent, from.base, e.parent, e.base, 0))
	})
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
	v := e.verdict(e.name()).For(folder)
	var happened []func()
	switch {
	case v.Kind == workspace.Free, v.Kind == workspace.Folder && folder, v.Kind == workspace.GitLink && kind(st) == unix.S_IFLNK:
	case v.Kind.IsText() && !folder && kind(st) == unix.S_IFREG:
		f, err := r.texts.judge(e, nil)
		if err != nil {
			return r.refuseText(e, v, err)
		}
		happened = append(happened, f)
	default:
		return r.refuse(e.tree, e.name(), v)
	}
	if out, refused := r.refuseCeasing(e, &happened); refused {
		return out
	}
	if err := unix.Unlinkat(e.parent, e.base, flags); err != nil {
		return failed(err)
	}
	for _, f := range happened {
		f()
	}
	r.report.removed(e.name())
	return outcome{}
}

// hold takes the names, alone or with others, and reports whether they lead where they did when the call's paths were looked up.
func (r *request) hold(alone bool) (release func(), ok bool) {
	release, err := r.names.hold(alone)
	return release, err == nil && r.names.moves() == r.began
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
	if err := unix.Fstat(o, &st); err != nil || inodeOf(st) != inodeOf(found.Stat_t) {
		return object{}, false
	}
	return found, true
}

// change has do change what a file holds, as the caller.
func (r *request) change(o object, do func() error) outcome { return r.changeOr(o, do) }

// adjust has do change mode, owner or extended attributes, as the caller. Those of a text say nothing to git, nor do those of a folder that it does not use.
func (r *request) adjust(o object, do func() error) outcome {
	also := textKinds
	if kind(o.Stat_t) == unix.S_IFDIR && o.verdict(o.name).Kind == workspace.Folder {
		if e, err := r.home(o); err == nil && e.unused() == nil {
			also = append(slices.Clone(also), workspace.Folder)
		}
	}
	return r.changeOr(o, do, also...)
}

// changeOr is for what is free or of one of these kinds.
func (r *request) changeOr(o object, do func() error, also ...workspace.Kind) outcome {
	release, ok := r.hold(false)
	defer release()
	if !ok {
		return stale
	}
	if _, out, refused := r.judgeObject(o, also...); refused {
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
	return r.adjust(o, func() error {
		err := unix.Fchmodat(r.proc, self(o.fd), mode&allowed, 0)
		if err == nil && kind(o.Stat_t) == unix.S_IFREG && mode&0o111 != 0 && o.Mode&0o111 == 0 {
			r.report.executable(path.Join(o.at, o.name))
		}
		return err
	})
}

func (r *request) chown(o object, uid, gid int) outcome {
	uid, err := r.ownID("uid_map", uid)
	if err != nil {
		return failed(err)
	}
	if gid, err = r.ownID("gid_map", gid); err != nil {
		return failed(err)
	}
	return r.adjust(o, func() error { return unix.Fchownat(o.fd, "", uid, gid, unix.AT_EMPTY_PATH) })
}

// setTimes takes what utimensat(2) does; nil means now.
func (r *request) setTimes(o object, times []unix.Timespec) outcome {
	e, err := r.home(o)
	if err != nil && o.name != "." {
		return failed(err)
	}
	return r.changeOr(o, func() error {
		if o.name == "." {
			return unix.UtimesNanoAt(o.tree.fd, ".", times, 0)
		}
		return unix.UtimesNanoAt(e.parent, e.base, times, unix.AT_SYMLINK_NOFOLLOW)
	}, append(slices.Clone(textKinds), workspace.Folder)...)
}

func (r *request) access(o object, mode uint32) outcome {
	if v := o.verdict(o.name).For(kind(o.Stat_t) == unix.S_IFDIR); v.Kind != workspace.Free && !v.Kind.IsText() {
		return resumed // read-only, as the kernel says
	}
	return done(unix.Faccessat2(o.fd, "", mode, unix.AT_EACCESS|unix.AT_EMPTY_PATH))
}
