//go:build linux

package integration

import (
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"cofferdam.dev/cofferdam/integration/attack"
	"cofferdam.dev/cofferdam/shim/runner/seccomp"
	"cofferdam.dev/cofferdam/spec"
)

// uprobe is a call of the kernel's own probes, which its seccomp lets through whatever a filter says (kernel/seccomp.c), and which answers ENXIO to all others.
const uprobe = "336=ENXIO" // of amd64

// lastCall is above the numbers of all system calls that there are.
const lastCall = 520

// deniedCalls are the numbers of the system calls that no rule of the profile lets through, whatever their arguments.
func deniedCalls(t *testing.T) (numbers []string) {
	t.Helper()
	profile, err := spec.Seccomp(runtime.GOARCH, true)
	if err != nil {
		t.Fatal(err)
	}
	filter, err := seccomp.Filter(profile)
	if err != nil {
		t.Fatal(err)
	}
	let := map[uint32]bool{}
	for _, r := range filter.Rules {
		let[r.Number] = let[r.Number] || r.Errno == 0
	}
	for n := range uint32(lastCall) {
		if !let[n] {
			numbers = append(numbers, strconv.FormatUint(uint64(n), 10))
		}
	}
	return numbers
}

// TestEverySystemCall makes every call that the profile does not let through, on each front, and without a filter, where most of them say what is wrong
// with their arguments.
func TestEverySystemCall(t *testing.T) {
	Require(t, needShim, needImage)
	const id = "kernel.every-call"
	numbers := deniedCalls(t)
	ask := func(t *testing.T, s *servant) (others []string) {
		t.Helper()
		got := s.try(t, []string{"calls", strings.Join(numbers, ",")})
		answers := strings.Fields(got.Reply)
		if !got.OK || len(answers) != len(numbers) {
			t.Fatalf("%d calls, %d answers: %s", len(numbers), len(answers), got)
		}
		return slices.DeleteFunc(answers, func(a string) bool {
			return strings.HasSuffix(a, "=EPERM") || strings.HasSuffix(a, "=ENOSYS") || runtime.GOARCH == "amd64" && a == uprobe
		})
	}
	r := newGround(t)
	control := ask(t, onHost(t, r, attack.Private))
	for _, f := range fronts {
		t.Run(f.name, func(t *testing.T) {
			what := ""
			if others := ask(t, f.up(t, r, onlyGood)); len(others) > 0 {
				what = fmt.Sprint(others)
			}
			verdict(t, id, f.name, what, fmt.Sprintf("%d of %d calls are made", len(control), len(numbers)), len(control) > 40)
		})
	}
}
