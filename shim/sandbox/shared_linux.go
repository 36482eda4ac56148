package sandbox

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/shim/workspace/broker"
)

// shareTrees opens, for each workspace, the file by which the brokers of all sandboxes with this workspace take turns, and puts the workspaces
// in an order that is the same for all. A file is there as long as somebody has it open; those of a sandbox that was killed go with the next one.
// Sandboxes of different users, or of one workspace within another, share none.
func shareTrees(dir string, trees []broker.Tree) (files []*os.File, err error) {
	release, err := lockShared(dir)
	if err != nil {
		return nil, err
	}
	defer release()
	sweepUnused(dir)
	defer func() {
		if err != nil {
			for _, f := range files {
				f.Close()
			}
		}
	}()
	type place struct{ dev, ino uint64 }
	places := map[*os.File]place{}
	for _, t := range trees {
		var st unix.Stat_t
		if err := unix.Fstat(int(t.Fd()), &st); err != nil {
			return nil, os.NewSyscallError("fstat", err)
		}
		places[t.File] = place{st.Dev, st.Ino}
	}
	slices.SortFunc(trees, func(a, b broker.Tree) int {
		return cmp.Or(cmp.Compare(places[a.File].dev, places[b.File].dev), cmp.Compare(places[a.File].ino, places[b.File].ino))
	})
	for _, t := range trees {
		p := places[t.File]
		f, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("%x-%x", p.dev, p.ino)), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return files, err
		}
		files = append(files, f)
		// Not by truncate(2): it is mapped, and who writes to a page for which there is no room any more is killed (SIGBUS).
		st, err := f.Stat()
		if err != nil {
			return files, err
		}
		if missing := broker.SharedSize - st.Size(); missing > 0 { // then nobody has it
			if _, err := f.WriteAt(make([]byte, missing), st.Size()); err != nil {
				return files, err
			}
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
			return files, os.NewSyscallError("flock", err)
		}
	}
	return files, nil
}

// unshareTrees closes them, and removes those that nobody else has.
func unshareTrees(dir string, files []*os.File) error {
	for _, f := range files {
		f.Close()
	}
	return sweepShared(dir)
}

// sweepShared removes the files that nobody has.
func sweepShared(dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	release, err := lockShared(dir)
	if err != nil {
		return err
	}
	defer release()
	sweepUnused(dir)
	return nil
}

// lockShared keeps others from opening or removing such files.
func lockShared(dir string) (release func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		lock.Close()
		return nil, os.NewSyscallError("flock", err)
	}
	return func() { lock.Close() }, nil
}

// sweepUnused is sweepShared for who has the lock.
func sweepUnused(dir string) {
	found, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, path := range found {
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = os.Remove(path)
		}
		f.Close()
	}
}
