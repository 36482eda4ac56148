package gitconfig

import (
	"path"
	"slices"
	"strings"
)

// checkWorktree judges core.worktree. git checks files out there, whoever owns the place, and follows the path link by link from the git directory. Only a
// submodule has need of it: its git directory lies in that of the repository around it, as .git/modules/NAME, or in that of one of its further worktrees.
func checkWorktree(v, gitDir string) string {
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
	return ""
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
