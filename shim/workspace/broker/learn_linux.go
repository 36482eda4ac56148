package broker

import (
	"errors"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/shim/workspace"
	"cofferdam.dev/cofferdam/shim/workspace/gitconfig"
)

// learn protects what is only found by looking: where links lead that have a protected name at the workspace's top, and the folder of
// hooks that its repository's configuration names.
func (t *tree) learn(proc int) error {
	for _, b := range workspace.BuiltIn() {
		name := strings.TrimPrefix(b.Pattern, "/")
		if strings.ContainsAny(name, "*?") {
			continue
		}
		if err := t.learnLink(proc, name, b.Reason); err != nil {
			return err
		}
	}
	for _, name := range []string{".git/hooks", ".git/config"} {
		if err := t.learnLink(proc, name, "git runs what it says"); err != nil {
			return err
		}
	}
	var st unix.Stat_t
	if unix.Fstatat(t.fd, ".git", &st, unix.AT_SYMLINK_NOFOLLOW) == nil && kind(st) != unix.S_IFDIR {
		if err := t.judge.Protect("/.git", "it says where the git directory of the whole workspace is"); err != nil {
			return err
		}
	}
	return t.learnHooks(proc)
}

// learnLink protects where a link leads, if the name goes through one.
func (t *tree) learnLink(proc int, name, reason string) error {
	fd, err := unix.Openat2(t.fd, name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: resolve})
	if err == nil {
		unix.Close(fd)
	}
	if !errors.Is(err, unix.ELOOP) {
		return nil // what is not there is protected by its name
	}
	target, err := t.target(proc, name)
	if err != nil || target == "." {
		return nil // it leads out of the workspace, where the agent does not write, or nowhere
	}
	return t.judge.Protect("/"+escape(target), reason+" (by way of "+name+")")
}

// target resolves a name within the workspace, as an absolute path would be resolved in the sandbox.
func (t *tree) target(proc int, name string) (string, error) {
	fd, err := unix.Openat2(t.fd, name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return "", err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	abs, err := pathOf(proc, fd)
	if err != nil {
		return "", err
	}
	below, ok := t.name(abs)
	if !ok {
		return "", unix.EXDEV
	}
	return below, nil
}

// learnHooks protects the folder that core.hooksPath names.
func (t *tree) learnHooks(proc int) error {
	dir, err := t.openFolder(".git")
	if err != nil {
		return nil
	}
	defer unix.Close(dir)
	text, err := read(entry{t, dir, ".git", "config"})
	if err != nil {
		return nil
	}
	hooks, ok := gitconfig.HooksPath(text)
	if !ok {
		return nil
	}
	if path.IsAbs(hooks) {
		if hooks, ok = t.name(path.Clean(hooks)); !ok {
			return nil
		}
	}
	if hooks = path.Clean(hooks); hooks == "." || strings.HasPrefix(hooks, "../") || hooks == ".." {
		return nil
	}
	const reason = "git runs what lies in there: core.hooksPath names it"
	if err := t.judge.Protect("/"+escape(hooks), reason); err != nil {
		return err
	}
	return t.learnLink(proc, hooks, reason)
}

// escape makes a name a pattern that matches it, and perhaps others: a character that means something in a pattern matches any one.
func escape(name string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(`*?[]\`, r) {
			return '?'
		}
		return r
	}, name)
}
