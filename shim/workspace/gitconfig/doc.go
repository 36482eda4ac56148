// Package gitconfig decides whether a program in the workspace may put one text of a git configuration in the place of another.
//
// The fact behind it: whoever writes a repository's configuration runs commands as whoever uses git there next. Dozens of its keys name a
// program, a folder of hooks, a file that is read as configuration, or the place that the next push goes to. Yet git's everyday work
// writes there too: clone, branch, remote add, worktree add, submodule add, sparse-checkout.
//
// The journey of a replacement: both texts are parsed as git does (parse.go), into entries in their order. What the list of rows
// (allowed.go) knows may come, go and change, if its values pass that row's check (value.go, follow.go, worktree.go). All the rest is
// frozen: it must be the same entries in the same order. git lets the last of several values win, or takes all of them as a list, so entries of
// a listed key are judged together: once one of them differs, each that the new text has must pass, also those that were there before.
//
// Limits, which the caller has to close, or to tell the owner of:
//   - Every file that git may read as configuration must come here: any folder that holds HEAD, objects and refs is a git directory to it,
//     with its "config" and "config.worktree". What is removed, renamed away or linked to elsewhere was not judged: Judge(old, nil, dir)
//     says whether a text may go. The folders "remotes" and "branches" of a git directory define remotes as well.
//   - Paths are judged as text. Whether core.worktree leads through a symbolic link is for the caller to see; Worktree tells the place.
//   - A new remote may be any place, also one that only the owner can read: what the owner fetches from it lies in the workspace then.
//   - Where there is no origin and no branch follows a remote, a branch may come to follow a new one, and a push without arguments goes there.
package gitconfig
