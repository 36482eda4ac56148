package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cofferdam.dev/cofferdam/proxy/policy"
	"cofferdam.dev/cofferdam/spec"
)

const (
	goodAllowed = "version: 1\nnetwork: {rules: [{allow: good.test}]}\n"
	bothAllowed = "version: 1\nnetwork: {rules: [{allow: good.test}, {allow: evil.test}]}\n"
)

// policyPaths are paths in a new folder, with these files in the administrator's.
func policyPaths(t *testing.T, files map[string]string) Paths {
	t.Helper()
	p := testPaths(t)
	dir := t.TempDir()
	p.Config, p.Policies = filepath.Join(dir, "config.yaml"), filepath.Join(dir, "policies")
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// TestContainerPolicy: what a container names counts below the administrator's ceiling, and naming nothing gives nothing.
func TestContainerPolicy(t *testing.T) {
	for _, test := range []struct {
		name      string
		files     map[string]string
		asks      string
		want      string // the policy's name
		good, bad bool
	}{
		{"nothing", nil, "", "", false, false},
		{"nothing, with a ceiling", map[string]string{"policy.yaml": bothAllowed}, "", "admin+none", false, false},
		{"a policy", map[string]string{"policies/web.yaml": bothAllowed}, "web", "web", true, true},
		{"a policy, with a ceiling", map[string]string{"policies/web.yaml": bothAllowed, "policy.yaml": goodAllowed}, "web", "admin+web", true, false},
		{"a ceiling that says nothing of the network", map[string]string{"policies/web.yaml": bothAllowed, "policy.yaml": "version: 1\nlimits: {pids: 9}\n"}, "web", "admin+web", false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := Request{}.policy(policyPaths(t, test.files), test.asks)
			if err != nil {
				t.Fatal(err)
			}
			parsed, err := p.Parse()
			if err != nil {
				t.Fatal(err)
			}
			allows := func(host string) bool {
				name, err := policy.ParseName(host)
				if err != nil {
					t.Fatal(err)
				}
				return parsed.Decide(policy.Request{Protocol: policy.TLS, Name: name, Port: 443}).Verdict == policy.Allow
			}
			if p.name() != test.want || allows("good.test") != test.good || allows("evil.test") != test.bad {
				t.Errorf("policy %s allows good.test %v, evil.test %v", p.name(), allows("good.test"), allows("evil.test"))
			}
		})
	}
	for name, files := range map[string]map[string]string{
		"../web": {"web.yaml": goodAllowed}, "none": nil, "web": {"policies/web.yaml": goodAllowed, "policy.yaml/x": ""},
	} {
		if p, err := (Request{}).policy(policyPaths(t, files), name); err == nil {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

// TestFileLayer: only a file that is not there is no layer.
func TestFileLayer(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "policy.yaml")
	if p, err := FileLayer(policy.Admin, path); p != nil || err != nil {
		t.Errorf("absent: %+v, %v", p, err)
	}
	if err := os.Symlink(filepath.Join(dir, "nowhere"), path); err != nil {
		t.Fatal(err)
	}
	for _, layer := range []policy.Layer{policy.Admin, policy.User, policy.Project} {
		if p, err := FileLayer(layer, path); err == nil || !strings.HasPrefix(err.Error(), layer.String()+" policy: ") {
			t.Errorf("a link that leads nowhere: %+v, %v", p, err)
		}
	}
	if err := errors.Join(os.Remove(path), os.WriteFile(path, []byte(goodAllowed), 0o600), os.Chmod(path, 0o666)); err != nil {
		t.Fatal(err)
	}
	if p, err := FileLayer(policy.User, path); err == nil {
		t.Errorf("a file that anybody can write: %+v", p)
	}
	p, err := FileLayer(policy.Project, path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Policy{{policy.Project, "project", path, []byte(goodAllowed)}}, p); diff != "" {
		t.Error(diff)
	}
}

// TestLayersAreReadAgain: each with its file, but none that the agent can write to (I5), and all or none.
func TestLayersAreReadAgain(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	p := Policy{
		{policy.User, "user", write("user.yaml", "new user"), []byte("old user")},
		{policy.Project, "project", write("work/.cofferdam.yaml", "new project"), []byte("old project")},
	}
	flags := Policy{{policy.User, "command-line", "", []byte("flags")}}
	texts := func(p Policy) (all []string) {
		for _, l := range p {
			all = append(all, string(l.Text))
		}
		return all
	}
	for _, test := range []struct {
		policy Policy
		access spec.Access
		want   []string
	}{
		{p, spec.Read, []string{"new user", "new project"}},
		{p, spec.Write, []string{"new user", "old project"}},
		{flags, spec.Write, []string{"flags"}},
	} {
		files := []spec.FileRule{{Path: "/w", Source: filepath.Join(dir, "work"), Access: test.access}}
		now, err := test.policy.again(DefaultPaths(), files, false)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, texts(now)); diff != "" {
			t.Error(diff)
		}
	}
	if err := os.Remove(filepath.Join(dir, "user.yaml")); err != nil {
		t.Fatal(err)
	}
	if now, err := p.again(DefaultPaths(), nil, false); err == nil {
		t.Errorf("without its file: %v", texts(now))
	}
}

// TestOverflowOwner: in a user namespace a file of the administrator's folder is still the administrator's, and no other one is.
func TestOverflowOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give files away")
	}
	paths := policyPaths(t, map[string]string{"policy.yaml": goodAllowed})
	other := filepath.Join(t.TempDir(), "policy.yaml")
	for _, err := range []error{os.WriteFile(other, []byte(goodAllowed), 0o644), os.Chown(other, overflowUID, 0), os.Chown(paths.AdminPolicy(), overflowUID, 0)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		path         string
		rootless, ok bool
	}{{paths.AdminPolicy(), true, true}, {paths.AdminPolicy(), false, false}, {other, true, false}, {other, false, false}} {
		_, err := Policy{{Layer: policy.Admin, Path: test.path}}.again(paths, nil, test.rootless)
		if (err == nil) != test.ok {
			t.Errorf("%+v: %v", test, err)
		}
	}
}

func TestGrant(t *testing.T) {
	parsed, err := policy.Parse("p", []byte(`version: 1
workspace: {read_only: [.git], hidden: [.env], writable: [.vscode]}
files: [{path: /opt/a, access: read}]
limits: {memory: 1GiB, cpus: 3}
`))
	if err != nil {
		t.Fatal(err)
	}
	own := spec.FileRule{Path: "/workspace", Source: "/home/u/p", Access: spec.Write}
	for _, r := range []Request{{Limits: spec.Limits{Pids: 5000}}, {Limits: spec.Limits{Pids: 5000}, Program: &Program{}}} {
		sb := spec.Sandbox{Files: []spec.FileRule{own}}
		if err := r.grant(&sb, parsed); err != nil {
			t.Fatal(err)
		}
		want := spec.Sandbox{
			Files:     []spec.FileRule{own},
			Workspace: spec.Workspace{ReadOnly: []string{".git"}, Hidden: []string{".env"}, Writable: []string{".vscode"}},
			Limits:    spec.Limits{MemoryBytes: 1 << 30, Pids: 5000, CPUs: 2},
		}
		if r.Program == nil {
			want.Files = append(want.Files, spec.FileRule{Path: "/opt/a", Source: "/opt/a", Access: spec.Read})
		}
		if diff := cmp.Diff(want, sb); diff != "" {
			t.Error(diff)
		}
	}
	parsed, err = policy.Parse("p", []byte("version: 1\nlimits: {memory: 1MiB}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if err := (Request{}).grant(&spec.Sandbox{}, parsed); err == nil || !strings.Contains(err.Error(), "memory limit of 1048576 bytes") {
		t.Errorf("a limit that nothing runs in: %v", err)
	}
}
