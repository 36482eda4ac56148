package broker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAnAccessControlListHasOurIDs has a caller whose user namespace calls our root 1000, and our 100000 its root.
func TestAnAccessControlListHasOurIDs(t *testing.T) {
	b, dir := desk(t)
	write(t, filepath.Join(dir, "uid_map"), "         0     100000       1000\n      1000          0          1\n")
	write(t, filepath.Join(dir, "gid_map"), "         5         50          1\n")
	r := b.request(t)
	caller, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(caller)
	r.caller.dir = caller
	type entry struct {
		tag, perm uint16
		id        uint32
	}
	list := func(entries ...entry) []byte {
		var b bytes.Buffer
		if err := errors.Join(binary.Write(&b, binary.LittleEndian, uint32(2)), binary.Write(&b, binary.LittleEndian, entries)); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	const none = 1<<32 - 1
	got := list(entry{1, 7, none}, entry{2, 6, 1000}, entry{2, 6, 7}, entry{4, 5, none}, entry{8, 4, 5}, entry{16, 7, none}, entry{32, 0, none})
	want := list(entry{1, 7, none}, entry{2, 6, 0}, entry{2, 6, 100007}, entry{4, 5, none}, entry{8, 4, 50}, entry{16, 7, none}, entry{32, 0, none})
	if err := r.ownList(got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("% x, %v, want % x", got, err, want)
	}
	if err := r.ownList(list(entry{8, 4, 6})); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a group that is none: %v", err)
	}
	short := []byte{2, 0, 0, 0, 2, 0}
	if err := r.ownList(short); err != nil {
		t.Error(err)
	}
}
