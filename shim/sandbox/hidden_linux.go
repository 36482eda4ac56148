package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/shim/workspace"
	"cofferdam.dev/cofferdam/spec"
)

// maxScanned bounds the entries that are looked at for what a policy hides.
const maxScanned = 4 << 20

// hide finds what the policy hides in the sandbox's folders, as paths in the container: what has such a name, where links of such a name
// lead, and each further name of a file that has one. verify then looks whether it is hidden.
func (s *sources) hide(rules workspace.Rules) (paths []string, err error) {
	judge, err := workspace.NewJudge(rules)
	if err != nil {
		return nil, err
	}
	paths = []string{}
	noGit := func(string) bool { return false }
	for i, r := range s.rules {
		st, err := s.files[i].Stat()
		if err != nil {
			return nil, err
		}
		if !st.IsDir() { // nothing can lie over it: it is what was granted
			if judge.Judge(path.Base(r.Path), noGit).Kind == workspace.Hidden {
				return nil, &spec.RefusedError{Path: "workspace " + r.Source, Reason: "the policy hides files of this name"}
			}
			continue
		}
		top := fmt.Sprintf("/proc/self/fd/%d", s.files[i].Fd())
		inodes := map[[2]uint64]bool{}
		var found, linked []string
		seen := 0
		err = filepath.WalkDir(top+"/.", func(at string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
				return nil // the agent cannot look either, or it is gone
			}
			if err != nil {
				return err
			}
			if seen++; seen > maxScanned {
				return fmt.Errorf("more than %d entries", maxScanned)
			}
			name, err := filepath.Rel(top, at)
			if err != nil || name == "." {
				return err
			}
			isHidden := judge.Judge(name, noGit).Kind == workspace.Hidden
			if !isHidden && e.Type().IsDir() {
				return nil
			}
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			st := info.Sys().(*syscall.Stat_t)
			key := [2]uint64{st.Dev, st.Ino}
			switch {
			case !isHidden:
				if e.Type().IsRegular() && st.Nlink > 1 {
					linked = append(linked, name)
				}
				return nil
			case e.Type()&fs.ModeSymlink != 0:
				if name, err = s.target(i, name); err != nil || name == "" {
					return err
				}
			case e.Type().IsRegular() && st.Nlink > 1:
				inodes[key] = true
			}
			found = append(found, name)
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("look for hidden files in %s: %w", r.Source, err)
		}
		for _, name := range linked {
			var st unix.Stat_t
			if err := unix.Fstatat(int(s.files[i].Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return nil, fmt.Errorf("look for hidden files in %s: %w", r.Source, err)
			}
			if inodes[[2]uint64{st.Dev, st.Ino}] {
				found = append(found, name)
			}
		}
		for _, name := range found {
			paths = append(paths, path.Join(r.Path, name))
		}
	}
	s.hidden = paths
	return paths, nil
}

// target says where a link leads, below the folder of the i-th rule; "" if it leads elsewhere or nowhere.
func (s *sources) target(i int, name string) (string, error) {
	fd, err := unix.Openat(int(s.files[i].Fd()), name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	abs, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return "", err
	}
	below, err := filepath.Rel(s.rules[i].Source, abs)
	if err != nil || below == "." || !filepath.IsLocal(below) {
		return "", nil
	}
	return below, nil
}

// verifyHidden looks whether each of the paths lies behind a mount of its own in the container: the runtime masks by path, and another
// agent may work in the same folder.
func verifyHidden(root int, paths []string) error {
	for _, p := range paths {
		var st unix.Statx_t
		fd, err := unix.Openat2(root, p, &unix.OpenHow{
			Flags:   unix.O_PATH | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
		})
		if err == nil {
			err = unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_TYPE, &st)
			unix.Close(fd)
		}
		if errors.Is(err, unix.ENOENT) {
			continue // it is gone
		}
		if err != nil {
			return fmt.Errorf("hidden %s: %w", p, err)
		}
		if st.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0 {
			return &spec.RefusedError{Path: "hidden " + p, Reason: "was replaced while the container was being created"}
		}
	}
	return nil
}
