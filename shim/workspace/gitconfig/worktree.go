package gitconfig

import (
	"path"
	"slices"
	"strings"
)

// checkWorktree judges core.worktree. git checks files out there, whoever owns the place, and follows the path link by link from the git directory. Only a
// submodule has need of it: its git directory lies in that of the repository around it, as .git/modules/NAME, or in that of one of its further worktrees.
func checkWorktree(v string, s state) string {
	gitDir := s.gitDir
	parts := strings.Split(gitDir, "/")
	git := slices.Index(parts, ".git")
	if git < 0 || !slices.Contains(parts[git:len(parts)-1], "modules") {
		return "is for a submodule's git directory, below .git/modules"
	}
	down := v
	for strings.HasPrefix(down, "../") {
		down = down[len("../"):]
	}
	if down == v || !cleanRelative(down) || hasControl(v) {
		return "must be a relative path that goes up and then down"
	}
	place := path.Join(gitDir, v)
	if !cleanRelative(place) {
		return "must stay in the workspace"
	}
	if slices.ContainsFunc(strings.Split(place, "/"), isDotGit) {
		return "must not be a git directory"
	}
	if s.existed && place != ownPlace(gitDir) {
		return "must be where the submodule's name says: the owner's next checkout in it would write somewhere else"
	}
	return ""
}

// ownPlace is where a submodule's files lie that lies where its name says, as it does unless somebody has moved it: .git/modules/a/b is of a/b.
func ownPlace(gitDir string) string {
	super, below, ok := strings.Cut("/"+gitDir, "/.git/modules/")
	if !ok {
		return ""
	}
	return path.Join(strings.TrimPrefix(super, "/"), strings.ReplaceAll(below, "/modules/", "/"))
}

// isDotGit takes every name for .git that some file system does: without regard to case, with characters that HFS+ ignores, and Windows' short form.
func isDotGit(name string) bool {
	name = strings.Map(func(c rune) rune {
		if c > 0x7f {
			return -1
		}
		return c
	}, strings.ToLower(name))
	name = strings.TrimRight(name, ". ")
	return name == ".git" || strings.HasPrefix(name, ".git:") || strings.HasPrefix(name, "git~")
}
