package gitconfig

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write testdata/documented.txt anew, from the keys that it names")

// TestDocumented holds the rows against the keys that git documents (git-config(1) and what it includes, of 2.39, with later ones added): somebody
// has decided about each, and a row of a key that git does not have is a mistake.
func TestDocumented(t *testing.T) {
	const file = "testdata/documented.txt"
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	seen := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		key, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
		seen[key] = true
		e := entry{name: key}
		row, ok := lookup(e)
		switch why := refusedWhy(e); {
		case ok && row.why == "":
			t.Errorf("%s: allowed without a reason", key)
		case ok:
			fmt.Fprintf(&got, "%s\tallowed: %s\n", key, row.why)
		case why == "":
			t.Errorf("%s: nobody has decided about it", key)
			fmt.Fprintln(&got, key)
		default:
			fmt.Fprintf(&got, "%s\trefused: %s\n", key, why)
		}
	}
	for key := range rows() {
		if !seen[key] {
			t.Errorf("%s: a row, and not a documented key", key)
		}
	}
	if *update {
		if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(b), got.String()); diff != "" {
		t.Errorf("go test -update writes the file anew (-file +now):\n%s", diff)
	}
}

// TestRowsOnce demands that no key is in two rows: the latter would win silently.
func TestRowsOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range allowed {
		if r.kind == none {
			t.Errorf("%s: allows no value", r.keys)
		}
		for key := range strings.FieldsSeq(r.keys) {
			if seen[key] || key != strings.ToLower(key) {
				t.Errorf("%s: twice, or not in lower case", key)
			}
			seen[key] = true
		}
	}
}
