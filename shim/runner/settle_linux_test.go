package runner

import (
	"bufio"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCleanParts(t *testing.T) {
	const smaps = `00400000-00401000 r--p 00000000 fe:00 851974                             /a b
Size:                  4 kB
Anonymous:             0 kB
00401000-0095b000 r-xp 00001000 fe:00 851974                             /a b
Anonymous:             0 kB
VmFlags: rd ex mr mw me dw sd
0095b000-0095c000 r--p 0055b000 fe:00 851974                             /a b
Anonymous:             4 kB
0095c000-00eff000 rw-p 00a83000 fe:00 851974                             /a b
Anonymous:             0 kB
00eff000-02f48000 r--p 00000000 00:00 0
Anonymous:             0 kB
02f48000-02f49000 r--p 00000000 fe:00 851975                             /a
Anonymous:             0 kB
ff708000000-ff708400000 r--p 00000000 00:00 0                            [heap]
Anonymous:             0 kB
`
	got := cleanParts(bufio.NewScanner(strings.NewReader(smaps)), "/a b")
	if diff := cmp.Diff([][2]uintptr{{0x400000, 0x401000}, {0x401000, 0x95b000}}, got); diff != "" {
		t.Error(diff)
	}
}

// TestSettle goes on after its program was given back.
func TestSettle(t *testing.T) {
	resident := func() (kib string) {
		text, err := os.ReadFile("/proc/self/smaps_rollup")
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(text), "\nRss:")
		return strings.Fields(rest)[0]
	}
	before := resident()
	settle()
	if after := resident(); len(after) > len(before) || len(after) == len(before) && after >= before {
		t.Errorf("%s KiB are resident, and were %s", after, before)
	}
}
