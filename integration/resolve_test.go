//go:build linux

package integration

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"cofferdam.dev/cofferdam/integration/lab"
)

// resolverPrograms builds programs that resolve names in the ways that programs do.
func resolverPrograms(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return errors.Join(
		compile("gcc", "-O1", "-o", filepath.Join(dir, "glibc"), "resolve/libc.c"),
		compile("musl-gcc", "-static", "-O1", "-o", filepath.Join(dir, "musl"), "resolve/libc.c"),
		compile("gcc", "-O1", "-o", filepath.Join(dir, "cares"), "resolve/cares.c", "-lcares"),
		build(dir, "./integration/resolve/netgo"),
	)
}

func compile(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Every resolver finds what is allowed, is told at once what is not, and is not led on by search domains: by UDP and by TCP, for A and AAAA at
// once, whatever ndots is. None of them ever waits for a server that does not answer, which would take seconds.
func TestEveryResolverWorks(t *testing.T) {
	const atOnce = 900 // milliseconds; the shortest timeout of any of them is above it
	Require(t, needResolvers)
	eachPerson(t, func(t *testing.T, p person) {
		a, _ := lab.Inside()
		l := lab.Get(t)
		mark := l.Mark(t)
		programs := a.Paths[needResolvers]
		for _, row := range []struct{ name, program, env string }{
			{"glibc", "glibc", "NONE=1"},
			{"glibc with ndots and search domains", "glibc", "RES_OPTIONS=ndots:5"},
			{"glibc by TCP", "glibc", "RES_OPTIONS=use-vc ndots:5"},
			{"glibc, one question after the other", "glibc", "RES_OPTIONS=single-request"},
			{"musl", "musl", "NONE=1"},
			{"c-ares", "cares", "NONE=1"},
			{"c-ares by TCP", "cares", "ARES_TCP=1"},
			{"Go", "netgo", "NONE=1"},
			{"Go by TCP", "netgo", "GO_TCP=1"},
		} {
			t.Run(row.name, func(t *testing.T) {
				names := []string{"good.test", "GOOD.test", "good.test.", "evil.test", "single", "good.test.svc.cluster.local", "www.good.test"}
				args := []string{
					"--allow", "good.test", "--env", row.env, "--env", "LOCALDOMAIN=ns.svc.cluster.local svc.cluster.local cluster.local",
					"--read", programs, "--", filepath.Join(programs, row.program),
				}
				got := p.run(t, append(args, names...)...)
				lines := strings.Split(strings.TrimSpace(got.Stdout), "\n")
				if got.Code != 0 || len(lines) != len(names) {
					t.Fatalf("%s", got)
				}
				for i, line := range lines {
					words := strings.Fields(line)
					if len(words) != 3 || words[0] != names[i] {
						t.Errorf("got %q, want one answer about %s", line, names[i])
						continue
					}
					if ms, err := strconv.Atoi(strings.TrimSuffix(words[2], "ms")); err != nil || ms > atOnce {
						t.Errorf("%s: it took too long", line)
					}
					addr, err := netip.ParseAddr(words[1])
					switch found := err == nil && netip.MustParsePrefix("28.0.0.0/14").Contains(addr); {
					case i < 3 && !found:
						t.Errorf("%s: want a synthetic address", line)
					case i >= 3 && words[1] != "not-found":
						t.Errorf("%s: want not-found", line)
					}
				}
			})
		}
		l.Silent(t, mark) // I3
	})
}
