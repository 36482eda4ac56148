// Package workspace protects a workspace from the agent that works in it, for the sake of whoever works in it afterwards, without walls:
// a git hook, an editor's task file or a shell's rc file that an agent has left there runs as its owner.
//
// [Rules] say which places are protected: those of [BuiltIn], which is data with a reason for each entry, and what a policy adds or lifts.
// [Judge.Judge] is pure: a path, relative to the workspace, gives a [Verdict]. Package broker carries verdicts out.
//
// # Names
//
// A protected place is known by its name, at any depth, whether it exists or not, and without regard to the case of ASCII letters, and to
// what some file systems take for one of them or for nothing. What lies below it is protected with it. No symbolic link has the name of a
// folder on the way to it, see [Judge.JudgeSymlink].
//
// git needs more than names, since it works on its own files, and since any folder can be a repository:
//
//   - A git directory is one named .git, or one that holds what git knows a repository by, see [IsGit].
//   - Its config and config.worktree are [GitConfig]: they change only if what is new in the text is harmless (package gitconfig).
//   - A .git file and commondir, by which git finds one, are [GitLink]: see [JudgeLink]. So is that by which jj finds its repository. None
//     is a symbolic link, nor is there one in a directory named .git that leads out of it, see [Judge.JudgeSymlink].
//   - Its hooks are those that a person has put there, and beside them such that git does not run: *.sample. The folders from which old
//     versions of git take remotes stay empty.
//
// # Limits
//
// Source code, build files and tests are the work that the agent is there for, and run when somebody runs them. Who does that without
// having read them has no protection from here. Where a link that leads into a protected place lies deeper than the workspace's top, its
// target is not known to be one.
package workspace
