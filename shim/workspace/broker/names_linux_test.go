package broker

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestBrokersTakeTurns has two brokers of one workspace, and then two of different ones.
func TestBrokersTakeTurns(t *testing.T) {
	dir := t.TempDir()
	open := func(name string) *names {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		var n names
		if err := f.Truncate(SharedSize); err != nil {
			t.Fatal(err)
		}
		if err := n.share(int(f.Fd())); err != nil {
			t.Fatal(err)
		}
		return &n
	}
	for _, same := range []bool{true, false} {
		a, b := open("a"), open("b")
		if same {
			b = open("a")
		}
		for _, alone := range [][2]bool{{true, true}, {true, false}, {false, true}, {false, false}} {
			before := b.moves()
			release, err := a.hold(alone[0])
			if err != nil {
				t.Fatal(err)
			}
			if alone[0] {
				a.moved()
			}
			if got := b.moves() != before; got != (same && alone[0]) {
				t.Errorf("same %v, alone %v: the other one sees that a name has moved: %v", same, alone, got)
			}
			held := make(chan func())
			go func() {
				release, err := b.hold(alone[1])
				if err != nil {
					t.Error(err)
				}
				held <- release
			}()
			if same && (alone[0] || alone[1]) {
				select {
				case <-held:
					t.Fatalf("alone %v: both hold the names", alone)
				case <-time.After(20 * time.Millisecond):
				}
				release()
				(<-held)()
				continue
			}
			(<-held)()
			release()
		}
	}
}
