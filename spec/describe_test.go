package spec_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"cofferdam.dev/cofferdam/spec"
)

func TestDescribeSaysWhoAsked(t *testing.T) {
	s := &specs.Spec{Process: &specs.Process{Cwd: "/", Args: []string{"coder", "-p"}}}
	if sb, err := spec.Describe(s, "default:web-1"); err != nil || sb.Agent != "coder" {
		t.Errorf("got %+v, %v: want the command", sb, err)
	}
	s.Annotations = map[string]string{"io.kubernetes.cri.image-name": "images.test/x/agent:1", spec.AnnotationPolicy: "team-a"}
	if sb, err := spec.Describe(s, "default:web-1"); err != nil || sb.Agent != "images.test/x/agent:1" || sb.Network.Policy != "team-a" {
		t.Errorf("got %+v, %v: want the image, and the policy", sb, err)
	}
	for _, id := range []string{"", ".", "..", "a/b", "-a", "a b", "a\n"} {
		if _, err := spec.Describe(s, id); err == nil {
			t.Errorf("id %q: want an error", id)
		}
	}
}

func TestDescribeFindsTheWorkspace(t *testing.T) {
	bind := func(dest, source string, options ...string) specs.Mount {
		return specs.Mount{Destination: dest, Type: "bind", Source: source, Options: append([]string{"rbind"}, options...)}
	}
	grant := func(path, source string, a spec.Access) []spec.FileRule {
		return []spec.FileRule{{Path: path, Source: source, Access: a}}
	}
	for _, tt := range []struct {
		name, cwd, annotation string
		mounts                []specs.Mount
		want                  []spec.FileRule
		refused               bool
	}{
		{name: "no bind, no workspace", cwd: "/"},
		{name: "a bind at /workspace", cwd: "/", mounts: []specs.Mount{bind("/workspace", "/p")}, want: grant("/workspace", "/p", spec.Write)},
		{name: "a read-only one", cwd: "/", mounts: []specs.Mount{bind("/workspace", "/p", "ro")}, want: grant("/workspace", "/p", spec.Read)},
		{name: "read-only in the recursive form", cwd: "/", mounts: []specs.Mount{bind("/workspace", "/p", "rro")}, want: grant("/workspace", "/p", spec.Read)},
		{name: "a bind that only its options tell", cwd: "/", mounts: []specs.Mount{{Destination: "/workspace", Type: "none", Source: "/p", Options: []string{"bind"}}}, want: grant("/workspace", "/p", spec.Write)},
		{name: "a tmpfs at /workspace is none", cwd: "/workspace", mounts: []specs.Mount{{Destination: "/workspace", Type: "tmpfs"}}},
		{name: "where the process starts", cwd: "/src/a", mounts: []specs.Mount{bind("/src", "/p"), bind("/data", "/d")}, want: grant("/src", "/p", spec.Write)},
		{name: "the deepest of them", cwd: "/src/a/b", mounts: []specs.Mount{bind("/src/a", "/q"), bind("/src", "/p")}, want: grant("/src/a", "/q", spec.Write)},
		{name: "a name that only begins alike is none", cwd: "/srcs", mounts: []specs.Mount{bind("/src", "/p")}},
		{name: "starting at the root is no sign", cwd: "/", mounts: []specs.Mount{bind("/", "/p")}},
		{name: "the engine's shared memory is none", cwd: "/dev/shm", mounts: []specs.Mount{bind("/dev/shm", "/run/shm")}},
		{name: "the engine's hosts file is none", cwd: "/etc/hosts", mounts: []specs.Mount{bind("/etc/hosts", "/x/hosts")}},
		{name: "/workspace wins over where the process starts", cwd: "/src", mounts: []specs.Mount{bind("/src", "/q"), bind("/workspace", "/p")}, want: grant("/workspace", "/p", spec.Write)},
		{name: "the annotation wins over both", cwd: "/src", annotation: "/data", mounts: []specs.Mount{bind("/src", "/q"), bind("/data", "/d")}, want: grant("/data", "/d", spec.Write)},
		{name: "an annotation without its bind is refused", cwd: "/src", annotation: "/data", mounts: []specs.Mount{bind("/src", "/q")}, refused: true},
		{name: "of two binds at one place the last", cwd: "/", mounts: []specs.Mount{bind("/workspace", "/a"), bind("/workspace", "/b")}, want: grant("/workspace", "/b", spec.Write)},
		{name: "a relative source is refused", cwd: "/", mounts: []specs.Mount{bind("/workspace", "a")}, refused: true},
	} {
		s := &specs.Spec{Process: &specs.Process{Cwd: tt.cwd, Args: []string{"coder"}}, Mounts: tt.mounts}
		if tt.annotation != "" {
			s.Annotations = map[string]string{spec.AnnotationWorkspace: tt.annotation}
		}
		sb, err := spec.Describe(s, "x")
		if (err != nil) != tt.refused {
			t.Errorf("%s: error %v", tt.name, err)
			continue
		}
		if diff := cmp.Diff(tt.want, sb.Files); diff != "" && !tt.refused {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		if err == nil && (sb.Agent != "coder" || sb.Network.Mode != spec.Proxied || sb.Limits != spec.Limits{}) {
			t.Errorf("%s: %+v", tt.name, sb)
		}
	}
}
