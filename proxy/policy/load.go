//go:build unix

package policy

import (
	"fmt"
	"io"
	"os"
	"syscall"
)

// Load reads and parses a policy file, see [Read] and [Parse].
func Load(path string) (*Policy, error) {
	data, err := Read(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, data)
}

// Read reads a policy file. A file that somebody else could have written is
// refused: it must belong to root or to the caller, and be writable by its owner
// only. The file that is checked is the one that is read.
func Read(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO must not block us
	if err != nil {
		return nil, fmt.Errorf("load policy: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("load policy: %w", err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular() || !ok:
		return nil, fmt.Errorf("load policy %s: not a regular file", path)
	case stat.Uid != 0 && int64(stat.Uid) != int64(os.Geteuid()):
		return nil, fmt.Errorf("load policy %s: owned by uid %d, neither root nor the caller: chown %d %s is missing",
			path, stat.Uid, os.Geteuid(), path)
	case info.Mode().Perm()&0o022 != 0:
		return nil, fmt.Errorf("load policy %s: writable by group or others (mode %#o): chmod go-w %s is missing",
			path, info.Mode().Perm(), path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1)) // one byte more than Parse accepts
	if err != nil {
		return nil, fmt.Errorf("load policy: %w", err)
	}
	return data, nil
}
