package workspace

import (
	"errors"
	"path"
	"slices"
	"strings"
)

// JudgeLink says whether a file at name, relative to the workspace, may have a text by which git finds a git directory: one called .git in a
// submodule or a further worktree (gitrepository-layout(5)), or one called commondir in the git directory of the latter. One called repo in a folder .jj, by which jj finds a repository, has none. top is the workspace's absolute path.
//
// Whoever follows the text outside must come to where it leads inside, at any time: so it goes through names alone that cannot come to be
// symbolic links. Those are the folders above the file, which are there as long as the file is, and what lies in a directory named .git.
func JudgeLink(name, text, top string) error {
	text = strings.TrimRight(text, "\r\n")
	if text == "" {
		return nil // git does not take it for one
	}
	if strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return errors.New("it has control characters")
	}
	dir := path.Dir(name)
	if lower(path.Base(name)) == "repo" {
		return errors.New("it leads to a repository somewhere else")
	}
	if lower(path.Base(name)) == "commondir" {
		// Anywhere else it would put another configuration in the place of the one that a repository has.
		parts := strings.Split(dir, "/")
		if n := len(parts) - 2; text == "../.." && n > 0 && parts[n] == "worktrees" && slices.Contains(parts[:n], ".git") {
			return nil
		}
		return errors.New("it leads to other than the repository in whose worktrees it lies")
	}
	target, ok := strings.CutPrefix(text, "gitdir: ")
	if !ok {
		return errors.New("it is no .git file")
	}
	if rest, ok := strings.CutPrefix(target, top+"/"); ok {
		parts := strings.Split(rest, "/")
		i := max(slices.Index(parts, ".git"), 0)
		if above := strings.Join(parts[:i], "/"); i > 0 && dir != above && !strings.HasPrefix(dir, above+"/") {
			return errNotAbove
		}
		return judgeGitDir(parts[i:])
	}
	up, rest := climb(strings.Split(target, "/"))
	if up == 0 || up > depth(dir) {
		return errNotAbove
	}
	return judgeGitDir(rest)
}

var errNotAbove = errors.New("it leads to other than the .git of a folder above it in the workspace")

// judgeGitDir judges the way from a folder above.
func judgeGitDir(parts []string) error {
	if len(parts) == 0 || parts[0] != ".git" {
		return errNotAbove
	}
	for _, part := range parts {
		if part == "" || part == "." || part == ".." {
			return errNotAbove
		}
	}
	return nil
}

// climb returns how often a path begins with "..", and what follows.
func climb(parts []string) (up int, rest []string) {
	for up < len(parts) && parts[up] == ".." {
		up++
	}
	return up, parts[up:]
}

// depth is how many folders of the workspace lie above what is in dir.
func depth(dir string) int {
	if dir == "." {
		return 0
	}
	return strings.Count(dir, "/") + 1
}
