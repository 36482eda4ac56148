//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cofferdam.dev/cofferdam/proxy/policy"
	"cofferdam.dev/cofferdam/shim/runner"
	"cofferdam.dev/cofferdam/shim/sandbox"
	"cofferdam.dev/cofferdam/spec"
)

// TestUnmet: what a project asks for is told in flags, and these allow it; the rest in rules.
func TestUnmet(t *testing.T) {
	project := sandbox.Policy{{Layer: policy.Project, Path: "/p/.cofferdam.yaml", Text: []byte(`version: 1
network:
  presets: [npm]
  rules:
    - allow: a.test
    - {allow: "*.b.test", ports: [443, 80], protocol: tls}
    - {allow: c.test, protocol: http}
    - {allow: d.test, protocol: ssh}
    - {allow: e.test, protocol: tcp, ports: [5432, 5433]}
    - {allow: f.test, ech: true}
    - {allow: g.test, budget: {up: 1MiB}}
    - deny: h.test
`)}}
	got, err := unmet(project, "/home/u/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := `/p/.cofferdam.yaml asks for hosts, but grants nothing by itself: everything is denied
to allow what it asks for, if you trust it with that:
  --allow 'a.test' --allow 'c.test:80' --allow 'd.test:22' --allow 'e.test:5432' --allow 'e.test:5433' --allow 'g.test'
  in network of /home/u/policy.yaml or of a file for --policy:
    presets: [npm]
    rules:
      - {allow: "*.b.test", ports: [443, 80], protocol: tls}
      - {allow: "f.test", ports: [443], protocol: tls, ech: true}`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	var allow []string
	for _, word := range strings.Fields(strings.Split(got, "\n")[2]) {
		if word != "--allow" {
			allow = append(allow, strings.Trim(word, "'"))
		}
	}
	text, err := addRules(nil, allow)
	if err != nil {
		t.Fatal(err)
	}
	together, err := policy.ParseLayers(append([]policy.Source{{Layer: policy.User, Name: "flags", Text: text}}, project.Sources()...))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []policy.Request{{Protocol: policy.TLS, Port: 443}, {Protocol: policy.HTTP, Port: 80}, {Protocol: policy.SSH, Port: 22}, {Protocol: policy.TCP, Port: 5433}} {
		host := map[policy.Protocol]string{policy.TLS: "a.test", policy.HTTP: "c.test", policy.SSH: "d.test", policy.TCP: "e.test"}[r.Protocol]
		if r.Name, err = policy.ParseName(host); err != nil {
			t.Fatal(err)
		}
		if d := together.Decide(r); d.Verdict != policy.Allow {
			t.Errorf("%s: %+v", host, d)
		}
	}
	user := sandbox.Layer{Layer: policy.User, Text: []byte("version: 1\n")}
	silent := sandbox.Policy{{Layer: policy.Project, Text: []byte("version: 1\n")}}
	for name, p := range map[string]sandbox.Policy{"nothing": nil, "with a policy of the user's": append(sandbox.Policy{user}, project...), "a project that asks for nothing": silent} {
		if got, err := unmet(p, ""); got != "" || err != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	many := "version: 1\nnetwork:\n  rules:\n" + strings.Repeat("    - allow: x.test\n", maxUnmet+1)
	for i := range maxUnmet + 1 {
		many = strings.Replace(many, " x.test", " x"+strings.Repeat("x", i)+"y.test", 1)
	}
	if got, err := unmet(sandbox.Policy{{Layer: policy.Project, Text: []byte(many)}}, "/f"); err != nil || strings.Contains(got, "--allow") || !strings.Contains(got, "/f") {
		t.Errorf("of many: %q, %v", got, err)
	}
}

// TestFilesLeadWhereTheyMay: a link does not lead out of what a layer grants.
func TestFilesLeadWhereTheyMay(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"granted/tools", "other"} {
		if err := os.MkdirAll(at(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for from, to := range map[string]string{"granted/out": "other", "in": "granted/tools", "all": "granted"} {
		if err := os.Symlink(at(to), at(from)); err != nil {
			t.Fatal(err)
		}
	}
	text := func(files ...string) []byte {
		s := "version: 1\nfiles:\n"
		for _, f := range files {
			s += "  - {path: " + at(f) + ", access: read}\n"
		}
		return []byte(s)
	}
	for _, test := range []struct {
		name        string
		admin, user []byte
		read        []string
		want        []string
		fails       string
	}{
		{"no ceiling", nil, text("other"), []string{at("in")}, []string{"granted/tools", "other"}, ""},
		{"within", text("granted"), text("granted/tools"), []string{at("in")}, []string{"granted/tools", "granted/tools"}, ""},
		{"a flag that says the same", nil, text("granted"), []string{at("granted")}, []string{"granted"}, ""},
		{"a flag that says less", nil, text("granted"), []string{at("granted/tools")}, []string{"granted"}, ""},
		{"a flag that says more", nil, text("granted/tools"), []string{at("granted")}, []string{"granted"}, ""},
		{"the ceiling is a link", text("all"), nil, []string{at("granted/tools")}, []string{"granted/tools", "granted"}, ""},
		{"a flag above the ceiling", text("granted"), []byte("version: 1\n"), []string{at("other")}, nil, "--read: " + at("other") + " is not within the files of the admin policy"},
		{"a flag that leads out", text("granted"), []byte("version: 1\n"), []string{at("granted/out")}, nil, "--read: " + at("other") + " is not within"},
		{"a policy that leads out", text("granted"), text("granted/out"), nil, nil, "policy: files: " + at("other") + " is not within"},
		{"a ceiling without files", []byte("version: 1\n"), nil, []string{at("other")}, nil, "--read: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			var sources []policy.Source
			if test.admin != nil {
				sources = append(sources, policy.Source{Layer: policy.Admin, Name: "admin", Text: test.admin})
			}
			if test.user != nil {
				sources = append(sources, policy.Source{Layer: policy.User, Name: "user", Text: test.user})
			}
			p, err := policy.ParseLayers(sources)
			if err != nil {
				t.Fatal(err)
			}
			var r runner.Request
			for _, at := range test.read {
				if err := addReadable(&r, at); err != nil {
					t.Fatal(err)
				}
			}
			err = runFlags{read: test.read}.addFiles(&r, p)
			if test.fails != "" {
				if err == nil || !strings.HasPrefix(err.Error(), test.fails) {
					t.Errorf("%v, want %s", err, test.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got, want []string
			for _, f := range r.Files {
				got = append(got, f.Source)
				if f.Access != spec.Read {
					t.Errorf("%+v", f)
				}
			}
			for _, w := range test.want {
				want = append(want, at(w))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
