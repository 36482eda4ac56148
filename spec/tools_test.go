package spec_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"cofferdam.dev/cofferdam/spec"
)

func TestIsTool(t *testing.T) {
	for _, p := range []string{"/usr", "/lib64", "/etc/alternatives", "/etc/java-17-openjdk", "/etc/ssl/certs", "/opt"} {
		if !spec.IsTool(p) {
			t.Errorf("%s is not a tool", p)
		}
	}
	for _, p := range []string{
		"", "/", "/etc", "/etc/ssl", "/etc/ssl/private", "/etc/shadow", "/etc/passwd", "/etc/java-17/../shadow", "/etc/java-17/security",
		"/root", "/home", "/home/u", "/var", "/run", "/srv", "/mnt", "/media", "/proc", "/sys", "/dev", "/boot", "usr", "/usr/", "/usr/../root", "/tmp",
	} {
		if spec.IsTool(p) {
			t.Errorf("%s is a tool", p)
		}
	}
}

// What a program of the host sees: testdata/program.txtar, as root and as the only id of a user namespace.
func TestProgramGolden(t *testing.T) {
	p := spec.Program{
		Args: []string{"true"}, Env: []string{"PATH=/usr/bin"}, Cwd: "/home/u/project", UID: 1000, GID: 1000,
		Root: "rootfs", ReadOnly: true, Home: "/home/u",
	}
	sb := spec.Sandbox{
		ID: "run:web-1", Agent: "true", Tools: []string{"/usr", "/etc/ssl/certs"}, Network: spec.Network{Mode: spec.Proxied},
		Files: []spec.FileRule{{Path: "/home/u/project", Source: "/home/u/project", Access: spec.Write}},
	}
	got := &txtar.Archive{}
	for _, name := range []string{"many ids", "one id"} {
		host := testHost()
		host.Rootless = name == "one id"
		out, changes, err := spec.Rewrite(p.Spec(), sb, host)
		if err != nil {
			t.Fatal(err)
		}
		if again, more, err := spec.Rewrite(out, sb, host); err != nil || len(more) > 0 || !cmp.Equal(out, again) {
			t.Errorf("%s: not idempotent: %v, %v", name, more, err)
		}
		out.Linux.Seccomp = nil // rule-seccomp shows it
		b, err := json.MarshalIndent(out, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		for _, c := range changes {
			fmt.Fprintln(&text, c)
		}
		got.Files = append(got.Files, txtar.File{Name: name, Data: append(b, '\n')}, txtar.File{Name: name + ": changes", Data: []byte(text.String())})
	}
	const path = "testdata/program.txtar"
	if *update {
		if err := os.WriteFile(path, txtar.Format(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(txtar.Format(got))); diff != "" {
		t.Errorf("%s (-want +got), rewrite with -update:\n%s", path, diff)
	}
}
