package broker

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestWhatIsLeftToTheKernel is about descriptors that a caller got from the broker, and others.
func TestWhatIsLeftToTheKernel(t *testing.T) {
	b, dir := desk(t)
	write(t, filepath.Join(dir, "file"), "text")
	open := func(name string) uint64 {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return uint64(f.Fd())
	}
	given, folder, elsewhere := open(filepath.Join(dir, "file")), open(dir), open("/proc/self/status")
	var st unix.Statx_t
	if err := unix.Statx(int(given), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil {
		t.Fatal(err)
	}
	b.mounts = map[uint64]bool{st.Mnt_id: true}
	for _, row := range []struct {
		name   string
		number int
		args   [6]uint64
		want   bool
	}{
		{"a mode", unix.SYS_FCHMOD, [6]uint64{given, 0o644}, true},
		{"an executable file's", unix.SYS_FCHMOD, [6]uint64{given, 0o744}, false},
		{"a set-user-ID file's", unix.SYS_FCHMOD, [6]uint64{given, 0o4644}, false},
		{"an owner", unix.SYS_FCHOWN, [6]uint64{given, 1, 1}, true},
		{"times", unix.SYS_UTIMENSAT, [6]uint64{given}, true},
		{"times of what lies in a folder", unix.SYS_UTIMENSAT, [6]uint64{folder, 1}, false},
		{"an attribute", unix.SYS_FSETXATTR, [6]uint64{given}, true},
		{"no attribute", unix.SYS_FREMOVEXATTR, [6]uint64{given}, true},
		{"a folder", unix.SYS_FCHOWN, [6]uint64{folder}, false},
		{"another mount's", unix.SYS_FCHOWN, [6]uint64{elsewhere}, false},
		{"none", unix.SYS_FCHOWN, [6]uint64{1 << 20}, false},
		{"a negative one", unix.SYS_FCHOWN, [6]uint64{^uint64(0)}, false},
		{"another call", unix.SYS_UNLINKAT, [6]uint64{given}, false},
	} {
		r := b.request(t)
		r.callers[r.caller.thread%uint32(len(r.callers))] = r.caller
		n := notification{pid: r.caller.thread, number: int32(row.number), args: row.args}
		if got := r.worker.given(&n); got != row.want {
			t.Errorf("%s: %v", row.name, got)
		}
	}
}
