package conformance

import (
	"flag"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write CONFORMANCE.md")

func TestEveryNeedSaysWhatItIs(t *testing.T) {
	seen := map[string]bool{}
	for _, n := range All() {
		if err := n.check(); err != nil {
			t.Error(err)
		}
		if seen[n.ID] {
			t.Errorf("need %s: there are two", n.ID)
		}
		seen[n.ID] = true
		family, _, _ := strings.Cut(n.ID, ".")
		if !slices.ContainsFunc(families, func(f struct{ name, title string }) bool { return f.name == family }) {
			t.Errorf("need %s: the document has no such family", n.ID)
		}
	}
}

func TestTheDocumentIsMadeOfTheTable(t *testing.T) {
	const file = "../../CONFORMANCE.md"
	if *update {
		if err := os.WriteFile(file, []byte(Document()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != Document() {
		t.Errorf("CONFORMANCE.md is not what the table says: go test ./integration/conformance -update (%v)", err)
	}
}
