//go:build !linux

package netnstest

import "testing"

// Run skips the test: namespaces are Linux's.
func Run(t *testing.T, f func(t *testing.T)) { t.Helper(); requireNetns(t) }

func requireNetns(t testing.TB) { t.Helper(); Skip(t, "netns", "not Linux") }
