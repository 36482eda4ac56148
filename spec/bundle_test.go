package spec_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cofferdam.dev/cofferdam/spec"
)

func TestDecodeIsStrict(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"a field that nobody knows", `{"ociVersion":"1.0.0","linux":{"landlock":{}}}`, `unknown field "landlock"`},
		{"a second spec", `{"ociVersion":"1.0.0"} {}`, "data after the end"},
		{"null", `null`, "null"},
		{"nothing", ``, "EOF"},
		{"half a spec", `{"ociVersion":`, "unexpected EOF"},
		{"a list", `[]`, "array"},
	} {
		if _, err := spec.Decode(strings.NewReader(tt.in)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one about %q", tt.name, err, tt.want)
		}
	}
	for _, tt := range []struct{ name, in, want string }{
		{"a field that nobody knows", `{"cwd":"/","privileged":true}`, `unknown field "privileged"`},
		{"null", `null`, "null"},
	} {
		if _, err := spec.DecodeProcess([]byte(tt.in)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("process: %s: error %v, want one about %q", tt.name, err, tt.want)
		}
	}
}

func TestWriteBundle(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "config.json")
	if err := spec.WriteBundle(dir, base(t)); err == nil {
		t.Error("a bundle without config.json: want an error")
	}
	if err := os.WriteFile(name, []byte("{}"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, 0o640); err != nil { // whatever the umask
		t.Fatal(err)
	}
	want := base(t)
	want.Process.Args = []string{"<&>"}
	if err := spec.WriteBundle(dir, want); err != nil {
		t.Fatal(err)
	}
	got, err := spec.ReadBundle(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if fi, err := os.Stat(name); err != nil || fi.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, error %v", fi.Mode(), err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
	if err := os.Rename(name, filepath.Join(dir, "real")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", name); err != nil {
		t.Fatal(err)
	}
	if err := spec.WriteBundle(dir, want); err == nil {
		t.Error("config.json is a symbolic link: want an error")
	}
}
