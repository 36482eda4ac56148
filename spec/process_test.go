package spec_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"cofferdam.dev/cofferdam/spec"
)

// An exec brings its own process: it gets nothing that the container's first one does not.
func TestRewriteProcess(t *testing.T) {
	every := []string{"CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_CHOWN"}
	in := &specs.Process{
		Cwd: "/workspace", Args: []string{"sh"}, Env: []string{"A=1", "B=2"}, ApparmorProfile: "unconfined", OOMScoreAdj: ptr(-1000),
		Capabilities: &specs.LinuxCapabilities{Bounding: every, Effective: every, Permitted: every, Inheritable: every, Ambient: every},
	}
	before := *in
	sb := spec.Sandbox{Env: []string{"B=3"}}
	got, changes, err := spec.RewriteProcess(in, sb)
	if err != nil {
		t.Fatal(err)
	}
	own := []string{"CAP_CHOWN"}
	want := &specs.Process{
		Cwd: "/workspace", Args: []string{"sh"}, Env: []string{"A=1", "B=3"}, OOMScoreAdj: ptr(0), NoNewPrivileges: true,
		Capabilities: &specs.LinuxCapabilities{Bounding: own, Effective: own, Permitted: own},
		Rlimits:      []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Soft: 1, Hard: 1}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(changes) == 0 || slices.ContainsFunc(changes, func(c spec.Change) bool { return c.Rule != "process" }) {
		t.Errorf("changes %v", changes)
	}
	if !cmp.Equal(&before, in) {
		t.Error("the argument was changed")
	}
	if _, more, err := spec.RewriteProcess(got, sb); err != nil || len(more) > 0 {
		t.Errorf("not idempotent: %v %v", more, err)
	}
}

func TestRewriteProcessRefuses(t *testing.T) {
	for _, tt := range []struct{ name, cwd string }{
		{"no working directory", ""},
		{"a relative one", "src"},
		{"a descriptor of the runtime", "/proc/self/fd/7"},
		{"a descriptor of the runtime by a detour", "/x/../proc/self/fd/7"},
		{"a way upwards", "/workspace/.."},
	} {
		_, _, err := spec.RewriteProcess(&specs.Process{Cwd: tt.cwd}, spec.Sandbox{})
		var r *spec.RefusedError
		if !errors.As(err, &r) {
			t.Errorf("%s: error %v, want it refused", tt.name, err)
		}
	}
	if _, _, err := spec.RewriteProcess(nil, spec.Sandbox{}); err == nil {
		t.Error("no process: want an error")
	}
}
