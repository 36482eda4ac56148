package sandbox

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"cofferdam.dev/cofferdam/shim/workspace/broker"
)

func TestWorkspacesAreShared(t *testing.T) {
	top, dir := t.TempDir(), filepath.Join(t.TempDir(), "shared")
	open := func(names ...string) (trees []broker.Tree) {
		for _, name := range names {
			if err := os.MkdirAll(filepath.Join(top, name), 0o755); err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(filepath.Join(top, name))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
			trees = append(trees, broker.Tree{File: f})
		}
		return trees
	}
	share := func(trees []broker.Tree) []*os.File {
		files, err := shareTrees(dir, trees)
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	there := func(want int) {
		t.Helper()
		if found, _ := filepath.Glob(filepath.Join(dir, "*")); len(found) != want {
			t.Errorf("%d files, want %d", len(found), want)
		}
	}
	trees := open("a", "b")
	first, second := share(trees), share(open("b", "a"))
	for i := range first {
		a, aerr := first[i].Stat()
		b, berr := second[i].Stat()
		if aerr != nil || berr != nil || !os.SameFile(a, b) {
			t.Errorf("the %d. files differ: %v, %v", i+1, aerr, berr)
		}
	}
	for _, f := range first {
		// One with a hole would need room when it is written to, by a process that could not be told.
		if st, err := f.Stat(); err != nil || st.Size() != broker.SharedSize || st.Sys().(*syscall.Stat_t).Blocks*512 < broker.SharedSize {
			t.Errorf("%s: %+v, %v", f.Name(), st.Sys(), err)
		}
	}
	if names := [2]string{filepath.Base(first[0].Name()), filepath.Base(first[1].Name())}; names[0] == names[1] {
		t.Error("two workspaces have one file")
	}
	there(2)
	if err := unshareTrees(dir, first); err != nil {
		t.Fatal(err)
	}
	there(2) // the other one has them still
	for _, f := range second {
		f.Close() // as if it had been killed
	}
	there(2)
	third := share(open("c"))
	there(1)
	if err := unshareTrees(dir, third); err != nil {
		t.Fatal(err)
	}
	there(0)
}
