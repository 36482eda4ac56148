//go:build linux

package integration

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/integration/ctrd"
	"cofferdam.dev/cofferdam/integration/lab"
	"cofferdam.dev/cofferdam/proxy/record"
	"cofferdam.dev/cofferdam/shim/sandbox"
)

// cliCommand returns a command of the built binary, with our binaries in its PATH.
func cliCommand(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	Require(t, needShim)
	a, _ := lab.Inside()
	cmd := exec.CommandContext(t.Context(), filepath.Join(a.Paths[needShim], "cofferdam"), args...)
	cmd.Env = append(os.Environ(), "PATH="+a.Paths[needShim]+":"+os.Getenv("PATH"))
	return cmd
}

// finish runs cmd to its end.
func finish(t testing.TB, cmd *exec.Cmd) ctrd.Result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return ctrd.Result{Stdout: stdout.String(), Stderr: stderr.String(), Code: cmd.ProcessState.ExitCode()}
}

// cli runs the command line and returns its stdout; it must succeed.
func cli(t testing.TB, args ...string) string {
	t.Helper()
	got := finish(t, cliCommand(t, args...))
	if got.Code != 0 {
		t.Fatalf("cofferdam %s: %s", strings.Join(args, " "), got)
	}
	return got.Stdout
}

// sandboxID is the name of the sandbox of a container.
func sandboxID(d *ctrd.Daemon, box *ctrd.Running) string { return d.Namespace + ":" + box.ID }

// inspect returns the state of a container's sandbox as the command line tells it.
func inspect(t testing.TB, d *ctrd.Daemon, box *ctrd.Running) sandbox.State {
	t.Helper()
	var s sandbox.State
	if err := json.Unmarshal([]byte(cli(t, "inspect", "--json", sandboxID(d, box))), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// psLine returns the sandbox's line of cofferdam ps, or "".
func psLine(t testing.TB, d *ctrd.Daemon, box *ctrd.Running) string {
	t.Helper()
	for line := range strings.Lines(cli(t, "ps")) {
		if f := strings.Fields(line); len(f) > 0 && f[0] == sandboxID(d, box) {
			return line
		}
	}
	return ""
}

// contains fails the test unless text has every part.
func contains(t testing.TB, what, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%s has no %q:\n%s", what, p, text)
		}
	}
}

// killShim kills the processes that serve box and waits until they are gone.
func killShim(t testing.TB, box *ctrd.Running) {
	t.Helper()
	pids := box.Shims(t)
	if len(pids) == 0 {
		t.Fatalf("container %s has no shim", box.ID)
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the shim ends", func() bool { return len(box.Shims(t)) == 0 })
}

func TestTheCommandLineShowsASandbox(t *testing.T) {
	Require(t, needShim)
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		policy, workspace := Policy(t, onlyGood), Workspace(t)
		box := d.StartContainer(t, ctrd.Container{
			Image: agentImage, Runtime: ctrd.Cofferdam, Policy: policy, Workspace: workspace, Flags: []string{"--cap-add", "CAP_NET_ADMIN"},
		})
		id, pid := sandboxID(d, box), fmt.Sprint(box.PID(t))
		if got := box.Probe(t, "https", "good.test:443", "good.test"); !got.OK {
			t.Fatal(got)
		}
		if got := box.Probe(t, "https", "45.67.89.66:443", "evil.test"); got.OK {
			t.Error(got)
		}
		contains(t, "ps", psLine(t, d, box), "running", " "+pid+" ", policy, " up ", workspace+" (write)")

		text := cli(t, "inspect", box.ID) // the container's ID alone is enough
		contains(t, "inspect", text, id, "running", "pid "+pid, "runc", workspace+" at /workspace (write)", "CAP_NET_ADMIN", "policy "+policy, "good.test")
		if got := inspect(t, d, box); got.ID != id || fmt.Sprint(got.Agent.PID) != pid || got.Policy.Name != policy || !got.Proxy.Alive() || got.Proxy.UID == 0 || len(got.Changes) == 0 {
			t.Errorf("inspect --json: %+v", got)
		}

		want := []string{"allow tls  good.test:443", "deny  tls  evil.test:443"}
		contains(t, "log", cli(t, "log", id), want...) // by its full name: logs outlive, and the engines number their containers alike
		contains(t, "log of all", cli(t, "log"), append(want, id)...)
		if got := finish(t, cliCommand(t, "inspect", "no-such")); got.Code != 125 || !strings.Contains(got.Stderr, "no such sandbox") {
			t.Errorf("inspect no-such: %s", got)
		}

		box.Remove(t)
		if line := psLine(t, d, box); line != "" {
			t.Errorf("ps shows a sandbox that is gone: %s", line)
		}
		contains(t, "log of a sandbox that is gone", cli(t, "log", id), want...)
	})
}

func TestALogIsFollowed(t *testing.T) {
	Require(t, needShim)
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		box := Contained(t, d, Policy(t, onlyGood))
		cmd := cliCommand(t, "log", "--follow", sandboxID(d, box))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := false
		defer func() {
			if !ended {
				cmd.Process.Kill()
				cmd.Wait()
			}
		}()
		watchdog := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() }) // a line that never comes ends the read
		defer watchdog.Stop()
		lines := bufio.NewReader(out)
		until := func(what string) {
			t.Helper()
			for {
				line, err := lines.ReadString('\n')
				if err != nil {
					t.Fatalf("%s is not followed: %v", what, err)
				}
				if strings.Contains(line, what) {
					return
				}
			}
		}
		for _, name := range []string{"first.test", "second.test"} { // when the first has been printed, the second is decided later
			if got := box.Probe(t, "https", lab.Evil+":443", name); got.OK {
				t.Error(got)
			}
			until("deny  tls  " + name + ":443")
		}
		if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, lines); err != nil {
			t.Error(err)
		}
		ended = true
		if err := cmd.Wait(); err != nil {
			t.Errorf("after SIGTERM: %v", err)
		}
	})
}

func TestGarbageIsCollectedWithoutTheEngine(t *testing.T) {
	Require(t, needShim)
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		policy := Policy(t, onlyGood)
		before := lab.Take()
		// In this order: a shim collects garbage soon after its container's start, and must not find the other's before gc does.
		living := Contained(t, d, policy)
		box := Contained(t, d, policy)
		if err := d.Halt(unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		started := false
		defer func() {
			if !started {
				d.Start() // for the tests that follow; this one has failed
			}
		}()
		killShim(t, box)
		eventually(t, "ps says that nobody owns it", func() bool { return strings.Contains(psLine(t, d, box), "orphaned") })
		if got := cli(t, "gc"); got != sandboxID(d, box)+"\n" {
			t.Errorf("gc: %q", got)
		}
		if got := cli(t, "gc"); got != "" {
			t.Errorf("gc again: %q", got)
		}
		if left := lab.Take().Since(before); slices.ContainsFunc(left, func(line string) bool {
			return strings.Contains(line, "/run/cofferdam/") && strings.Contains(line, sandboxID(d, box))
		}) {
			t.Errorf("gc left\n%s", strings.Join(left, "\n"))
		}
		contains(t, "ps", psLine(t, d, living), "running")
		started = true
		if err := d.Start(); err != nil {
			t.Fatal(err)
		}
		if got := living.Probe(t, "https", "good.test:443", "good.test"); !got.OK {
			t.Errorf("the sandbox with an owner: %s", got)
		}
		box.Remove(t)
		living.Remove(t)
		lab.NoLeftovers(t, before, append(notOfASandbox, "containerd --config")...)
	})
}

// oldRunc writes a runtime that is the host's runc but for its version, and returns its path.
func oldRunc(t testing.TB) string {
	t.Helper()
	runc, err := exec.LookPath("runc")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "runc-1.1.5")
	script := fmt.Sprintf("#!/bin/sh\n[ \"$*\" = --version ] && echo runc version 1.1.5+ds1 && exit\nexec %s \"$@\"\n", runc)
	if err := os.WriteFile(file, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}

// configFile writes a configuration of the administrator and returns its path.
func configFile(t testing.TB, yaml string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(yaml), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestTheDoctorFindsWhatIsWrong(t *testing.T) {
	Require(t, needShim)
	lab.Get(t)
	if err := os.MkdirAll("/etc/cofferdam/policies", 0o755); err != nil {
		t.Fatal(err)
	}
	install := func(t *testing.T, name, text string) {
		file := filepath.Join("/etc/cofferdam", name)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Remove(file) })
	}
	for _, row := range []struct {
		name    string
		prepare func(t *testing.T, cmd *exec.Cmd)
		want    []string
		bad     bool
	}{
		{"nothing but an old runc", func(t *testing.T, _ *exec.Cmd) {
			install(t, "config.yaml", "version: 1\nruntime: "+oldRunc(t)+"\n")
		}, []string{"warn  runtime      runc 1.1.5+ds1", "CVE-2025-31133", "mend: install runc 1.2.8"}, false},
		{"an old runc that is forbidden", func(t *testing.T, _ *exec.Cmd) {
			install(t, "config.yaml", "version: 1\nrequire_fixed_runtime: true\nruntime: "+oldRunc(t)+"\n")
		}, []string{"FAIL  runtime      runc 1.1.5+ds1"}, true},
		{"a configuration that does not parse", func(t *testing.T, _ *exec.Cmd) {
			install(t, "config.yaml", "version: 1\nruntimes: crun\n")
		}, []string{"FAIL  config       /etc/cofferdam/config.yaml", "runtimes"}, true},
		{"a policy that does not parse", func(t *testing.T, _ *exec.Cmd) {
			install(t, "policies/broken.yaml", "version: 1\nnetwork:\n  rulez: []\n")
		}, []string{"FAIL  policies     /etc/cofferdam/policies/broken.yaml:3:3: network.rulez"}, true},
		{"no shim", func(t *testing.T, cmd *exec.Cmd) {
			cmd.Env = append(cmd.Env, "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
		}, []string{"FAIL  shim         ", "mend: make install"}, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			install(t, "policies/some.yaml", onlyGood)
			cmd := cliCommand(t, "doctor")
			row.prepare(t, cmd)
			before := lab.Take()
			got := finish(t, cmd)
			lab.NoLeftovers(t, before, notOfASandbox...)
			contains(t, "doctor", got.Stdout, row.want...)
			lines := strings.Split(got.Stdout, "\n")
			failed := 0
			for i, line := range lines {
				if !strings.HasPrefix(line, "FAIL") {
					continue
				}
				failed++
				if f := strings.Fields(line); len(f) < 5 && !strings.Contains(lines[i+1], "mend: ") {
					t.Errorf("neither mend nor explanation: %s", line)
				}
			}
			code, count := 0, 0
			if row.bad {
				code, count = 1, 1
			}
			if got.Code != code || failed != count || got.Stderr != "" {
				t.Errorf("%d FAILs, want %d; want code %d: %s", failed, count, code, got)
			}
		})
	}
}

// I7: what the kernel refuses, so that no proxy sees it, is written down too: by kind, once it has grown, and at the end.
func TestRefusedPacketsAreRecorded(t *testing.T) {
	d := Engine(t, "v2")
	box := Contained(t, d, Policy(t, onlyGood))
	id := sandboxID(d, box)
	box.Probe(t, "udp", "45.67.89.66:51820", "tunnel")
	denied := func(protocol string) (n int64) {
		for line := range strings.Lines(cli(t, "log", "--json", id)) {
			var r record.Record
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatal(err)
			}
			if r.Protocol == protocol && r.Verdict == "deny" && r.Reason != "" {
				n += r.Count
			}
		}
		return n
	}
	for deadline := time.Now().Add(20 * time.Second); denied("udp") == 0; <-time.After(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("UDP is not recorded while the agent runs")
		}
	}
	first := denied("udp")
	box.Probe(t, "udp", "45.67.89.66:443", "initial")
	box.Remove(t)
	if n := denied("udp"); n <= first {
		t.Errorf("%d datagrams at the end, %d before the last one", n, first)
	}
	for _, other := range []string{"icmp", "ip", "ipv6"} {
		if n := denied(other); n != 0 {
			t.Errorf("%d packets of %s, of which none was sent", n, other)
		}
	}
}
