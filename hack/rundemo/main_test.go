//go:build linux

package main

import (
	"os/exec"
	"testing"
)

// The demonstration holds, with what a fresh build makes. That its ears are not deaf it checks itself.
func TestDemonstration(t *testing.T) {
	bin := t.TempDir()
	build := exec.Command("../build.sh", bin, "./cmd/cofferdam", "./cmd/cofferdam-broker", "./cmd/cofferdam-init", "./cmd/cofferdam-proxy")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	kept, err := show(t.Context(), bin)
	if err != nil {
		t.Fatal(err)
	}
	if !kept {
		t.Error("a promise is not kept")
	}
}
