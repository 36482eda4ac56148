//go:build unix

package policy

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
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
// refused: it must belong to root, to the caller or to one of owners, and be
// writable by its owner only. The file that is checked is the one that is read.
func Read(path string, owners ...uint32) ([]byte, error) {
	return read(path, 0, maxFile, func(info os.FileInfo, uid uint32) error {
		switch {
		case uid != 0 && int64(uid) != int64(os.Geteuid()) && !slices.Contains(owners, uid):
			return fmt.Errorf("owned by uid %d, neither root nor the caller: chown %d %s is missing", uid, os.Geteuid(), path)
		case info.Mode().Perm()&0o022 != 0:
			return fmt.Errorf("writable by group or others (mode %#o): chmod go-w %s is missing", info.Mode().Perm(), path)
		}
		return nil
	})
}

// maxProject bounds the policy of a project.
const maxProject = 1 << 20

// ReadProject reads the policy of a project. Anybody may have written it, an agent
// too, so that it is worth what [Project] is; but it is a file, and no link to
// one.
func ReadProject(path string) ([]byte, error) {
	data, err := read(path, syscall.O_NOFOLLOW, maxProject, func(os.FileInfo, uint32) error { return nil })
	if errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("load policy %s: a symbolic link", path)
	}
	if err == nil && len(data) > maxProject {
		return nil, fmt.Errorf("load policy %s: larger than %d bytes", path, maxProject)
	}
	return data, err
}

// read reads at most one byte more than most of a regular file.
func read(path string, flags int, most int64, check func(info os.FileInfo, uid uint32) error) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|flags, 0) // a FIFO must not block us
	if err != nil {
		return nil, fmt.Errorf("load policy: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("load policy: %w", err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !info.Mode().IsRegular() || !ok {
		return nil, fmt.Errorf("load policy %s: not a regular file", path)
	}
	if err := check(info, stat.Uid); err != nil {
		return nil, fmt.Errorf("load policy %s: %w", path, err)
	}
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, fmt.Errorf("load policy: %w", err)
	}
	return data, nil
}
