//go:build linux

package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cofferdam.dev/cofferdam/proxy/policy"
	"cofferdam.dev/cofferdam/shim/runner/hometool"
)

// A tool's folders come before what PATH has, once, and its variables replace the caller's.
func TestToolsSetVariables(t *testing.T) {
	tool := homeTool{"x", hometool.Found{Path: []string{"/h/a", "/h/b"}, Env: []string{"X_DIR=/h"}}}
	for _, row := range []struct{ before, after []string }{
		{[]string{"PATH=/usr/bin:/h/b", "X_DIR=/old", "Y=1"}, []string{"Y=1", "X_DIR=/h", "PATH=/h/a:/usr/bin:/h/b"}},
		{[]string{"PATH=/h/b:/h/a"}, []string{"PATH=/h/b:/h/a", "X_DIR=/h"}},
		{nil, []string{"X_DIR=/h", "PATH=/h/a:/h/b:" + defaultPath}},
	} {
		if diff := cmp.Diff(row.after, tool.addTo(slices.Clone(row.before))); diff != "" {
			t.Error(diff)
		}
	}
}

// The administrator's policy bounds tools as it does --read.
func TestToolsWithinTheCeiling(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "tool/bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	tool := homeTool{"x", hometool.Found{Files: []string{bin}}}
	for text, fails := range map[string]string{
		"version: 1\n": "--with x: " + bin + " is not within the files of the admin policy",
		"version: 1\nfiles:\n  - {path: " + filepath.Join(dir, "tool") + ", access: read}\n": "",
	} {
		p, err := policy.ParseLayers([]policy.Source{{Layer: policy.Admin, Name: "admin", Text: []byte(text)}})
		if err != nil {
			t.Fatal(err)
		}
		if err := tool.bound(p); (err == nil) != (fails == "") || err != nil && !strings.HasPrefix(err.Error(), fails) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
