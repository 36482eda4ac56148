// Package netnstest runs tests of kernel networking in namespaces of their
// own, so that they never touch the host and need no root.
//
// [Run] starts the test binary again, for the one test that calls it, as root
// of a fresh user namespace with a fresh network namespace (only lo, and that
// down) and a private copy of the mounts; there it calls the test's function.
// Output, failures and skips come back to the test outside.
//
// A test that needs what a machine may lack says so with [Require] or [Skip].
// Such a test is skipped with the name of what is missing, unless
// COFFERDAM_TEST_REQUIRE, a comma-separated list of such names or "all", asks
// for it: then it fails, so that CI cannot pass by skipping.
//
// Limits: PIDs, IPC and /proc are those of outside; one user and group ID is
// mapped, so chown and setuid to others fail.
package netnstest

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Env is the environment variable that turns skips into failures.
const Env = "COFFERDAM_TEST_REQUIRE"

// Require skips the test unless everything named is there. "netns" means that
// user, network and mount namespaces can be made, which Run requires by itself;
// any other name is that of a program, looked for in PATH and the sbin folders.
func Require(t testing.TB, what ...string) {
	t.Helper()
	for _, name := range what {
		if name == "netns" {
			requireNetns(t)
		} else if Program(name) == "" {
			Skip(t, name, "no such program")
		}
	}
}

// Program returns the path of a program, or "".
func Program(name string) string {
	for _, p := range []string{name, "/usr/sbin/" + name, "/sbin/" + name} {
		if path, err := exec.LookPath(p); err == nil {
			return path
		}
	}
	return ""
}

// Skip skips the test because what is missing, or fails it if that is required.
func Skip(t testing.TB, what, why string) {
	t.Helper()
	if required(os.Getenv(Env), what) {
		t.Fatalf("missing: %s (%s), which %s requires", what, why, Env)
	}
	t.Skipf("missing: %s (%s)", what, why)
}

func required(list, what string) bool {
	names := strings.Split(list, ",")
	return slices.Contains(names, what) || slices.Contains(names, "all")
}
