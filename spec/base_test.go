package spec_test

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"

	"cofferdam.dev/cofferdam/spec"
)

// testdata/base.json is the result of a rewrite, so that the cases of single rules show that rule alone.
func TestBaseIsFixedPoint(t *testing.T) {
	b, err := os.ReadFile("testdata/base.json")
	if err != nil {
		t.Fatal(err)
	}
	s, err := spec.Decode(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	out, changes, err := spec.Rewrite(s, spec.Sandbox{ID: "default:web-1"}, testHost())
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		b, _ := json.MarshalIndent(out, "", "  ")
		if err := os.WriteFile("testdata/base.json", append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if len(changes) > 0 {
		t.Errorf("changes: %v", changes)
	}
}
