package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/integration/ctrd"
	"cofferdam.dev/cofferdam/integration/world"
	"cofferdam.dev/cofferdam/netns/netnstest"
)

// build returns a folder with the binaries and the demonstration.
func build(t *testing.T) (bin string) {
	t.Helper()
	if os.Geteuid() != 0 {
		netnstest.Skip(t, "root", "the demonstration makes namespaces and mounts")
	}
	netnstest.Require(t, "containerd", "ctr", "runc", "busybox")
	bin = t.TempDir()
	cmd := exec.Command("../build.sh", bin, "./hack/demo")
	for _, b := range binaries {
		cmd.Args = append(cmd.Args, "./cmd/"+b)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return bin
}

func demo(t *testing.T, bin string, args ...string) (code int, out string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(bin, "demo"), args...)
	data, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(data)
}

// traces returns what a demonstration may leave on this host.
func traces(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for _, dir := range world.Cgroups(prefix) {
		found["cgroup "+dir] = true
	}
	for _, pattern := range []string{"/tmp/" + prefix + "*", "/run/cd*", "/run/cofferdam*", "/var/log/cofferdam*", "/etc/cofferdam*", "/var/tmp/*"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			found["file "+f] = true
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		found["mount "+line] = true
	}
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		found["link "+l.Name] = true
	}
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range commands {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		for _, mark := range []string{prefix, "/run/cd/demo", "/demo\x00", "/workspace/agent.sh"} {
			if bytes.Contains(data, []byte(mark)) {
				found["process "+file+" "+string(bytes.ReplaceAll(data, []byte{0}, []byte{' '}))] = true
			}
		}
	}
	return found
}

// noTraces fails the test unless soon nothing is there that was not there before.
func noTraces(t *testing.T, before map[string]bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; <-time.After(20 * time.Millisecond) { // nobody tells when the orphans of the killed are gone
		var left []string
		for trace := range traces(t) {
			if !before[trace] {
				left = append(left, trace)
			}
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			slices.Sort(left)
			t.Fatalf("left behind:\n%s", strings.Join(left, "\n"))
		}
	}
}

func TestDemonstration(t *testing.T) {
	bin := build(t)

	t.Run("walls hold", func(t *testing.T) {
		before := traces(t)
		code, out := demo(t, bin, "-bin", bin)
		if code != 0 || strings.Contains(out, "LEAK") || strings.Contains(out, "FAILED") {
			t.Errorf("exit status %d", code)
		}
		for _, p := range promises {
			stock := "ok"
			if p.wall { // the control: the attempt is real, and what it does is seen
				stock = "not so"
			}
			expect(t, out, regexp.QuoteMeta(p.text)+" +ok +"+stock+"|"+regexp.QuoteMeta("it is told why")+".* ok +not so")
		}
		expect(t, out, `deny +dns +other\.test`)
		expect(t, out, `dropped mounts\[/host\]`)
		expect(t, out, `Every promise is kept\.`)
		if t.Failed() {
			t.Log(out)
		}
		noTraces(t, before)
	})

	t.Run("no wall", func(t *testing.T) {
		before := traces(t)
		code, out := demo(t, bin, "-bin", bin, "-runtime", ctrd.Stock)
		if code != exitLeak {
			t.Errorf("exit status %d, want %d", code, exitLeak)
		}
		for _, p := range promises {
			if p.wall {
				expect(t, out, regexp.QuoteMeta(p.text)+" +LEAK")
			}
		}
		if t.Failed() {
			t.Log(out)
		}
		noTraces(t, before)
	})

	t.Run("no binaries", func(t *testing.T) {
		before := traces(t)
		code, out := demo(t, bin, "-bin", "no/such/folder")
		if code != exitFailure || !strings.Contains(out, "make build") {
			t.Errorf("exit status %d, want %d and a hint:\n%s", code, exitFailure, out)
		}
		noTraces(t, before)
	})

	for _, sig := range []unix.Signal{unix.SIGINT, unix.SIGKILL} {
		t.Run(fmt.Sprintf("ended by %v", sig), func(t *testing.T) {
			before := traces(t)
			cmd := exec.Command(filepath.Join(bin, "demo"), "-bin", bin)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(out)
			for lines.Scan() && lines.Text() != "Policy web" { // the container is about to start
			}
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err == nil {
				t.Error("exit status 0")
			}
			noTraces(t, before)
		})
	}
}

func expect(t *testing.T, out, pattern string) {
	t.Helper()
	if !regexp.MustCompile(pattern).MatchString(out) {
		t.Errorf("not printed: %s", pattern)
	}
}
