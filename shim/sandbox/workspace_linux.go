package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/shim/workspace/broker"
	"cofferdam.dev/cofferdam/spec"
)

// sources holds the host folders, and the files that may only be read, of a sandbox open from the moment they were checked until the runtime has mounted them.
//
// The runtime mounts by path, and an agent that runs elsewhere may own a part of that path: it could swap a folder for a symlink
// between our check and the mount. A descriptor cannot be handed over instead (mount(2) refuses one from another mount namespace),
// so the folder is compared by inode once the container exists and before anything in it runs.
type sources struct {
	files []*os.File
	rules []spec.FileRule
	// hidden are paths in the container that must lie behind a mount
	hidden []string
	root   *os.File // the root file system, if it is a folder that the engine did not make (ctr run --rootfs)
}

// openSources resolves the Source of every file rule, opens it without following a symlink and checks it. It returns the rules with
// their resolved sources.
func openSources(rules []spec.FileRule, h spec.Host) (_ *sources, err error) {
	s := &sources{}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	for _, r := range rules {
		real, err := filepath.EvalSymlinks(r.Source)
		if err != nil {
			return nil, fmt.Errorf("workspace: %w", err)
		}
		if err := spec.CheckWorkspace(real, h); err != nil {
			return nil, err
		}
		f, err := openSource(real)
		if err != nil {
			return nil, fmt.Errorf("workspace: %w", err)
		}
		if err := checkKind(f, r.Access); err != nil {
			f.Close()
			return nil, err
		}
		r.Source = real
		s.files = append(s.files, f)
		s.rules = append(s.rules, r)
	}
	return s, nil
}

// openSource opens something of the host through no symbolic link.
func openSource(path string) (*os.File, error) {
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// checkKind refuses what is no folder, and, to be read only, no regular file either: a socket would be somebody to talk to.
func checkKind(f *os.File, access spec.Access) error {
	st, err := f.Stat()
	switch {
	case err != nil:
		return err
	case st.IsDir(), access == spec.Read && st.Mode().IsRegular():
		return nil
	case access == spec.Read:
		return &spec.RefusedError{Path: "workspace " + f.Name(), Reason: "neither a folder nor a regular file"}
	}
	return &spec.RefusedError{Path: "workspace " + f.Name(), Reason: "not a folder"}
}

// openRoot holds a root file system that lies outside of the bundle, as if it were a workspace: its path is checked by package spec as
// text, so it must be what it says.
func (s *sources) openRoot(original *specs.Spec, h spec.Host) (err error) {
	if original.Root == nil || original.Root.Path == "rootfs" || original.Root.Path == filepath.Join(h.Bundle, "rootfs") {
		return nil
	}
	s.root, err = openSource(original.Root.Path)
	if errors.Is(err, unix.ELOOP) {
		return &spec.RefusedError{Path: "root.path " + original.Root.Path, Reason: "leads through a symbolic link"}
	}
	if err != nil {
		return fmt.Errorf("root.path: %w", err)
	}
	return checkKind(s.root, spec.Write)
}

// verify compares what the runtime mounted in the container of process pid with what was checked. It must run after the container
// was created and before it is started. It returns the workspaces that may be written to, as they are mounted there.
func (s *sources) verify(pid int) (written []broker.Tree, err error) {
	if len(s.files) == 0 && s.root == nil {
		return nil, nil
	}
	defer func() {
		if err != nil {
			for _, f := range written {
				f.Close()
			}
			written = nil
		}
	}()
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return written, fmt.Errorf("open root of process %d: %w", pid, err)
	}
	inside := os.NewFile(uintptr(root), "/")
	defer inside.Close()
	if s.root != nil {
		same, err := sameFile(inside, s.root)
		if err != nil {
			return written, err
		}
		if !same {
			return written, &spec.RefusedError{Path: "root.path " + s.root.Name(), Reason: "was replaced while the container was being created"}
		}
	}
	if err := verifyHidden(root, s.hidden); err != nil {
		return written, err
	}
	for i, r := range s.rules {
		got, err := openInside(root, r.Path)
		if errors.Is(err, unix.ELOOP) { // the rules about what may lie where compare paths: a link in the image would make them about others
			return written, &spec.RefusedError{Path: "workspace " + r.Path, Reason: "the image has a symbolic link there"}
		}
		if err != nil {
			return written, fmt.Errorf("open %s in the container: %w", r.Path, err)
		}
		same, err := sameFile(got, s.files[i])
		var below []string
		if err == nil && same && r.Access == spec.Write {
			below, err = writableBelow(r.Source)
		}
		if err == nil && same && r.Access == spec.Write {
			written = append(written, broker.Tree{File: got, Below: below})
		} else {
			got.Close()
		}
		if err != nil {
			return written, err
		}
		if !same {
			return written, &spec.RefusedError{Path: "workspace " + r.Source, Reason: "was replaced while the container was being created"}
		}
	}
	return written, nil
}

// openInside opens (O_PATH) what has a path below a container's root folder that leads through no link.
func openInside(root int, path string) (*os.File, error) {
	fd, err := unix.Openat2(root, path, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// folders returns the host's folders that the container of process pid has, which verify has compared, and its /dev/null.
func (s *sources) folders(pid int) (all []covered, null *os.File, err error) {
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open root of process %d: %w", pid, err)
	}
	defer unix.Close(root)
	for i, r := range s.rules {
		if st, err := s.files[i].Stat(); err != nil || !st.IsDir() {
			continue // a file that is hidden is refused
		}
		f, err := openInside(root, r.Path)
		if err != nil {
			return all, nil, fmt.Errorf("open %s in the container: %w", r.Path, err)
		}
		all = append(all, covered{r.Source, f})
	}
	if null, err = openInside(root, "/dev/null"); err != nil {
		return all, nil, fmt.Errorf("open /dev/null in the container: %w", err)
	}
	return all, null, nil
}

// writableBelow returns the paths, relative to a folder of the host, at which something is mounted that may be written to. What is mounted there read-only is to
// be that for an agent as well.
func writableBelow(folder string) (names []string, err error) {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(folder))
	if err != nil {
		return nil, fmt.Errorf("mounts in %s: %w", folder, err)
	}
	shut := map[string]bool{} // of several in one place one hides the others: all must be such
	for _, m := range mounts {
		if name, ok := strings.CutPrefix(m.Mountpoint, folder+"/"); ok {
			shut[name] = shut[name] || slices.Contains(strings.Split(m.Options, ","), "ro")
		}
	}
	for name, is := range shut {
		if !is {
			names = append(names, name)
		}
	}
	return names, nil
}

func sameFile(a, b *os.File) (bool, error) {
	x, err := a.Stat()
	if err != nil {
		return false, err
	}
	y, err := b.Stat()
	if err != nil {
		return false, err
	}
	return os.SameFile(x, y), nil
}

// Close releases the folders. It may be called twice.
func (s *sources) Close() {
	for _, f := range s.files {
		f.Close()
	}
	if s.root != nil {
		s.root.Close()
	}
	s.files, s.rules, s.root = nil, nil, nil
}
