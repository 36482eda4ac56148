package broker

import (
	"errors"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/shim/workspace"
)

func (r *request) rename(oldFD int, oldName string, newFD int, newName string, flags uint) outcome {
	if flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 {
		return outcome{errno: unix.EINVAL} // RENAME_WHITEOUT makes a device
	}
	from, ok := r.target(oldFD, oldName)
	if !ok {
		return resumed
	}
	to, ok := r.target(newFD, newName)
	if !ok {
		return resumed
	}
	// Alone: what is judged is what has the old name, and that could be something else a moment later.
	release, ok := r.hold(true)
	defer release()
	if !ok {
		return stale
	}
	moved, err := from.stat()
	if err != nil {
		return failed(err)
	}
	leads := kind(moved) == unix.S_IFDIR || flags&unix.RENAME_EXCHANGE != 0
	if kind(moved) != unix.S_IFDIR && flags == 0 {
		if v := to.verdict(to.name()); v.Kind.IsText() {
			return r.moveText(from, to, moved, v)
		}
	}
	var happened []func()
	if out, refused := r.refuseMove(from, to, moved, &happened); refused {
		return out
	}
	if flags&unix.RENAME_EXCHANGE == 0 {
		if out, refused := r.refuseCeasing(from, &happened); refused {
			return out
		}
	} else {
		other, err := to.stat()
		if err != nil {
			return failed(err)
		}
		if out, refused := r.refuseMove(to, from, other, &happened); refused {
			return out
		}
	}
	err = unix.Renameat2(from.parent, from.base, to.parent, to.base, flags)
	if leads {
		r.names.moved() // not before: who begins now looks the new names up
	}
	if err != nil {
		return failed(err)
	}
	for _, f := range happened {
		f()
	}
	r.report.removed(from.name())
	r.report.changed(to.name())
	return outcome{}
}

// refuseMove judges a move at both ends, of a folder with all that it holds: nothing may leave a protected place or come to one. What is
// to be done once it has happened is added to happened.
func (r *request) refuseMove(from, to entry, moved unix.Stat_t, happened *[]func()) (outcome, bool) {
	if out, refused := r.refuseBecoming(to); refused {
		return out, true
	}
	isGit := func(dir string) bool { // once it has happened
		if rest, ok := strings.CutPrefix(dir+"/", to.name()+"/"); ok {
			return from.isGit(path.Join(from.name(), rest))
		}
		return to.isGit(dir)
	}
	var out outcome
	err := r.walk(from, kind(moved), func(below string, what uint32) error {
		folder, name := what == unix.S_IFDIR, path.Join(to.name(), below)
		old, now := from.verdict(path.Join(from.name(), below)).For(folder), to.judge.Judge(name, isGit).For(folder)
		if what == unix.S_IFLNK {
			target, err := readlink(from.tree.fd, path.Join(from.name(), below))
			if err != nil {
				return err
			}
			now = to.judge.JudgeSymlink(name, target, isGit)
		}
		switch {
		case old.Kind == workspace.Free && now.Kind == workspace.Free:
			return nil
		case below != "" && old.Kind == workspace.Folder && now.Kind == workspace.Folder && folder:
			return nil // a git directory moves as a whole
		case what == unix.S_IFREG && (below != "" && old.Kind.IsText() && now.Kind == old.Kind || old.Kind == workspace.GitLink && now.Kind == workspace.Free):
			at := entry{from.tree, from.parent, from.dir, from.base}
			if below != "" {
				var err error
				if at, err = from.below(below); err != nil {
					return err
				}
				defer unix.Close(at.parent)
			}
			var f func()
			var err error
			if now.Kind == workspace.Free {
				f, err = r.texts.judge(at, nil)
			} else {
				f, err = r.texts.judgeMove(at, entry{tree: to.tree, dir: path.Dir(name), base: path.Base(name)})
			}
			if err == nil {
				*happened = append(*happened, f)
				return nil
			}
			if errors.Is(err, unix.EWOULDBLOCK) {
				return err
			}
			out = r.refuseText(at, old, err)
		case old.Kind != workspace.Free:
			out = r.refuse(from.tree, path.Join(from.name(), below), old)
		default:
			out = r.refuse(to.tree, name, now)
		}
		return unix.EROFS
	})
	if err != nil && out.errno == 0 {
		out = failed(err)
	}
	return out, err != nil
}

// below is the entry at a path below that of a folder; the caller closes its parent.
func (e entry) below(name string) (entry, error) {
	found := entry{tree: e.tree, dir: path.Join(e.name(), path.Dir(name)), base: path.Base(name)}
	fd, err := e.openFolder(found.dir)
	found.parent = fd
	return found, err
}

// maxWalk bounds what is looked at for one call.
const maxWalk = 1 << 20

// walk calls f with "" for the entry itself and with each path below it, if it is a folder, and with what it is (S_IFMT of inode(7)).
func (r *request) walk(e entry, what uint32, f func(below string, what uint32) error) error {
	if err := f("", what); err != nil || what != unix.S_IFDIR {
		return err
	}
	return walkFolder(e.parent, e.base, f)
}

// walkFolder does so for what lies in a folder. Deeper than a path can be, where nothing could be changed any more, it fails.
func walkFolder(parent int, base string, f func(below string, what uint32) error) error {
	left := maxWalk
	return walkBelow(parent, base, "", &left, make([]byte, 32<<10), f)
}

func walkBelow(parent int, base, below string, left *int, b []byte, f func(below string, what uint32) error) error {
	if len(below) > maxPath {
		return unix.ENAMETOOLONG
	}
	fd, err := unix.Openat2(parent, base, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: resolve})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for {
		n, err := unix.ReadDirent(fd, b)
		if err != nil || n <= 0 {
			return err
		}
		_, _, names := unix.ParseDirent(b[:n], -1, nil)
		for _, entry := range names {
			if *left--; *left < 0 {
				return unix.EFBIG
			}
			var st unix.Stat_t // not every file system tells of what type an entry is
			if err := unix.Fstatat(fd, entry, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				if errors.Is(err, unix.ENOENT) {
					continue
				}
				return err
			}
			name := path.Join(below, entry)
			if err := f(name, kind(st)); err != nil {
				return err
			}
			if kind(st) == unix.S_IFDIR {
				if err := walkBelow(fd, entry, name, left, b, f); err != nil {
					return err
				}
			}
		}
	}
}

// maxText is the largest text that is judged, see package gitconfig.
const maxText = 1 << 20

// moveText is how git changes its configuration: a new text takes the old one's place. What is judged is what then lies there: a copy,
// to which nobody has a descriptor.
func (r *request) moveText(from, to entry, moved unix.Stat_t, v workspace.Verdict) outcome {
	if source := from.verdict(from.name()); source.Kind != workspace.Free {
		return r.refuse(from.tree, from.name(), source)
	}
	if kind(moved) != unix.S_IFREG {
		return r.refuse(to.tree, to.name(), v)
	}
	text, err := read(from)
	if err != nil {
		return failed(err)
	}
	f, err := r.texts.judge(to, text)
	if err != nil {
		return r.refuseText(to, v, err)
	}
	happened := []func(){f}
	if out, refused := r.refuseBecoming(to); refused {
		return out
	}
	if out, refused := r.refuseCeasing(from, &happened); refused {
		return out
	}
	if err := copyOf(from, text, moved.Mode); err != nil {
		return failed(err)
	}
	if err := unix.Renameat2(from.parent, from.base, to.parent, to.base, 0); err != nil {
		return failed(err)
	}
	for _, f := range happened {
		f()
	}
	r.report.removed(from.name())
	r.report.changed(to.name())
	return outcome{}
}

// read reads a regular file that is a text.
func read(e entry) ([]byte, error) {
	fd, err := unix.Openat2(e.parent, e.base, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC, Resolve: resolve})
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), e.base)
	defer f.Close()
	return readText(f)
}

func readText(f *os.File) ([]byte, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, unix.EINVAL
	}
	b, err := io.ReadAll(io.NewSectionReader(f, 0, maxText+1))
	if err == nil && len(b) > maxText {
		err = unix.EFBIG
	}
	return b, err
}

// copyOf puts a new file with this text in the place of a regular file.
func copyOf(e entry, text []byte, mode uint32) error {
	if err := unix.Unlinkat(e.parent, e.base, 0); err != nil {
		return err
	}
	fd, err := unix.Openat2(e.parent, e.base, &unix.OpenHow{
		Flags: unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_CLOEXEC, Mode: uint64(mode & fileMode), Resolve: resolve,
	})
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), e.base)
	_, err = f.Write(text)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
