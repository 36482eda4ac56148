package spec_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/rogpeppe/go-internal/txtar"

	"cofferdam.dev/cofferdam/spec"
)

var update = flag.Bool("update", false, "rewrite testdata/rewrite/*.txtar")

// testHost is the machine that all goldens are written for.
func testHost() spec.Host {
	return spec.Host{
		Bundle:     "/run/containerd/io.containerd.runtime.v2.task/default/web-1",
		ResolvConf: "/run/cofferdam/default:web-1/resolv.conf",
		Protected:  append(spec.DefaultProtected(), "/home/u"),
		Trees:      append(spec.DefaultTrees(), "/home/u/.ssh"),
		EngineDirs: []string{
			"/var/lib/nerdctl", "/var/lib/docker/containers", "/var/lib/kubelet/pods",
			"/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes",
		},
		Arch: "amd64",
	}
}

// golden is one case: testdata/rewrite/NAME.txtar. Its comment says what it shows, and may end in a line "show: a b.c" with
// the parts of the result to print (all of it without one). Files: config.json, or patch.json, a JSON merge patch (RFC 7396)
// of testdata/base.json, which Rewrite leaves as it is; sandbox.json in place of what Describe finds. Out come
// sandbox, want.json and changes, or error.
type golden struct {
	path    string
	archive *txtar.Archive
}

func goldens(t testing.TB) []golden {
	paths, err := filepath.Glob("testdata/rewrite/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no goldens: %v", err)
	}
	var gs []golden
	for _, p := range paths {
		a, err := txtar.ParseFile(p)
		if err != nil {
			t.Fatal(err)
		}
		gs = append(gs, golden{p, a})
	}
	return gs
}

func (g golden) file(name string) []byte {
	for _, f := range g.archive.Files {
		if f.Name == name {
			return f.Data
		}
	}
	return nil
}

func (g golden) config(t testing.TB) []byte {
	if c := g.file("config.json"); c != nil {
		return c
	}
	base, err := os.ReadFile("testdata/base.json")
	if err != nil {
		t.Fatal(err)
	}
	var b, p any
	if err := json.Unmarshal(base, &b); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(g.file("patch.json"), &p); err != nil {
		t.Fatalf("%s: patch.json: %v", g.path, err)
	}
	out, err := json.Marshal(mergePatch(b, p))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func mergePatch(target, patch any) any {
	p, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	t, ok := target.(map[string]any)
	if !ok {
		t = map[string]any{}
	}
	for k, v := range p {
		if v == nil {
			delete(t, k)
		} else {
			t[k] = mergePatch(t[k], v)
		}
	}
	return t
}

// input returns what Rewrite is to be called with.
func (g golden) input(t testing.TB) (*specs.Spec, spec.Sandbox, error) {
	s, err := spec.Decode(bytes.NewReader(g.config(t)))
	if err != nil {
		return nil, spec.Sandbox{}, err
	}
	sb, err := spec.Describe(s, "default:web-1")
	if own := g.file("sandbox.json"); own != nil {
		sb, err = spec.Sandbox{}, nil
		d := json.NewDecoder(bytes.NewReader(own))
		d.DisallowUnknownFields()
		if err := d.Decode(&sb); err != nil {
			t.Fatalf("%s: sandbox.json: %v", g.path, err)
		}
	}
	return s, sb, err
}

func (g golden) run(t testing.TB) []txtar.File {
	fail := func(err error) []txtar.File {
		return []txtar.File{{Name: "error", Data: []byte(err.Error() + "\n")}}
	}
	s, sb, err := g.input(t)
	if err != nil {
		return fail(err)
	}
	out, changes, err := spec.Rewrite(s, sb, testHost())
	if err != nil {
		return fail(err)
	}
	var files []txtar.File
	if g.file("sandbox.json") == nil {
		files = append(files, txtar.File{Name: "sandbox", Data: fmt.Appendf(nil, "%+v\n", sb)})
	}
	var text strings.Builder
	for _, c := range changes {
		fmt.Fprintln(&text, c)
	}
	return append(files,
		txtar.File{Name: "changes", Data: []byte(text.String())},
		txtar.File{Name: "want.json", Data: g.show(t, out)})
}

func (g golden) show(t testing.TB, out *specs.Spec) []byte {
	_, list, ok := strings.Cut(string(g.archive.Comment), "show: ")
	if !ok { // all of it, but for the hundreds of names that rule-seccomp shows
		all, linux := *out, *out.Linux
		linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: out.Linux.Seccomp.DefaultAction, Architectures: out.Linux.Seccomp.Architectures}
		all.Linux = &linux
		out = &all
	}
	b, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if !ok {
		return append(b, '\n')
	}
	var all any
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	picked := map[string]any{}
	for _, name := range strings.Fields(list) {
		v := all
		for _, key := range strings.Split(name, ".") {
			m, _ := v.(map[string]any)
			v = m[key]
		}
		picked[name] = v
	}
	if b, err = json.MarshalIndent(picked, "", "  "); err != nil {
		t.Fatal(err)
	}
	return append(b, '\n')
}

func TestGolden(t *testing.T) {
	inputs := []string{"config.json", "patch.json", "sandbox.json"}
	for _, g := range goldens(t) {
		t.Run(strings.TrimSuffix(filepath.Base(g.path), ".txtar"), func(t *testing.T) {
			got := &txtar.Archive{Comment: g.archive.Comment}
			for _, f := range g.archive.Files {
				if slices.Contains(inputs, f.Name) {
					got.Files = append(got.Files, f)
				}
			}
			got.Files = append(got.Files, g.run(t)...)
			if *update {
				if err := os.WriteFile(g.path, txtar.Format(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(txtar.Format(g.archive)), string(txtar.Format(got))); diff != "" {
				t.Errorf("%s (-want +got), rewrite with -update:\n%s", g.path, diff)
			}
		})
	}
}

// Rewrite has nothing left to do on its own result, does not touch its argument, and says the same twice.
func TestRewriteIsIdempotentAndPure(t *testing.T) {
	for _, g := range goldens(t) {
		s, sb, err := g.input(t)
		if err != nil {
			continue
		}
		before, _ := json.Marshal(s)
		once, changes, err := spec.Rewrite(s, sb, testHost())
		if err != nil {
			var r *spec.RefusedError
			if !errors.As(err, &r) {
				t.Errorf("%s: %v is not a RefusedError", g.path, err)
			}
			continue
		}
		if after, _ := json.Marshal(s); !bytes.Equal(before, after) {
			t.Errorf("%s: Rewrite changed its argument:\n%s", g.path, cmp.Diff(before, after))
		}
		again, changesAgain, err := spec.Rewrite(s, sb, testHost())
		if err != nil || !cmp.Equal(once, again) || !cmp.Equal(changes, changesAgain) {
			t.Errorf("%s: a second call says something else: %v", g.path, err)
		}
		twice, more, err := spec.Rewrite(once, sb, testHost())
		if err != nil {
			t.Errorf("%s: rewritten spec is refused: %v", g.path, err)
			continue
		}
		if diff := cmp.Diff(once, twice); diff != "" || len(more) > 0 {
			t.Errorf("%s: not idempotent: %v\n%s", g.path, more, diff)
		}
	}
}
