package broker

import (
	"errors"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/shim/workspace"
)

// refuseBecoming judges that something of e's name comes to its folder. The names are locked, if it is such a name.
func (r *request) refuseBecoming(e entry) (outcome, bool) {
	if !workspace.MakesGit(e.base) {
		return outcome{}, false
	}
	v, err := r.becomesGit(e)
	return r.refuseUnlessFree(e, v, err)
}

// refuseCeasing judges that e goes from its folder.
func (r *request) refuseCeasing(e entry, happened *[]func()) (outcome, bool) {
	v, err := r.ceasesGit(e, happened)
	return r.refuseUnlessFree(e, v, err)
}

func (r *request) refuseUnlessFree(e entry, v workspace.Verdict, err error) (outcome, bool) {
	switch {
	case err != nil:
		return failed(err), true
	case v.Kind != workspace.Free:
		return r.refuse(e.tree, e.name(), v), true
	}
	return outcome{}, false
}

// becomesGit judges what makes e's folder a git directory, which it was not before: what lies there already is then its configuration and its
// hooks. The names are locked.
func (r *request) becomesGit(e entry) (workspace.Verdict, error) {
	with := func(entry string) bool { return workspace.SameName(entry, e.base) || e.has(e.dir, entry) }
	if with("HEAD") && (with("refs") || with("commondir")) && e.has(e.dir, ".git") {
		// An agent can spoil the one that has the name, as by what its HEAD says.
		return protected(e.base, "git would find that one where it does not find one named .git"), nil
	}
	if workspace.SameName(path.Base(e.dir), ".git") || e.isGit(e.dir) || !workspace.IsGit(with) {
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
		happened, err := r.texts.remember(place{config.tree, config.name()}, nil, text)
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
	without := func(entry string) bool { return !workspace.SameName(entry, e.base) && e.has(e.dir, entry) }
	if !workspace.MakesGit(e.base) || workspace.SameName(path.Base(e.dir), ".git") || !e.isGit(e.dir) || workspace.IsGit(without) {
		return free, nil
	}
	v, err := eachConfig(e, func(config entry, _ uint32) (workspace.Verdict, error) {
		f, err := r.texts.judge(config, nil)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return free, err
		}
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
	for _, base := range []string{"hooks", "remotes", "branches"} {
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
		err = folder.unused()
		if errors.Is(err, errUsed) {
			return protected(base, err.Error()), nil
		}
		if err != nil {
			return free, err
		}
	}
	return free, nil
}

var errUsed = errors.New("git would use what lies in there")

// unused returns errUsed if git would use what lies in one of its folders.
func (e entry) unused() error {
	return walkFolder(e.parent, e.base, func(below string, what uint32) error {
		if what != unix.S_IFREG || strings.Contains(below, "/") || !strings.HasSuffix(below, ".sample") || !workspace.SameName(e.base, "hooks") {
			return errUsed
		}
		return nil
	})
}
