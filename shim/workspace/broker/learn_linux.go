package broker

import (
	"errors"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/shim/workspace"
	"cofferdam.dev/cofferdam/shim/workspace/gitconfig"
)

// learn protects what is only found by looking: where links lead that have a protected name at the workspace's top, and what the
// configuration of its repository names.
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
	return errors.Join(t.learnConfig(proc, ".git/config", maxIncludes), t.learnConfig(proc, ".git/config.worktree", maxIncludes))
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
	for _, place := range t.leads(proc, name) {
		if place == "." {
			continue
		}
		if err := t.judge.Protect("/"+escape(place), reason+" (by way of "+name+")"); err != nil {
			return err
		}
	}
	return nil
}

// leads is where a name leads in the workspace, also to what is not there yet.
func (t *tree) leads(proc int, name string) (places []string) {
	target, err := t.target(proc, name)
	if !errors.Is(err, unix.ENOENT) {
		if err == nil { // else it leads out of the workspace, where the agent does not write
			places = []string{target}
		}
		return places
	}
	if text, err := readlink(t.fd, name); err == nil {
		return t.places(path.Dir(name), text)
	}
	if dir := path.Dir(name); dir != "." {
		for _, place := range t.leads(proc, dir) {
			places = append(places, path.Join(place, path.Base(name)))
		}
	}
	return places
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

// maxIncludes is how deep git follows configurations that include each other.
const maxIncludes = 10

// learnConfig protects what a configuration of the workspace's repository names in the workspace: the folder of hooks, further configurations and what those
// name, and programs.
func (t *tree) learnConfig(proc int, name string, left int) error {
	dir, err := t.openFolder(path.Dir(name))
	if err != nil || left == 0 {
		return nil
	}
	defer unix.Close(dir)
	text, err := read(entry{t, dir, path.Dir(name), path.Base(name)})
	if err != nil {
		return nil
	}
	names := gitconfig.Names(text)
	if names.HooksPath != "" {
		if err := t.learnNamed(proc, ".", names.HooksPath, "git runs what lies in there: core.hooksPath names it", nil); err != nil {
			return err
		}
	}
	for _, word := range names.Commands {
		if err := t.learnNamed(proc, ".", word, "a command of git's configuration names it", t.isFile); err != nil {
			return err
		}
	}
	for _, include := range names.Includes {
		if err := t.learnNamed(proc, path.Dir(name), include, "git reads it as configuration: "+name+" includes it", t.isNoFolder); err != nil {
			return err
		}
		for _, found := range t.places(path.Dir(name), include) {
			if err := t.learnConfig(proc, found, left-1); err != nil {
				return err
			}
		}
	}
	return nil
}

// learnNamed protects the places that a value names, of which is is true, if it is given.
func (t *tree) learnNamed(proc int, dir, value, reason string, is func(name string) bool) error {
	for _, name := range t.places(dir, value) {
		if is != nil && !is(name) {
			continue
		}
		if err := t.judge.Protect("/"+escape(name), reason); err != nil {
			return err
		}
		if err := t.learnLink(proc, name, reason); err != nil {
			return err
		}
	}
	return nil
}

// places are those in the workspace that a path in a configuration may name, which is relative to dir. Where the owner's home is, is not known
// here: all that could be meant are meant.
func (t *tree) places(dir, value string) (names []string) {
	switch rest, ok := strings.CutPrefix(value, "~/"); {
	case ok:
		parts := strings.Split(path.Clean(rest), "/")
		for i := range parts {
			if strings.HasSuffix(t.at, path.Join("/", path.Join(parts[:i]...))) || i == 0 {
				names = append(names, path.Join(parts[i:]...))
			}
		}
	case path.IsAbs(value):
		if name, ok := t.name(path.Clean(value)); ok {
			names = []string{name}
		}
	default:
		names = []string{path.Join(dir, value)}
	}
	return slices.DeleteFunc(names, func(name string) bool { return name == "." || name == ".." || strings.HasPrefix(name, "../") })
}

// isNoFolder is true also of what is not there.
func (t *tree) isNoFolder(name string) bool {
	var st unix.Stat_t
	err := unix.Fstatat(t.fd, name, &st, 0)
	return err == nil && kind(st) != unix.S_IFDIR || errors.Is(err, unix.ENOENT)
}

func (t *tree) isFile(name string) bool {
	var st unix.Stat_t
	return unix.Fstatat(t.fd, name, &st, 0) == nil && kind(st) == unix.S_IFREG
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
