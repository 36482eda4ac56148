//go:build linux

package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/integration/ctrd"
	"cofferdam.dev/cofferdam/integration/lab"
	"cofferdam.dev/cofferdam/integration/outcome"
)

// person is somebody who runs agents without an engine.
type person struct {
	name string
	id   uint32 // uid and gid
	home string
	dir  string // folder with the probe, which the agent may read
}

// newPerson makes a home with a secret in it, a project, and a folder with the probe.
func newPerson(t testing.TB, name string, id uint32) person {
	t.Helper()
	Require(t, needShim, needImage)
	base, err := os.MkdirTemp("/srv", "run-") // t.TempDir is closed to others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	p := person{name: name, id: id, home: filepath.Join(base, "home"), dir: filepath.Join(base, "probe")}
	a, _ := lab.Inside()
	probe, err := os.ReadFile(filepath.Join(a.Dir, "probe"))
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.Chmod(base, 0o755),
		os.Mkdir(p.home, 0o700), os.Mkdir(filepath.Join(p.home, "project"), 0o755), os.Mkdir(filepath.Join(p.home, "run"), 0o700),
		os.WriteFile(filepath.Join(p.home, "secret"), []byte("secret"), 0o600),
		os.Mkdir(p.dir, 0o755), os.WriteFile(filepath.Join(p.dir, "probe"), probe, 0o755), os.Chmod(filepath.Join(p.dir, "probe"), os.ModeSetuid|0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	err = filepath.Walk(p.home, func(path string, _ os.FileInfo, err error) error {
		return errors.Join(err, os.Chown(path, int(p.id), int(p.id)))
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// people are root and an ordinary user, by name with their uid.
var people = []struct {
	name string
	id   uint32
}{{"root", 0}, {"user", 4711}}

// eachPerson runs test as root and as an ordinary user.
func eachPerson(t *testing.T, test func(t *testing.T, p person)) {
	Require(t, needShim, needImage)
	lab.Get(t)
	for _, one := range people {
		t.Run(one.name, func(t *testing.T) { test(t, newPerson(t, one.name, one.id)) })
	}
}

func (p person) workspace() string { return filepath.Join(p.home, "project") }

// command is cofferdam as the person calls it, in the workspace.
func (p person) command(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	cmd := cliCommand(t, args...)
	cmd.Dir = p.workspace()
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + p.home, "USER=" + p.name, "TERM=dumb", "LANG=C.UTF-8", "TOKEN=secret",
		"XDG_RUNTIME_DIR=" + filepath.Join(p.home, "run"),
	}
	if p.id != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: p.id, Gid: p.id}}
	}
	return cmd
}

// run runs an agent to its end.
func (p person) run(t testing.TB, args ...string) ctrd.Result {
	t.Helper()
	return finish(t, p.command(t, append([]string{"run"}, args...)...))
}

// talk starts a command, and returns its input and its output.
func talk(t testing.TB, cmd *exec.Cmd) (in io.WriteCloser, out io.ReadCloser) {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if out, err = cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return in, out
}

// Probe makes one attempt in a sandbox of its own.
func (p person) Probe(t testing.TB, flags []string, attempt ...string) outcome.Outcome {
	t.Helper()
	args := append(append([]string{}, flags...), "--read", p.dir, "--", filepath.Join(p.dir, "probe"))
	got := p.run(t, append(args, attempt...)...)
	o, err := outcome.Parse([]byte(got.Stdout))
	if err != nil {
		t.Fatalf("probe %s: %v: %s", strings.Join(attempt, " "), err, got)
	}
	return o
}

// install copies our binaries into a folder of the person's.
func (p person) install(t testing.TB, dir string) {
	t.Helper()
	a, _ := lab.Inside()
	err := os.Mkdir(dir, 0o755)
	for _, name := range []string{"cofferdam", "cofferdam-broker", "cofferdam-init", "cofferdam-proxy"} {
		data, rerr := os.ReadFile(filepath.Join(a.Paths[needShim], name))
		err = errors.Join(err, rerr, os.WriteFile(filepath.Join(dir, name), data, 0o755), os.Chown(filepath.Join(dir, name), int(p.id), int(p.id)))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// states is where the person's sandboxes have their state.
func (p person) states() string {
	if p.id == 0 {
		return "/run/cofferdam/sandboxes"
	}
	return filepath.Join(p.home, "run/cofferdam/sandboxes")
}

func TestRunIsTheCallerAndSeesTheWorkspaceAlone(t *testing.T) {
	eachPersonAndRanged(t, func(t *testing.T, p person) {
		before := lab.Take()
		script := `id -u; id -g; pwd; ls -a ~; cat ~/secret ../secret; ls -d /srv/*/* /var/* /run/* /tmp/*; echo "${TOKEN-no token}"; echo made >made; echo x >/usr/x; echo done`
		got := p.run(t, "sh", "-c", script)
		want := fmt.Sprintf("%d\n%d\n%s\n.\n..\nproject\n%s\n/var/run\n/var/tmp\nno token\ndone\n", p.id, p.id, p.workspace(), p.home)
		if got.Code != 0 || !sameLines(got.Stdout, want) {
			t.Errorf("got %s\nwant\n%s", got, want)
		}
		st, err := os.Stat(filepath.Join(p.workspace(), "made"))
		if err != nil {
			t.Fatal(err)
		}
		if owner := st.Sys().(*syscall.Stat_t); owner.Uid != p.id || owner.Gid != p.id {
			t.Errorf("what the agent wrote belongs to %d:%d", owner.Uid, owner.Gid)
		}
		if _, err := os.Stat("/usr/x"); err == nil {
			t.Error("the agent has written to /usr")
		}
		if names, _ := filepath.Glob(filepath.Join(p.workspace(), "*")); len(names) != 1 {
			t.Errorf("the workspace holds %v", names)
		}
		lab.NoLeftovers(t, before, notOfASandbox...)
	})
}

// sameLines compares without empty lines.
func sameLines(a, b string) bool { return slices.Equal(strings.Fields(a), strings.Fields(b)) }

// What a host cannot give is said at the start and for those who look, and refused where a person wants all of it.
func TestRunSaysWhatIsWeaker(t *testing.T) {
	Require(t, needLandlock)
	eachPerson(t, func(t *testing.T, p person) {
		weak := p.id != 0 // no cgroup, one uid
		if got := p.run(t, "true"); strings.Contains(got.Stderr, "warning: no cgroup") != weak {
			t.Errorf("at the start: %s", got)
		}
		if got := p.run(t, "--strict", "true"); (got.Code == 125) != weak || strings.Contains(got.Stderr, "no cgroup") != weak {
			t.Errorf("--strict: %s", got)
		}
		cmd := p.command(t, "run", "--name", "looked-at", "sh", "-c", "echo ready; read x")
		in, out := talk(t, cmd)
		if _, err := out.Read(make([]byte, 16)); err != nil {
			t.Fatal(err)
		}
		got := finish(t, p.command(t, "inspect", "looked-at"))
		if got.Code != 0 || strings.Contains(got.Stdout, "no cgroup of its own") != weak || !strings.Contains(got.Stdout, p.workspace()) {
			t.Errorf("inspect: %s", got)
		}
		if got := finish(t, p.command(t, "ps")); got.Code != 0 || !strings.Contains(got.Stdout, "run:looked-at") || !strings.Contains(got.Stdout, "running") {
			t.Errorf("ps: %s", got)
		}
		in.Close()
		_ = cmd.Wait()
	})
}

// What the spec says of the process is what the process has: libcontainer takes each part from somewhere else.
func TestRunProcessIsWhatTheSpecSays(t *testing.T) {
	eachPersonAndRanged(t, func(t *testing.T, p person) {
		got := p.run(t, "--pids", "77", "sh", "-c", "cat /proc/self/limits /proc/self/status /proc/self/oom_score_adj; cat /proc/self/mountinfo")
		for _, want := range []string{`Max core file size +1 +1 `, `NoNewPrivs:\t1`, `Seccomp:\t2`, `CapInh:\t0+\n`, `CapAmb:\t0+\n`} {
			if !regexp.MustCompile(want).MatchString(got.Stdout) {
				t.Errorf("there is no %q in\n%s", want, got.Stdout)
			}
		}
		if p.id != 0 {
			for _, want := range []string{`Max processes +77 +77 `, `CapPrm:\t0+\n`, `CapEff:\t0+\n`} {
				if !regexp.MustCompile(want).MatchString(got.Stdout) {
					t.Errorf("there is no %q in\n%s", want, got.Stdout)
				}
			}
		}
		fork := p.run(t, "--pids", "77", "sh", "-c", "i=0; while [ $i -lt 200 ]; do sleep 5 & i=$((i+1)); done; echo all")
		if strings.Contains(fork.Stdout, "all") {
			t.Errorf("200 processes with a limit of 77: %s", fork)
		}
	})
}

// A root file system of its own, by flag and as an OCI bundle: the agent sees that one, and of the host its workspace.
func TestRunInARootFileSystem(t *testing.T) {
	eachPersonAndRanged(t, func(t *testing.T, p person) {
		bundle := filepath.Join(p.workspace(), "bundle")
		root := filepath.Join(bundle, "rootfs")
		data, err := os.ReadFile("/bin/busybox")
		if err != nil {
			t.Fatal(err)
		}
		config := fmt.Sprintf(`{"ociVersion": "1.0.2", "process": {"args": ["sh", "-c", "id -u; cat /etc/motd; echo $WHO; echo x >/work/y; ls /usr /home 2>&1"],
			"capabilities": {"bounding": ["CAP_CHOWN", "CAP_NET_ADMIN"], "effective": ["CAP_CHOWN", "CAP_NET_ADMIN"], "permitted": ["CAP_CHOWN", "CAP_NET_ADMIN"]},
			"cwd": "/work", "env": ["PATH=/bin", "WHO=bundle"], "user": {"uid": 1234, "gid": 1234}}, "root": {"path": "rootfs"},
			"mounts": [{"destination": "/work", "type": "bind", "source": %q, "options": ["rbind", "rw"]},
				{"destination": "/host", "type": "bind", "source": %q, "options": ["rbind", "rw"]}],
			"linux": {}, "annotations": {"cofferdam.dev/workspace": "/work"}}`, filepath.Join(p.home, "shared"), p.home)
		for _, err := range []error{
			os.MkdirAll(filepath.Join(root, "bin"), 0o755), os.MkdirAll(filepath.Join(root, "etc"), 0o755), os.Mkdir(filepath.Join(p.home, "shared"), 0o777),
			os.Chmod(filepath.Join(p.home, "shared"), 0o777),
			os.WriteFile(filepath.Join(root, "bin/busybox"), data, 0o755), os.WriteFile(filepath.Join(root, "etc/motd"), []byte("of the root\n"), 0o644),
			os.Symlink("busybox", filepath.Join(root, "bin/sh")), os.Symlink("busybox", filepath.Join(root, "bin/cat")),
			os.Symlink("busybox", filepath.Join(root, "bin/id")), os.Symlink("busybox", filepath.Join(root, "bin/ls")),
			os.WriteFile(filepath.Join(bundle, "config.json"), []byte(config), 0o644), exec.Command("chown", "-R", fmt.Sprint(p.id), p.home).Run(),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		got := p.run(t, "-w", filepath.Join(p.home, "shared"), "--rootfs", root, "--env", "PATH=/bin", "--", "sh", "-c", "id -u; cat /etc/motd; echo x >x; ls /usr /home 2>&1")
		if got.Code == 0 || !strings.HasPrefix(got.Stdout, fmt.Sprintf("%d\nof the root\n", p.id)) || !strings.Contains(got.Stdout, "/usr: No such file") {
			t.Errorf("--rootfs: %s", got)
		}
		if _, err := os.Stat(filepath.Join(p.home, "shared/x")); err != nil {
			t.Errorf("--rootfs: %v", err)
		}
		before, err := os.ReadFile(filepath.Join(bundle, "config.json"))
		if err != nil {
			t.Fatal(err)
		}
		got = p.run(t, "--bundle", bundle)
		if !strings.HasPrefix(got.Stdout, "1234\nof the root\nbundle\n") || !strings.Contains(got.Stdout, "/usr: No such file") {
			t.Errorf("--bundle: %s", got)
		}
		if _, err := os.Stat(filepath.Join(p.home, "shared/y")); err != nil {
			t.Errorf("--bundle: %v", err)
		}
		if after, err := os.ReadFile(filepath.Join(bundle, "config.json")); err != nil || !bytes.Equal(before, after) {
			t.Errorf("the bundle has changed: %v", err)
		}
		// Root in there has what the sandbox allows, in a namespace of its own too.
		config = strings.Replace(config, `"uid": 1234, "gid": 1234`, `"uid": 0, "gid": 0`, 1)
		if err := os.WriteFile(filepath.Join(bundle, "config.json"), []byte(config), 0o644); err != nil {
			t.Fatal(err)
		}
		got = p.run(t, "--bundle", bundle, "--", "sh", "-c", "id -u; cat /proc/self/status")
		if !strings.HasPrefix(got.Stdout, "0\n") || strings.Count(got.Stdout, "0000000000000001\n") != 3 { // prm, eff, bnd: CAP_CHOWN
			t.Errorf("as root: %s", got)
		}
		got = p.run(t, "--bundle", bundle, "--print-spec")
		if got.Code != 0 || strings.Contains(got.Stdout, `"/host"`) || !strings.Contains(got.Stdout, `"/work"`) || !strings.Contains(got.Stdout, "SCMP_ACT_ERRNO") {
			t.Errorf("--print-spec: %s", got)
		}
	})
}

func TestRunEndsAsTheCommandDoes(t *testing.T) {
	eachPerson(t, func(t *testing.T, p person) {
		if err := os.WriteFile(filepath.Join(p.workspace(), "plain"), []byte("text"), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, row := range []struct {
			args []string
			code int
			says string
		}{
			{[]string{"true"}, 0, ""},
			{[]string{"sh", "-c", "exit 42"}, 42, ""},
			{[]string{"sh", "-c", "kill -9 $$"}, 137, ""},
			{[]string{"sh", "-c", "kill -TERM $$"}, 143, ""},
			{[]string{"no-such-command"}, 127, "no-such-command"},
			{[]string{"./plain"}, 126, "plain"},
			{[]string{"--no-such-flag", "true"}, 125, "no-such-flag"},
			{[]string{"-w", "/etc", "true"}, 125, "/etc"},
			{[]string{"-w", p.home, "true"}, 125, p.home},
			{[]string{"--policy", "none-of-that-name", "true"}, 125, "none-of-that-name"},
			{[]string{"--memory", "lots", "true"}, 125, "--memory"},
			{[]string{"--env", "NOT_SET", "true"}, 125, "NOT_SET"},
			{[]string{"--read", p.home + "/nothing", "true"}, 125, "nothing"},
		} {
			got := p.run(t, row.args...)
			if got.Code != row.code || !strings.Contains(got.Stderr, row.says) {
				t.Errorf("%v: %s, want status %d and %q", row.args, got, row.code, row.says)
			}
		}
		if names, _ := filepath.Glob(p.states() + "/[^.]*"); len(names) != 0 {
			t.Errorf("left behind: %v", names)
		}
	})
}

func TestRunKeepsPipesClean(t *testing.T) {
	eachPerson(t, func(t *testing.T, p person) {
		var all []byte
		for i := range 1 << 16 {
			all = append(all, byte(i), byte(i>>8), 0, '\r', '\n', 0x1a, 0x04, 0x03, 0xff)
		}
		cmd := p.command(t, "run", "cat")
		cmd.Stdin = bytes.NewReader(all)
		var out bytes.Buffer
		cmd.Stdout = &out
		if err := cmd.Run(); err != nil || !bytes.Equal(out.Bytes(), all) {
			t.Errorf("%d bytes came back of %d, or others: %v", out.Len(), len(all), err)
		}
	})
}

func TestRunPassesSignalsOn(t *testing.T) {
	eachPerson(t, func(t *testing.T, p person) {
		for _, sig := range []syscall.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGUSR1} {
			cmd := p.command(t, "run", "sh", "-c", `for s in TERM INT HUP USR1; do trap "echo $s; exit 3" $s; done; echo ready; while :; do sleep 0.1; done`)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			line := make([]byte, len("ready\n"))
			if _, err := out.Read(line); err != nil || string(line) != "ready\n" {
				t.Fatalf("%q, %v", line, err)
			}
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			rest := new(bytes.Buffer)
			_, _ = rest.ReadFrom(out)
			_ = cmd.Wait()
			if want := strings.TrimPrefix(unix.SignalName(sig), "SIG") + "\n"; rest.String() != want || cmd.ProcessState.ExitCode() != 3 {
				t.Errorf("%v: the agent said %q and ended with %d", sig, rest, cmd.ProcessState.ExitCode())
			}
		}
	})
}

// A signal at any time of the start ends the start or reaches the agent: it is not lost, and does not end cofferdam before an agent that runs.
func TestRunPassesSignalsOnFromTheStart(t *testing.T) {
	eachPersonAndRanged(t, func(t *testing.T, p person) {
		agents := 0
		for after := time.Duration(0); agents < 3; after += 5 * time.Millisecond { // until it comes after the start
			if after > 5*time.Second {
				t.Fatal("no agent has ever got the signal")
			}
			cmd := p.command(t, "run", "sh", "-c", `trap "echo TERM; exit 3" TERM; echo ready; while :; do sleep 0.01; done`)
			var out bytes.Buffer
			cmd.Stdout = &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(after) // what is tested, not waited for
			if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			code := cmd.ProcessState.ExitCode()
			switch {
			case out.String() == "ready\nTERM\n" && code == 3, out.String() == "TERM\n" && code == 3:
				agents++
			case out.Len() == 0 && (code == 125 || code == 143 || code == -1): // in the setting up; before the trap; before cofferdam looks for signals
			default:
				t.Errorf("after %v: the agent said %q, the status is %d", after, &out, code)
			}
		}
		if got := p.run(t, "true"); got.Code != 0 { // which removes what is left of those that were killed
			t.Errorf("the next start: %s", got)
		}
		if names, _ := filepath.Glob(p.states() + "/[^.]*"); len(names) != 0 {
			t.Errorf("left behind: %v", names)
		}
	})
}

// A hundred at once: none fails, they share the machine, and all are gone afterwards.
func TestRunAHundredAtOnce(t *testing.T) {
	eachPerson(t, func(t *testing.T, p person) {
		const many = 100
		before := lab.Take()
		one := func() time.Duration {
			began := time.Now()
			if got := p.run(t, "true"); got.Code != 0 {
				t.Fatal(got)
			}
			return time.Since(began)
		}
		one()
		single := min(one(), one(), one())

		began := time.Now()
		var cmds []*exec.Cmd
		var ins []io.Closer
		var outs []io.Reader
		for range many {
			cmd := p.command(t, "run", "sh", "-c", "echo ready; read x")
			in, out := talk(t, cmd)
			cmds, ins, outs = append(cmds, cmd), append(ins, in), append(outs, out)
		}
		for i, out := range outs {
			if line, err := io.ReadAll(io.LimitReader(out, int64(len("ready\n")))); err != nil || string(line) != "ready\n" {
				t.Errorf("sandbox %d: %q, %v", i, line, err)
			}
		}
		took := time.Since(began)
		t.Logf("one takes %v, a hundred %v: %.2f of a hundred times one", single, took, float64(took)/float64(many*single))
		if most := many * single * 3 / 2; took > most {
			t.Errorf("a hundred took %v, want at most %v", took, most)
		}
		for i := range cmds {
			ins[i].Close()
			_ = cmds[i].Wait() // its status is that of read at the end of a file
		}
		lab.NoLeftovers(t, before, notOfASandbox...)
	})
}

// I8: SIGKILL of cofferdam takes everything with it, and what lies on disk goes with the next start.
func TestRunLeavesNothingWhenKilled(t *testing.T) {
	eachPerson(t, func(t *testing.T, p person) {
		before := lab.Take()
		cmd := p.command(t, "run", "sh", "-c", "sleep 3601 & echo ready; sleep 3602")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 16)); err != nil {
			t.Fatal(err)
		}
		during := strings.Join(lab.Take().Since(before), "\n")
		for _, want := range []string{"sleep 3601", "sleep 3602", "cofferdam-proxy", "netns "} {
			if !strings.Contains(during, want) {
				t.Errorf("while it runs there is no %q, so its absence would mean nothing:\n%s", want, during)
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		eventually(t, "processes and namespaces are gone", func() bool {
			return !slices.ContainsFunc(lab.Take().Since(before), func(line string) bool {
				return strings.HasPrefix(line, "process ") || strings.HasPrefix(line, "netns ") || strings.HasPrefix(line, "mount ")
			})
		})
		if got := p.run(t, "true"); got.Code != 0 {
			t.Errorf("the next start: %s", got)
		}
		lab.NoLeftovers(t, before, notOfASandbox...)
	})
}

func TestRunReachesWhatThePolicyAllows(t *testing.T) {
	eachPersonAndRanged(t, func(t *testing.T, p person) {
		policy := filepath.Join(p.home, "policy.yaml")
		if err := os.WriteFile(policy, []byte(onlyGood), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(policy, int(p.id), int(p.id)); err != nil {
			t.Fatal(err)
		}
		l := lab.Get(t)
		for _, row := range egress {
			t.Run(row.name, func(t *testing.T) {
				row.check(t, l, func(attempt ...string) outcome.Outcome { return p.Probe(t, []string{"--policy", policy}, attempt...) })
			})
		}
		t.Run("--allow", func(t *testing.T) {
			mark := l.Mark(t)
			attempt := []string{"https", "good.test:443", "good.test"}
			if got := p.Probe(t, nil, attempt...); got.OK {
				t.Errorf("without a policy: %s", got)
			}
			l.Silent(t, mark)
			if got := p.Probe(t, []string{"--allow", "good.test"}, attempt...); !got.OK {
				t.Errorf("refused: %s", got)
			}
		})
	})
}

// A host that gives no user namespaces is named, with nothing left: here it is a sandbox, whose filter denies them.
func TestRunSaysWhatTheHostLacks(t *testing.T) {
	p := newPerson(t, "user", 4711)
	bin := filepath.Join(p.home, "bin")
	p.install(t, bin)
	got := p.run(t, "--read", bin, "--", filepath.Join(bin, "cofferdam"), "run", "true")
	if got.Code != 125 || !strings.Contains(got.Stderr, "cofferdam: error: make a user namespace: unshare: operation not permitted") {
		t.Errorf("got %s", got)
	}
}

// I5: an agent must not be handed the policy that is followed while it runs, or the programs that are run outside, not by a link either.
func TestRunKeepsWhatItUsesOutOfReach(t *testing.T) {
	eachPerson(t, func(t *testing.T, p person) {
		inside, link := filepath.Join(p.workspace(), "policy.yaml"), filepath.Join(p.home, "link.yaml")
		bin := filepath.Join(p.workspace(), "bin")
		for _, err := range []error{
			os.WriteFile(inside, []byte(onlyGood), 0o644), os.Chown(inside, int(p.id), int(p.id)), os.Symlink(inside, link),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		for _, policy := range []string{inside, link} {
			if got := p.run(t, "--policy", policy, "true"); got.Code != 125 || !strings.Contains(got.Stderr, "used outside") {
				t.Errorf("%s: %s", policy, got)
			}
			if got := p.run(t, "--policy", policy, "--read-only", "true"); got.Code != 0 {
				t.Errorf("%s, read-only: %s", policy, got)
			}
		}
		p.install(t, bin)
		cmd := p.command(t, "run", "true")
		cmd.Path = filepath.Join(bin, "cofferdam")
		if got := finish(t, cmd); got.Code != 125 || !strings.Contains(got.Stderr, "used outside") {
			t.Errorf("cofferdam in the workspace: %s", got)
		}
	})
}

// A sandbox whose proxy is killed refuses, and serves again once there is another one.
func TestRunSurvivesItsProxy(t *testing.T) {
	eachPerson(t, func(t *testing.T, p person) {
		script := fmt.Sprintf(`echo ready; read x; for i in 1 2 3 4 5 6 7 8 9 10; do %s/probe https good.test:443 good.test && break; sleep 0.2; done`, p.dir)
		cmd := p.command(t, "run", "--allow", "good.test", "--read", p.dir, "sh", "-c", script)
		in, out := talk(t, cmd)
		if _, err := out.Read(make([]byte, 16)); err != nil {
			t.Fatal(err)
		}
		if err := exec.Command("pkill", "-9", "-P", fmt.Sprint(cmd.Process.Pid), "cofferdam-proxy").Run(); err != nil {
			t.Fatalf("kill the proxy: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
		if _, err := in.Write([]byte("\n")); err != nil {
			t.Fatal(err)
		}
		rest := new(bytes.Buffer)
		_, _ = rest.ReadFrom(out)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the allowed name was not reached again: %v\n%s", err, rest)
		}
	})
}
