package sandbox

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestRuntimeWarning(t *testing.T) {
	tests := []struct {
		out  string // first line of --version
		warn bool
	}{
		{"runc version 1.1.5+ds1", true},
		{"runc version 1.2.7", true},
		{"runc version 1.2.8", false},
		{"runc version 1.3.2", true},
		{"runc version 1.3.3+ds1-1", false},
		{"runc version 1.4.0-rc.2", true},
		{"runc version 1.4.0-rc.3", false},
		{"runc version 1.4.0-rc.3+dev", false},
		{"runc version 1.4.0", false},
		{"runc version 1.5.2", false},
		{"runc version 2.0.0", false},
		{"runc version 1.0.0-rc95", true}, // cannot be read: warned about
		{"runc version unknown", true},
		{"crun version 1.8.1", false},
	}
	for _, tt := range tests {
		name, version, err := parseRuntimeVersion(tt.out + "\ncommit: x\n")
		if err != nil {
			t.Fatal(err)
		}
		if got := runtimeWarning(name, version); (got != "") != tt.warn {
			t.Errorf("%s: warning %q, want one: %v", tt.out, got, tt.warn)
		}
	}
	for _, out := range []string{"", "runc 1.2.8", "runc: command not found here"} {
		if _, _, err := parseRuntimeVersion(out); err == nil {
			t.Errorf("version text %q: no error", out)
		}
	}
}

func startPlain(cmd *exec.Cmd) (<-chan error, error) {
	exited := make(chan error, 1)
	exited <- cmd.Run()
	return exited, nil
}

func TestFindRuntimeAsksOnceUntilTheBinaryChanges(t *testing.T) {
	dir := t.TempDir()
	cache, asked := filepath.Join(dir, "runtimes.json"), filepath.Join(dir, "asked")
	binary := filepath.Join(dir, "runc")
	script := func(version string) {
		text := "#!/bin/sh\necho x >>" + asked + "\necho runc version " + version + "\n"
		if err := writeFile(binary, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	count := func() int {
		b, err := os.ReadFile(asked)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(b), "x")
	}
	find := func() Runtime {
		r, err := FindRuntime(t.Context(), cache, binary, startPlain)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	script("1.1.5")
	find()
	if r := find(); r.Version != "1.1.5" || r.Warning == "" || count() != 1 {
		t.Errorf("second time: %+v, asked %d times", r, count())
	}
	script("1.5.2")
	if r := find(); r.Version != "1.5.2" || r.Warning != "" || count() != 2 {
		t.Errorf("after the binary changed: %+v, asked %d times", r, count())
	}
	if err := os.WriteFile(cache, []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := find(); r.Version != "1.5.2" || count() != 3 {
		t.Errorf("with a torn cache: %+v, asked %d times", r, count())
	}
	if _, err := FindRuntime(t.Context(), cache, filepath.Join(dir, "none"), startPlain); err == nil {
		t.Error("a runtime that does not exist: no error")
	}
}
