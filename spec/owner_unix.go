//go:build unix

package spec

import (
	"os"
	"syscall"
)

// copyOwner gives f the owner and group of old.
func copyOwner(f *os.File, old os.FileInfo) error {
	st := old.Sys().(*syscall.Stat_t)
	return f.Chown(int(st.Uid), int(st.Gid))
}
