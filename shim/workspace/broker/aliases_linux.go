package broker

import (
	"errors"
	"path"
	"sync"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/shim/workspace"
)

// aliases are the protected files that have further names: by one of those they could be written. An agent cannot give them any; they are
// those that were there before, and are looked for once a file with several names is to be changed.
type aliases struct {
	once  sync.Once
	trees []*tree
	found map[inode]workspace.Verdict
	err   error
}

type inode struct{ dev, ino uint64 }

func (a *aliases) find(o object) (workspace.Verdict, bool) {
	a.once.Do(a.scan)
	if a.err != nil { // it cannot be known
		return workspace.Verdict{Kind: workspace.Protected, Pattern: "a file with several names", Reason: "looking for the others failed: " + a.err.Error()}, true
	}
	v, ok := a.found[inode{o.Dev, o.Ino}]
	return v, ok
}

func (a *aliases) scan() {
	a.found = map[inode]workspace.Verdict{}
	for _, t := range a.trees {
		left := maxWalk
		a.err = walkFolder(t.fd, ".", "", &left, func(below string, file bool) error {
			if !file {
				return nil
			}
			v := t.verdict(below)
			if v.Kind == workspace.Free {
				return nil
			}
			var st unix.Stat_t
			if err := unix.Fstatat(t.fd, below, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				if errors.Is(err, unix.ENOENT) {
					return nil
				}
				return err
			}
			if st.Nlink > 1 {
				v.Reason += " (as " + path.Join(t.at, below) + ", which is the same file)"
				a.found[inode{st.Dev, st.Ino}] = v
			}
			return nil
		})
		if a.err != nil {
			return
		}
	}
}
