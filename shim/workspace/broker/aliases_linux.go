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
	found map[inode]alias
	err   error
}

type inode struct{ dev, ino uint64 }

func inodeOf(st unix.Stat_t) inode { return inode{st.Dev, st.Ino} }

type alias struct {
	workspace.Verdict
	tree *tree
	name string
}

// find is called as whom the process itself is: whoever first asks may not see all.
func (a *aliases) find(o object) (workspace.Verdict, bool) {
	a.once.Do(a.scan)
	if a.err != nil { // it cannot be known
		return workspace.Verdict{Kind: workspace.Protected, Pattern: "a file with several names", Reason: "looking for the others failed: " + a.err.Error()}, true
	}
	v, ok := a.found[inodeOf(o.Stat_t)]
	if !ok {
		return workspace.Verdict{}, false
	}
	var st unix.Stat_t // a number is used again once its file is gone
	err := unix.Fstatat(v.tree.fd, v.name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return v.Verdict, err == nil && inodeOf(st) == inodeOf(o.Stat_t)
}

func (a *aliases) scan() {
	a.found = map[inode]alias{}
	for _, t := range a.trees {
		a.err = walkFolder(t.fd, ".", func(below string, what uint32) error {
			if what != unix.S_IFREG {
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
			// Also one that has no other name left: a call may wait that was looked up by one.
			v.Reason += " (as " + path.Join(t.at, below) + ", which is the same file)"
			a.found[inodeOf(st)] = alias{v, t, below}
			return nil
		})
		if a.err != nil {
			return
		}
	}
}
