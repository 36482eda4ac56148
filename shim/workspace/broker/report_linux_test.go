package broker

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"cofferdam.dev/cofferdam/shim/workspace"
)

// TestAReportCanAlwaysBeTold fills one with the longest names that an agent can choose.
func TestAReportCanAlwaysBeTold(t *testing.T) {
	r := newRecorder()
	for i := range 2 * maxListed {
		name := fmt.Sprintf("%03d", i) + strings.Repeat("\x01", 4090)
		r.refused(name, workspace.Verdict{Pattern: ".envrc", Reason: strings.Repeat("r", 200)})
		r.refused(name, workspace.Verdict{Pattern: ".envrc"})
		r.executable(name)
	}
	got := r.read()
	if len(got.Refused) != maxListed || len(got.Executables) != maxListed || got.More == 0 || got.Refused[0].Times != 2 {
		t.Errorf("%d refused, %d executables, %d more", len(got.Refused), len(got.Executables), got.More)
	}
	if b, err := json.Marshal(got); err != nil || len(b) >= maxReply {
		t.Errorf("%d bytes of %d, %v", len(b), maxReply, err)
	}
}

// TestChangedPathsAreCountedOnce, whatever is done to them.
func TestChangedPathsAreCountedOnce(t *testing.T) {
	r := newRecorder()
	for range 3 {
		r.changed("a")
		r.changed("b")
		r.removed("a")
	}
	if got := r.read(); got.Changed != 2 || got.Removed != 1 {
		t.Errorf("%+v", got)
	}
}
