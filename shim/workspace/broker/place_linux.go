package broker

import (
	"errors"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/shim/workspace"
)

// A tree is a workspace as this process sees it: at the agent's path, and writable.
type tree struct {
	at    string // path; the agent cannot move it, since it is a mount point, but perhaps what is above it, see leadsTo
	fd    int    // of its top
	judge *workspace.Judge
}

// name is the path below the workspace, "." for its top.
func (t *tree) name(abs string) (string, bool) {
	if abs == t.at {
		return ".", true
	}
	rest, ok := strings.CutPrefix(abs, t.at)
	if !ok || rest[0] != '/' {
		return "", false
	}
	return rest[1:], true
}

// resolve is how paths below a workspace are opened again: they have no links left.
const resolve = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS

func (t *tree) openFolder(name string) (int, error) {
	return unix.Openat2(t.fd, name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: resolve})
}

// has reports whether a folder has an entry, or may have one that the caller cannot see, or that has too long a path to be looked at.
func (t *tree) has(dir, entry string) bool {
	var st unix.Stat_t
	err := unix.Fstatat(t.fd, dir+"/"+entry, &st, unix.AT_SYMLINK_NOFOLLOW)
	return !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR)
}

// isGit reports whether the folder is a git directory by what it holds.
func (t *tree) isGit(dir string) bool {
	return workspace.IsGit(func(entry string) bool { return t.has(dir, entry) })
}

func (t *tree) verdict(name string) workspace.Verdict { return t.judge.Judge(name, t.isGit) }

// An object is something that exists in a workspace.
type object struct {
	*tree
	fd   int    // O_PATH
	name string // below the tree
	unix.Stat_t
}

// An entry is a name in a folder of a workspace, whether there is something of that name or not.
type entry struct {
	*tree
	parent int    // O_PATH
	dir    string // the folder below the tree
	base   string
}

func (e entry) name() string { return path.Join(e.dir, e.base) }

// stat looks at what has the name. There may be nothing (unix.ENOENT).
func (e entry) stat() (st unix.Stat_t, err error) {
	return st, unix.Fstatat(e.parent, e.base, &st, unix.AT_SYMLINK_NOFOLLOW)
}

func kind(st unix.Stat_t) uint32 { return st.Mode & unix.S_IFMT }

// find looks an absolute path of the agent's up. What is in no workspace has no tree; the kernel shall see to it. The object is closed
// with the request.
func (r *request) find(abs string, follow bool) (object, error) {
	flags := uint64(unix.O_PATH | unix.O_CLOEXEC)
	if !follow {
		flags |= unix.O_NOFOLLOW
	}
	fd, err := unix.Openat2(unix.AT_FDCWD, abs, &unix.OpenHow{Flags: flags, Resolve: unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return object{}, err
	}
	r.close(fd)
	return r.identify(fd)
}

// identify says what a descriptor of our own (O_PATH) is of. Its names are counted before the one is looked at by which it was found: if that goes
// meanwhile, either the number still has it, or the name has the mark of one that is gone.
func (b *broker) identify(fd int) (o object, err error) {
	o.fd = fd
	if err := unix.Fstat(fd, &o.Stat_t); err != nil {
		return o, err
	}
	o.tree, o.name, err = b.locate(fd, o.Stat_t)
	return o, err
}

// gone is the mark, which a file's name can also have by itself (proc_pid_fd(5)).
const gone = " (deleted)"

// locate says in which workspace a descriptor of our own, of what has this inode, lies, and where.
func (b *broker) locate(fd int, st unix.Stat_t) (*tree, string, error) {
	for range maxLocate {
		abs, err := pathOf(b.proc, fd)
		if err != nil {
			return nil, "", err
		}
		t, name := b.inTree(abs)
		if t == nil || t.leadsTo(name, st) || strings.HasSuffix(name, gone) && (st.Nlink == 0 || kind(st) == unix.S_IFREG) {
			return t, name, nil
		}
	}
	return nil, "", nil
}

// maxLocate is how often something is looked for that is moved meanwhile.
const maxLocate = 10

// leadsTo reports whether a name in the workspace is of what has this inode. A path alone does not tell: the folders above the workspace may be the
// agent's to move, so that one of its paths is another one's name.
func (t *tree) leadsTo(name string, st unix.Stat_t) bool {
	fd, err := unix.Openat2(t.fd, name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: resolve})
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var there unix.Stat_t
	return unix.Fstat(fd, &there) == nil && inodeOf(there) == inodeOf(st)
}

// inTree says in which workspace a path without links lies, and where.
func (b *broker) inTree(abs string) (*tree, string) {
	for _, t := range b.trees {
		if name, ok := t.name(abs); ok {
			return t, name
		}
	}
	return nil, ""
}

// pathOf is the path of what a descriptor of our own is open for.
func pathOf(proc, fd int) (string, error) {
	return readlink(proc, self(fd))
}

func readlink(dir int, name string) (string, error) {
	b := make([]byte, maxPath)
	n, err := unix.Readlinkat(dir, name, b)
	return string(b[:max(n, 0)]), err
}

// entry looks up where a name would be; see find. A path that ends in no name ("..") is not for us.
func (r *request) entry(abs string) (entry, error) {
	abs = strings.TrimRight(abs, "/")
	cut := strings.LastIndexByte(abs, '/')
	if cut < 0 {
		return entry{}, nil
	}
	dir, base := abs[:cut+1], abs[cut+1:]
	if base == "." || base == ".." {
		return entry{}, nil
	}
	fd, err := unix.Openat2(unix.AT_FDCWD, dir, &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return entry{}, err
	}
	r.close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return entry{}, err
	}
	e := entry{parent: fd, base: base}
	// Most paths go through no link, and so say themselves where they lead: to ask the kernel takes longer than to have it see to that.
	if t, name := r.inTree(abs[:cut]); t != nil && path.Clean(abs[:cut]) == abs[:cut] && t.leadsTo(name, st) {
		e.tree, e.dir = t, name
		return e, nil
	}
	e.tree, e.dir, err = r.locate(fd, st)
	return e, err
}

// home is the entry that an object has.
func (r *request) home(o object) (entry, error) {
	if o.name == "." {
		return entry{}, unix.EBUSY
	}
	e := entry{tree: o.tree, dir: path.Dir(o.name), base: path.Base(o.name)}
	fd, err := o.openFolder(e.dir)
	if err != nil {
		return entry{}, err
	}
	r.close(fd)
	e.parent = fd
	st, err := e.stat()
	if err != nil {
		return entry{}, err
	}
	if inodeOf(st) != inodeOf(o.Stat_t) { // somebody outside has moved it
		return entry{}, unix.ENOENT
	}
	return e, nil
}

// close closes a descriptor with the request.
func (r *request) close(fd int) { r.opened = append(r.opened, fd) }
