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
	// Files change their names side by side; what changes where a name leads, or what counts as a git directory, does so alone.
	release, ok := r.hold(false)
	moved, err := from.stat()
	leads := kind(moved) == unix.S_IFDIR || flags&unix.RENAME_EXCHANGE != 0
	if ok && err == nil && (leads || workspace.MakesGit(from.base) || workspace.MakesGit(to.base) || to.verdict(to.name()).Kind == workspace.GitConfig) {
		release()
		release, ok = r.hold(true)
		moved, err = from.stat()
		ok = ok && (leads || kind(moved) != unix.S_IFDIR)
	}
	defer func() { release() }()
	switch {
	case !ok:
		return stale
	case err != nil:
		return failed(err)
	}
	if kind(moved) != unix.S_IFDIR && flags == 0 {
		if v := to.verdict(to.name()); v.Kind == workspace.GitConfig {
			return r.replaceConfig(from, to, moved, v)
		}
	}
	var happened []func()
	if out, refused := r.refuseMove(from, to, moved, &happened); refused {
		return out
	}
	if flags&unix.RENAME_EXCHANGE == 0 {
		if v, err := r.ceasesGit(from, &happened); err != nil {
			return failed(err)
		} else if v.Kind != workspace.Free {
			return r.refuse(from.tree, from.name(), v)
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
		r.moves.Add(1) // not before: who begins now looks the new names up
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
	if workspace.MakesGit(to.base) {
		if v, err := r.becomesGit(to); err != nil {
			return failed(err), true
		} else if v.Kind != workspace.Free {
			return r.refuse(to.tree, to.name(), v), true
		}
	}
	isGit := func(dir string) bool { // once it has happened
		if rest, ok := strings.CutPrefix(dir+"/", to.name()+"/"); ok {
			return from.isGit(path.Join(from.name(), rest))
		}
		return to.isGit(dir)
	}
	var out outcome
	err := r.walk(from, kind(moved) == unix.S_IFDIR, func(below string, file bool) error {
		old, now := from.verdict(path.Join(from.name(), below)), to.judge.Judge(path.Join(to.name(), below), isGit)
		switch {
		case old.Kind == workspace.Free && now.Kind == workspace.Free:
			return nil
		case below != "" && old.Kind == now.Kind && old.Kind == workspace.Folder && !file:
			return nil // a git directory moves as a whole
		case below != "" && old.Kind == now.Kind && old.Kind == workspace.GitConfig && file:
			config, err := from.below(below)
			if err != nil {
				return err
			}
			defer unix.Close(config.parent)
			f, err := r.configs.judgeMove(config, entry{tree: to.tree, dir: path.Dir(path.Join(to.name(), below)), base: config.base})
			if err == nil {
				*happened = append(*happened, f)
				return nil
			}
			old.Reason = err.Error()
			out = r.refuse(from.tree, config.name(), old)
		case old.Kind != workspace.Free:
			out = r.refuse(from.tree, path.Join(from.name(), below), old)
		default:
			out = r.refuse(to.tree, path.Join(to.name(), below), now)
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

// walk calls f with "" for the entry itself and with each path below it, if it is a folder.
func (r *request) walk(e entry, folder bool, f func(below string, file bool) error) error {
	if err := f("", !folder); err != nil || !folder {
		return err
	}
	return walkFolder(e.parent, e.base, f)
}

// walkFolder does so for what lies in a folder. Deeper than a path can be, where nothing could be changed any more, it fails.
func walkFolder(parent int, base string, f func(below string, file bool) error) error {
	left := maxWalk
	return walkBelow(parent, base, "", &left, make([]byte, 32<<10), f)
}

func walkBelow(parent int, base, below string, left *int, b []byte, f func(below string, file bool) error) error {
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
			if err := f(name, kind(st) == unix.S_IFREG); err != nil {
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

// maxConfig is the largest git configuration, see package gitconfig.
const maxConfig = 1 << 20

// replaceConfig is how git changes its configuration: a new text takes the old one's place. What is judged is what then lies there: a copy,
// to which nobody has a descriptor.
func (r *request) replaceConfig(from, to entry, moved unix.Stat_t, v workspace.Verdict) outcome {
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
	happened, err := r.configs.judge(to, text)
	if err != nil {
		v.Reason = err.Error()
		return r.refuse(to.tree, to.name(), v)
	}
	if err := copyOf(from, text, moved.Mode); err != nil {
		return failed(err)
	}
	if err := unix.Renameat2(from.parent, from.base, to.parent, to.base, 0); err != nil {
		return failed(err)
	}
	happened()
	r.report.removed(from.name())
	r.report.changed(to.name())
	return outcome{}
}

// read reads a regular file, up to maxConfig.
func read(e entry) ([]byte, error) {
	fd, err := unix.Openat2(e.parent, e.base, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC, Resolve: resolve})
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), e.base)
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, unix.EINVAL
	}
	b, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err == nil && len(b) > maxConfig {
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

// becomesGit judges what makes e's folder a git directory, which it was not before: what lies there already is then its configuration and its
// hooks. The names are locked.
func (r *request) becomesGit(e entry) (workspace.Verdict, error) {
	with := func(entry string) bool { return strings.EqualFold(entry, e.base) || e.has(e.dir, entry) }
	if strings.EqualFold(path.Base(e.dir), ".git") || e.isGit(e.dir) || !workspace.IsGit(with) {
		return free, nil
	}
	v, err := eachConfig(e, func(config entry, mode uint32) (workspace.Verdict, error) {
		text, err := read(config)
		if err != nil {
			return free, err
		}
		if err := judge(config, nil, text); err != nil {
			return protected(config.base, err.Error()), nil
		}
		happened, err := r.configs.remember(place{config.tree, config.name()}, nil, text)
		if err != nil {
			return protected(config.base, err.Error()), nil
		}
		if err := copyOf(config, text, mode); err != nil {
			return free, err
		}
		happened()
		return free, nil
	})
	if err != nil || v.Kind != workspace.Free {
		return v, err
	}
	return emptyPlaces(e)
}

// ceasesGit judges what takes away the entry that makes e's folder a git directory: all that is protected in there would be free. So it must be
// such that it may go. What is to be done once it has happened is added to happened. The names are locked.
func (r *request) ceasesGit(e entry, happened *[]func()) (workspace.Verdict, error) {
	without := func(entry string) bool { return !strings.EqualFold(entry, e.base) && e.has(e.dir, entry) }
	if !workspace.MakesGit(e.base) || strings.EqualFold(path.Base(e.dir), ".git") || !e.isGit(e.dir) || workspace.IsGit(without) {
		return free, nil
	}
	v, err := eachConfig(e, func(config entry, _ uint32) (workspace.Verdict, error) {
		f, err := r.configs.judge(config, nil)
		if err != nil {
			return protected(config.base, err.Error()), nil
		}
		*happened = append(*happened, f)
		return free, nil
	})
	if err != nil || v.Kind != workspace.Free {
		return v, err
	}
	return emptyPlaces(e)
}

// eachConfig calls do with each configuration that git reads in e's folder, and its mode, until a verdict is not that it is free.
func eachConfig(e entry, do func(config entry, mode uint32) (workspace.Verdict, error)) (workspace.Verdict, error) {
	for _, base := range []string{"config", "config.worktree"} {
		config := entry{e.tree, e.parent, e.dir, base}
		st, err := config.stat()
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return free, err
		}
		if kind(st) != unix.S_IFREG {
			return protected(base, "it is no regular file"), nil
		}
		if v, err := do(config, st.Mode); err != nil || v.Kind != workspace.Free {
			return v, err
		}
	}
	return free, nil
}

// free is the verdict that there is nothing to protect.
var free = workspace.Verdict{Kind: workspace.Free}

func protected(base, reason string) workspace.Verdict {
	return workspace.Verdict{Kind: workspace.Protected, Pattern: base + " of a git directory", Reason: reason}
}

// emptyPlaces looks whether what git uses in e's folder, besides its configuration, is nothing.
func emptyPlaces(e entry) (workspace.Verdict, error) {
	for base, allowed := range map[string]func(name string) bool{
		"hooks":    func(name string) bool { return strings.HasSuffix(name, ".sample") && !strings.Contains(name, "/") },
		"remotes":  func(string) bool { return false },
		"branches": func(string) bool { return false },
	} {
		folder := entry{e.tree, e.parent, e.dir, base}
		st, err := folder.stat()
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return free, err
		}
		if kind(st) != unix.S_IFDIR {
			return protected(base, "it is no folder"), nil
		}
		err = walkFolder(folder.parent, folder.base, func(below string, file bool) error {
			if !file || !allowed(below) {
				return unix.EROFS
			}
			return nil
		})
		if errors.Is(err, unix.EROFS) {
			return protected(base, "git would use what lies in there"), nil
		}
		if err != nil {
			return free, err
		}
	}
	return free, nil
}
