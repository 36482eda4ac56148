//go:build linux

package integration

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/integration/ctrd"
	"cofferdam.dev/cofferdam/integration/lab"
)

func TestASandboxRunsToItsEnd(t *testing.T) {
	Require(t, needShim)
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		before, ws := lab.Take(), Workspace(t)
		got := d.Run(t, ctrd.Container{
			Image: agentImage, Runtime: ctrd.Cofferdam, Workspace: ws, Args: []string{"sh", "-c", "echo out; echo err >&2; echo made >/workspace/f; exit 7"},
		})
		if got.Code != 7 || got.Stdout != "out\n" || !strings.HasSuffix("\n"+got.Stderr, "\nerr\n") { // ctr warns before
			t.Errorf("got %s", got)
		}
		if data, err := os.ReadFile(filepath.Join(ws, "f")); err != nil || string(data) != "made\n" {
			t.Errorf("workspace/f = %q, %v", data, err)
		}
		lab.NoLeftovers(t, before, notOfASandbox...)
	})
}

// openTerminal returns the two sides of a new pseudoterminal, pty(7).
func openTerminal(t testing.TB) (ours, theirs *os.File) {
	t.Helper()
	ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close() })
	unlocked := 0
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, ours.Fd(), unix.TIOCSPTLCK, uintptr(unsafe.Pointer(&unlocked))); errno != 0 {
		t.Fatal("TIOCSPTLCK:", errno)
	}
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, ours.Fd(), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		t.Fatal("TIOCGPTPEER:", errno)
	}
	return ours, os.NewFile(fd, "terminal")
}

func TestASandboxHasATerminal(t *testing.T) {
	Require(t, needShim)
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		const ask = "test -t 0 && test -t 1 && tty; read word; echo heard $word; exit 5"
		box := Contained(t, d, "")
		for _, args := range [][]string{
			{"run", "--rm", "--tty", "--runtime", ctrd.Cofferdam, agentImage, "terminal", "sh", "-c", ask},
			{"task", "exec", "--tty", "--exec-id", "terminal", box.ID, "sh", "-c", ask},
		} {
			ours, theirs := openTerminal(t)
			cmd := d.Command(t.Context(), args...)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, theirs
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			theirs.Close()
			if _, err := ours.WriteString("hello\n"); err != nil {
				t.Fatal(err)
			}
			out, _ := io.ReadAll(ours) // ends with EIO when nobody has the other side any more
			cmd.Wait()
			contains(t, "terminal of ctr "+args[0], string(out), "/dev/pts/", "heard hello")
			if code := cmd.ProcessState.ExitCode(); code != 5 {
				t.Errorf("ctr %s: exit code %d, want 5", args[0], code)
			}
		}
		if got := box.Exec(t, "test", "-t", "0"); got.Code != 1 {
			t.Errorf("without one: %s", got)
		}
	})
}

// TestAnExecHasNoMoreRightsThanTheAgent looks at processes that an engine adds with everything that ctr can ask for. Invariant I5.
func TestAnExecHasNoMoreRightsThanTheAgent(t *testing.T) {
	Require(t, needShim)
	rights := func(t *testing.T, box *ctrd.Running, pid string) map[string]string {
		got := box.Exec(t, "grep", "-E", "^(Cap|NoNewPrivs|Seccomp:)", "/proc/"+pid+"/status")
		out := map[string]string{}
		for line := range strings.Lines(got.Stdout) {
			k, v, _ := strings.Cut(strings.TrimSpace(line), ":")
			out[k] = strings.TrimSpace(v)
		}
		if len(out) != 7 {
			t.Fatal(got)
		}
		return out
	}
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		open := d.StartContainer(t, ctrd.Container{Image: agentImage, Runtime: ctrd.Stock, Flags: greedy})
		if r := rights(t, open, "self"); r["NoNewPrivs"] != "0" || r["Seccomp"] != "0" {
			t.Errorf("control: %v", r)
		}
		box := Contained(t, d, "", greedy...)
		first, added := rights(t, box, "1"), rights(t, box, "self")
		if fmt.Sprint(first) != fmt.Sprint(added) {
			t.Errorf("the first process has %v, the added one %v", first, added)
		}
		bits, err := strconv.ParseUint(added["CapBnd"], 16, 64)
		const forbidden = 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_NET_RAW | 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_SYS_PTRACE
		if err != nil || bits&forbidden != 0 || added["NoNewPrivs"] != "1" || added["Seccomp"] != "2" {
			t.Errorf("it has %v, %v", added, err)
		}
		if got := box.Exec(t, "sh", "-c", "echo out; exit 9"); got.Code != 9 || got.Stdout != "out\n" {
			t.Errorf("exec: %s", got)
		}
	})
}

// counting writes rising numbers to the workspace.
var counting = []string{"sh", "-c", "i=0; while :; do i=$((i+1)); echo $i >/workspace/n.new; mv /workspace/n.new /workspace/n; usleep 5000; done"}

func TestATaskIsControlled(t *testing.T) {
	Require(t, needShim)
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		before := lab.Take()
		start := func() (*ctrd.Running, func() int) {
			ws := Workspace(t)
			box := d.StartContainer(t, ctrd.Container{Image: agentImage, Runtime: ctrd.Cofferdam, Workspace: ws, Args: counting})
			return box, func() int {
				data, _ := os.ReadFile(filepath.Join(ws, "n"))
				n, _ := strconv.Atoi(strings.TrimSpace(string(data)))
				return n
			}
		}
		box, count := start()
		other, clock := start()
		passes := func(count func() int) {
			t.Helper()
			n := count()
			eventually(t, "a counter rises", func() bool { return count() >= n+5 })
		}
		passes(count)

		d.MustCtr(t, "task", "pause", box.ID)
		contains(t, "task list", d.MustCtr(t, "task", "list").Stdout, "PAUSED")
		n := count()
		passes(clock) // the other's time goes on
		if got := count(); got != n {
			t.Errorf("a paused agent has counted from %d to %d", n, got)
		}
		d.MustCtr(t, "task", "resume", box.ID)
		passes(count)

		contains(t, "task metrics", d.MustCtr(t, "task", "metrics", box.ID).Stdout, box.ID, "memory.", "pids.")
		contains(t, "task ps", d.MustCtr(t, "task", "ps", box.ID).Stdout, fmt.Sprint(box.PID(t)))

		d.MustCtr(t, "task", "kill", "--signal", "SIGKILL", box.ID)
		eventually(t, "the task stops", func() bool {
			return slices.ContainsFunc(strings.Split(d.MustCtr(t, "task", "list").Stdout, "\n"), func(line string) bool {
				return strings.HasPrefix(line, box.ID+" ") && strings.Contains(line, "STOPPED")
			})
		})
		contains(t, "ps", psLine(t, d, box), "exited")
		if got := d.Ctr(t, "task", "rm", box.ID); got.Code != 0 || !strings.Contains(got.Stderr, "exit code 137") { // 128 and the signal
			t.Errorf("task rm: %s", got)
		}
		if line := psLine(t, d, box); line != "" {
			t.Errorf("the sandbox of a removed task is there: %s", line)
		}
		if got := d.Ctr(t, "task", "kill", box.ID); got.Code == 0 || !strings.Contains(got.Stderr, "not found") {
			t.Errorf("task kill of a removed task: %s", got)
		}
		d.MustCtr(t, "containers", "rm", box.ID)
		passes(clock)
		other.Remove(t)
		box.Remove(t) // the harness forgets it
		lab.NoLeftovers(t, before, notOfASandbox...)
	})
}

func TestASignalReachesTheAgent(t *testing.T) {
	Require(t, needShim)
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		ws := Workspace(t)
		box := d.StartContainer(t, ctrd.Container{
			Image: agentImage, Runtime: ctrd.Cofferdam, Workspace: ws,
			Args: []string{"sh", "-c", "trap 'exit 3' TERM; >/workspace/ready; while :; do usleep 5000; done"},
		})
		eventually(t, "the agent has its handler", func() bool { _, err := os.Stat(filepath.Join(ws, "ready")); return err == nil })
		d.MustCtr(t, "task", "kill", box.ID)
		eventually(t, "the task stops", func() bool { return strings.Contains(psLine(t, d, box), "exited") })
		if got := d.Ctr(t, "task", "rm", box.ID); got.Code != 0 || !strings.Contains(got.Stderr, "exit code 3") {
			t.Errorf("task rm: %s", got)
		}
	})
}

// named is a test by another name, of which Policy makes another policy.
type named struct {
	testing.TB
	name string
}

func (n named) Name() string { return n.name }

// TestEachSandboxHasItsOwnPolicy runs two at once. Every sandbox has the same addresses, so one's answer in the other would show. Invariant I2.
func TestEachSandboxHasItsOwnPolicy(t *testing.T) {
	Require(t, needShim)
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		l := lab.Get(t)
		names := []string{"good.test", "cdn-good.test"}
		var boxes []*ctrd.Running
		for _, name := range names {
			policy := Policy(named{t, t.Name() + name}, "version: 1\nnetwork:\n  rules:\n    - allow: "+name+"\n")
			boxes = append(boxes, Contained(t, d, policy))
		}
		for i, box := range boxes {
			for j, name := range names {
				calm(t, l)
				mark := l.Mark(t)
				got := box.Probe(t, "https", name+":443", name)
				if got.OK != (i == j) {
					t.Errorf("sandbox %d, %s: %s", i, name, got)
				}
				if i != j {
					l.Silent(t, mark)
				}
			}
		}
	})
}
