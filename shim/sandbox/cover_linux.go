package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/containerd/log"
	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/shim/workspace"
)

// A cover hides what comes to have a hidden name while the sandbox runs: somebody has made it, or replaced what had the name, and with that the mount that lay
// over it is gone. It is seen for the moment until its folder's watcher is told, and for good by who has opened it by then.
//
// Nothing tells beforehand of a read by a name. Programs open files so often that asking about each, as about writes, would be dear, and would have to
// come with the opened file as the answer, or the name could be another one a moment later.
type cover struct {
	judge   *workspace.Judge
	watcher *fsnotify.Watcher
	folders []covered
	null    *os.File // /dev/null in the sandbox
	watched int
	full    bool // no more is watched
	hide    chan hidden
}

// A covered folder is one of the host's that the sandbox has.
type covered struct {
	source string
	inside *os.File // the same in the sandbox (O_PATH)
}

// A hidden name is relative to a folder.
type hidden struct {
	covered
	name string
}

// maxWatched bounds the folders that are watched for one sandbox (inotify(7), max_user_watches).
const maxWatched = 1 << 14

// keepHidden begins to cover, before the container of process pid is started. It goes on until the sandbox is closed.
func (s *Sandbox) keepHidden(ctx context.Context, pid int) (err error) {
	rules := workspace.Rules(s.Spec.Workspace)
	if len(rules.Hidden) == 0 {
		return nil
	}
	ctx = log.WithLogger(context.WithoutCancel(ctx), log.G(ctx).WithField("sandbox", s.ID))
	c := &cover{hide: make(chan hidden)}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if c.judge, err = workspace.NewJudge(rules); err != nil {
		return err
	}
	if c.folders, c.null, err = s.sources.folders(pid); err != nil {
		return err
	}
	mounts, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err != nil {
		return err
	}
	defer mounts.Close()
	if c.watcher, err = fsnotify.NewWatcher(); err != nil {
		return fmt.Errorf("watch for hidden files: %w", err)
	}
	entered := make(chan error)
	go c.mount(ctx, mounts, entered) // ends with hide
	if err := <-entered; err != nil {
		return fmt.Errorf("watch for hidden files: %w", err)
	}
	done := make(chan struct{})
	go func() { // ends with the watcher
		defer close(done)
		c.watch(ctx)
		close(c.hide)
	}()
	return s.undo.add("watcher for hidden files", func() error {
		err := c.watcher.Close()
		<-done
		c.close()
		return err
	})
}

func (c *cover) close() {
	for _, f := range c.folders {
		f.inside.Close()
	}
	c.null.Close() // may be nil
	if c.watcher != nil {
		_ = c.watcher.Close()
	}
}

// watch looks for hidden names until the watcher is closed. All is looked through at first, since something may have come before it was watched, and when
// events were lost.
func (c *cover) watch(ctx context.Context) {
	all := func() {
		for _, f := range c.folders {
			c.look(ctx, f, f.source)
		}
	}
	all()
	for {
		select {
		case e, ok := <-c.watcher.Events:
			if !ok {
				return
			}
			if e.Op&fsnotify.Create == 0 {
				continue
			}
			for _, f := range c.folders {
				if strings.HasPrefix(e.Name, f.source+"/") {
					c.look(ctx, f, e.Name)
				}
			}
		case err, ok := <-c.watcher.Errors:
			if !ok {
				return
			}
			log.G(ctx).WithError(err).Error("watch for hidden files")
			if errors.Is(err, fsnotify.ErrEventOverflow) {
				all()
			}
		}
	}
}

// look covers what is hidden at a path of the host and below, and watches the folders. A folder is watched before it is read.
func (c *cover) look(ctx context.Context, f covered, at string) {
	noGit := func(string) bool { return false }
	_ = filepath.WalkDir(at, func(at string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // it is gone again, or the agent cannot look either
		}
		name, err := filepath.Rel(f.source, at)
		if err != nil {
			return nil
		}
		if name != "." && c.judge.Judge(name, noGit).Kind == workspace.Hidden {
			c.hide <- hidden{f, name}
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if e.IsDir() && !c.full {
			if c.watched++; c.watched > maxWatched {
				c.watched = len(c.watcher.WatchList()) // many may be gone
			}
			if c.watched > maxWatched {
				err = fmt.Errorf("more than %d folders", maxWatched)
			} else {
				err = c.watcher.Add(at)
			}
			switch {
			case errors.Is(err, fsnotify.ErrClosed):
				return fs.SkipAll
			case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
			case err != nil:
				c.full = true
				log.G(ctx).WithError(err).WithField("path", at).Warn("hidden files that are made from here on can be seen")
			}
		}
		return nil
	})
}

// mount covers what it is told to, on a thread in the sandbox's mount namespace, which ends with it.
func (c *cover) mount(ctx context.Context, mounts *os.File, entered chan<- error) {
	runtime.LockOSThread()
	err := unix.Unshare(unix.CLONE_FS)
	if err == nil {
		err = unix.Setns(int(mounts.Fd()), unix.CLONE_NEWNS)
	}
	entered <- err
	if err != nil {
		return
	}
	for h := range c.hide {
		switch covered, err := c.over(h); {
		case errors.Is(err, unix.ENOENT): // it is gone again
		case err != nil:
			log.G(ctx).WithError(err).WithField("path", path.Join(h.source, h.name)).Error("a hidden file can be seen")
		case covered:
			log.G(ctx).WithField("path", path.Join(h.source, h.name)).Info("covered a hidden file that came")
		}
	}
}

// over mounts something empty over a name, unless there is a mount.
func (c *cover) over(h hidden) (bool, error) {
	at, err := unix.Openat2(int(h.inside.Fd()), h.name, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if errors.Is(err, unix.ELOOP) { // what a link leads to has a name of its own
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer unix.Close(at)
	var st unix.Statx_t
	if err := unix.Statx(at, "", unix.AT_EMPTY_PATH, unix.STATX_TYPE, &st); err != nil {
		return false, err
	}
	if st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return false, nil
	}
	var empty int
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		return false, nil
	case unix.S_IFDIR:
		empty, err = emptyFolder()
	default:
		empty, err = unix.OpenTree(int(c.null.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	}
	if err != nil {
		return false, err
	}
	defer unix.Close(empty)
	return true, unix.MoveMount(empty, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// emptyFolder makes a mount of one that stays empty.
func emptyFolder() (int, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
}
