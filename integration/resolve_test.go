//go:build linux

package integration

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

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

const atOnce = 900 // milliseconds; the shortest timeout of any resolver is above it

// Every resolver finds what is allowed, is told at once what is not, and is not led on by search domains: by UDP and by TCP, for A and AAAA at
// once, whatever ndots is. None of them ever waits for a server that does not answer, which would take seconds.
func TestEveryResolverWorks(t *testing.T) {
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
					want := "synthetic"
					if i >= 3 {
						want = "not-found"
					}
					checkResolved(t, line, names[i]+" "+want)
				}
			})
		}
		l.Silent(t, mark) // I3
	})
}

// checkResolved compares what a program has printed about one name, an address of the pool being "synthetic", and the time left out.
func checkResolved(t *testing.T, line, want string) {
	t.Helper()
	words := strings.Fields(line)
	if len(words) < 3 {
		t.Errorf("got %q, want %s", line, want)
		return
	}
	if ms, err := strconv.Atoi(strings.TrimSuffix(words[2], "ms")); err != nil || ms > atOnce {
		t.Errorf("%s: it took too long, or it has other addresses too", line)
	}
	if addr, err := netip.ParseAddr(words[1]); err == nil && netip.MustParsePrefix("28.0.0.0/14").Contains(addr) {
		words[1] = "synthetic"
	}
	if got := strings.Join(slices.Delete(words, 2, 3), " "); got != want {
		t.Errorf("%s: want %s", line, want)
	}
}

// An agent may read another resolv.conf than the sandbox's, and musl and Go take search lists and ndots from nowhere else. With those of a
// Kubernetes pod every resolver finds what it should, and what it finds is reached. The list ends with a domain in which names are allowed: so it
// is seen to be searched.
func TestEveryResolverMayHaveASearchList(t *testing.T) {
	const file = "nameserver 10.200.0.1\nsearch ns.svc.cluster.local svc.cluster.local cluster.local test\noptions ndots:5"
	d := Engine(t, "v2")
	Require(t, needResolvers)
	a, _ := lab.Inside()
	l := lab.Get(t)
	box := Contained(t, d, Policy(t, onlyGood))
	inside := fmt.Sprintf("/proc/%d/ns/net", box.PID(t))
	for _, row := range []struct{ name, program, options, env string }{
		{"glibc", "glibc", "", "NONE=1"},
		{"glibc by TCP", "glibc", " use-vc", "NONE=1"},
		{"musl", "musl", "", "NONE=1"},
		{"c-ares", "cares", "", "NONE=1"},
		{"c-ares by TCP", "cares", "", "ARES_TCP=1"},
		{"Go", "netgo", "", "NONE=1"},
		{"Go by TCP", "netgo", " use-vc", "NONE=1"},
	} {
		t.Run(row.name, func(t *testing.T) {
			conf := filepath.Join(t.TempDir(), "resolv.conf")
			if err := os.WriteFile(conf, []byte(file+row.options+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			want := []string{
				"good.test synthetic 200", "GOOD.test synthetic 200", "good.test. synthetic 200",
				"good synthetic 403",     // good.test, but the request is for another host
				"ssh.good synthetic 403", // ssh.good.test, which is not for HTTP; musl searches for it only with ndots above 1
				"evil.test not-found", "single not-found", "good.test.svc.cluster.local not-found", "www.good.test not-found",
			}
			// In BOX, with another resolv.conf than the sandbox has.
			args := []string{"-c", `mount --bind "$0" /etc/resolv.conf && exec "$@"`, conf, filepath.Join(a.Paths[needResolvers], row.program)}
			for _, w := range want {
				args = append(args, strings.Fields(w)[0])
			}
			mark := l.Mark(t)
			var out []byte
			err := lab.DoIn(inside, func() (err error) {
				cmd := exec.Command("sh", args...)
				cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "ASK=1", row.env}
				cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
				out, err = cmd.Output()
				return err
			})
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			if err != nil || len(lines) != len(want) {
				t.Fatalf("%v: %s", err, out)
			}
			for i, line := range lines {
				t.Log(line)
				checkResolved(t, line, want[i])
			}
			for _, e := range l.Since(t, mark) { // I3
				if e.Kind == "dns" && !strings.HasPrefix(e.Detail, "good.test ") {
					t.Errorf("the internet was asked: %s", e)
				}
			}
		})
	}
}
