package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/netns/netnstest"
	"cofferdam.dev/cofferdam/shim/runner/pid1"
)

func TestEnds(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("#!/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	wrong := filepath.Join(dir, "wrong")
	if err := os.WriteFile(wrong, []byte("no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		args   []string
		path   string
		report pid1.Report
		status int
	}{
		{[]string{"true"}, "", exited(0), 0},
		{[]string{"/bin/sh", "-c", "exit 7"}, "", exited(7), 7},
		{[]string{"sh", "-c", "exit 255"}, "", exited(255), 255},
		{[]string{"sh", "-c", "kill -9 $$"}, "", killed(unix.SIGKILL), 137},
		{[]string{"sh", "-c", "kill $$"}, "", killed(unix.SIGTERM), 143},
		{[]string{"sh", "-c", "sleep 1000 & exit 3"}, "", exited(3), 3},
		{[]string{"no-such-command"}, "", pid1.Report{Event: pid1.Failed, Number: 127, Text: "no-such-command: not found"}, 127},
		{[]string{"true"}, "/nowhere", pid1.Report{Event: pid1.Failed, Number: 127, Text: "true: not found"}, 127},
		{[]string{"true"}, "", exited(0), 0},
		{[]string{"plain"}, dir, pid1.Report{Event: pid1.Failed, Number: 126, Text: "plain: permission denied"}, 126},
		{[]string{"sh", "-c", "exit 4"}, dir + ":/bin", exited(4), 4},
		{[]string{"./no/such"}, "", pid1.Report{Event: pid1.Failed, Number: 127, Text: "./no/such: not found"}, 127},
		{[]string{"/"}, "", pid1.Report{Event: pid1.Failed, Number: 126, Text: "/: permission denied"}, 126},
		{[]string{plain}, "", pid1.Report{Event: pid1.Failed, Number: 126, Text: plain + ": permission denied"}, 126},
		{[]string{wrong}, "", pid1.Report{Event: pid1.Failed, Number: 126, Text: wrong + ": exec format error"}, 126},
	} {
		t.Run(strings.Join(row.args, " ")+row.path, func(t *testing.T) {
			var s setup
			if row.path != "" {
				s.env = []string{"PATH=" + row.path} // the last one counts, of those that exec.Cmd is given
			}
			for _, user := range []*pid1.User{nil, {UID: 4711, GID: 4712}} {
				start := order(t, row.args...)
				start.User = user
				b := enter(t, s, start)
				if row.report.Event != pid1.Failed {
					b.expect(started)
				}
				b.expect(row.report)
				b.ends(row.status)
			}
		})
	}
}

func TestSignals(t *testing.T) {
	script := `
		trap 'echo agent' USR1 TERM
		sh -c 'trap "echo child USR1" USR1; trap "echo child TERM; exit" TERM; echo ready; while :; do sleep 0.01; done' &
		wait; wait; wait; echo done; exit 5`
	b := enter(t, setup{}, order(t, "sh", "-c", script))
	b.expect(started)
	if got := b.line(); got != "ready" {
		t.Fatal(got)
	}
	b.signal(unix.SIGUSR1, false)
	if got := b.line(); got != "agent" {
		t.Fatal(got)
	}
	b.signal(unix.SIGSTOP, true)
	b.expect(stopped(unix.SIGSTOP))
	b.signal(unix.SIGCONT, true)
	b.expect(pid1.Report{Event: pid1.Continued})
	b.signal(unix.SIGTERM, true)
	b.expect(exited(5))
	if got := b.ends(5); strings.Contains(got, "child USR1") || !strings.Contains(got, "child TERM\n") || !strings.HasSuffix(got, "done\n") {
		t.Errorf("%q", got)
	}
}

// What comes before there is an agent is the agent's as well, and does what it does to any program.
func TestSignalsOnTheWayIn(t *testing.T) {
	for _, number := range []unix.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2} {
		t.Run(unix.SignalName(number), func(t *testing.T) {
			b := enter(t, setup{}, order(t, "sleep", "100"))
			b.signal(number, true)
			b.expect(started, killed(number))
			if out := b.ends(128 + int(number)); out != "" {
				t.Errorf("%q", out)
			}
		})
	}
}

// Without a process of that group, the agent gets the group's signals all the same.
func TestSignalOfAGroupThatTheAgentHasLeft(t *testing.T) {
	b := enter(t, setup{}, act(t, "leave-group"))
	b.expect(started)
	b.line()
	b.signal(unix.SIGTERM, true)
	b.expect(killed(unix.SIGTERM))
	b.ends(143)
}

// A person sits at a pseudoterminal.
type person struct {
	t     *testing.T
	keys  console.Console
	shown chan string // what appears; closed at the end
	rest  string      // of it, what was not looked at yet
}

// terminal is a pseudoterminal: the person's side, and the box's.
func terminal(t *testing.T) (*person, *os.File) {
	t.Helper()
	keys, path, err := console.NewPty()
	if err != nil {
		t.Fatal(err)
	}
	p := &person{t: t, keys: keys, shown: make(chan string, 1000)}
	tty, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the terminal
		defer close(p.shown)
		for buf := make([]byte, 1<<10); ; {
			n, err := keys.Read(buf)
			if err != nil {
				return
			}
			p.shown <- string(buf[:n])
		}
	}()
	t.Cleanup(func() {
		tty.Close()
		keys.Close()
	})
	return p, tty
}

// sees waits until a text appears, after what was seen before.
func (p *person) sees(text string) {
	p.t.Helper()
	for late := time.After(20 * time.Second); ; {
		if _, rest, ok := strings.Cut(p.rest, text); ok {
			p.rest = rest
			return
		}
		select {
		case more, ok := <-p.shown:
			if !ok {
				p.t.Fatalf("the terminal has ended with %q, want %q", p.rest, text)
			}
			p.rest += more
		case <-late:
			p.t.Fatalf("the terminal shows %q, want %q", p.rest, text)
		}
	}
}

func (p *person) types(text string) {
	p.t.Helper()
	if _, err := p.keys.Write([]byte(text)); err != nil {
		p.t.Fatal(err)
	}
}

// onTerminal is a command with the terminal as its input and output.
func onTerminal(t *testing.T, args ...string) pid1.Start {
	t.Helper()
	start := order(t, args...)
	start.Terminal, start.Stdio = true, [3]pid1.Stream{pid1.Given, pid1.Given, pid1.Given}
	return start
}

func TestKeysOfATerminal(t *testing.T) {
	for _, user := range []*pid1.User{nil, {UID: 4711, GID: 4712}} {
		person, tty := terminal(t)
		start := onTerminal(t, "sh", "-c", "echo ready; exec cat")
		start.User = user
		b := enter(t, setup{tty: tty}, start)
		b.expect(started)
		person.sees("ready")
		person.types("hello\n")
		person.sees("hello\r\nhello") // the echo, and cat's: it may read, so it is the foreground
		person.types("\x1a")
		b.expect(stopped(unix.SIGTSTP))
		b.signal(unix.SIGCONT, true)
		b.expect(pid1.Report{Event: pid1.Continued})
		person.types("again\n")
		person.sees("again\r\nagain")
		person.types("\x03")
		b.expect(killed(unix.SIGINT))
		b.ends(130)
	}
}

// The agent is the foreground before its first instruction: one that reads at once is not stopped.
func TestForegroundFromTheStart(t *testing.T) {
	for range 20 {
		person, tty := terminal(t)
		person.types("typed ahead\n")
		b := enter(t, setup{tty: tty}, onTerminal(t, "head", "-n", "1"))
		b.expect(started, exited(0))
		b.ends(0)
	}
}

func TestJobControl(t *testing.T) {
	for _, shell := range [][]string{{"sh", "-i"}, {"bash", "--norc", "-i"}} {
		t.Run(shell[0], func(t *testing.T) {
			netnstest.Require(t, shell[0])
			person, tty := terminal(t)
			b := enter(t, setup{tty: tty, env: []string{"PS1=prompt> ", "TERM=dumb"}}, onTerminal(t, shell...))
			b.expect(started)
			person.sees("> ")
			person.types("sh -c 'echo runs; exec cat'\n")
			person.sees("\nruns\r\n")
			person.types("\x1a")
			person.sees("topped") // bash writes it with a capital
			person.sees("> ")
			person.types("fg\n")
			person.sees("exec cat")
			person.types("again\n")
			person.sees("again\r\nagain")
			person.types("\x03")
			person.sees("> ")
			person.types("exit 5\n")
			b.expect(exited(5))
			b.ends(5)
		})
	}
}

// The terminal may be one stream only; the others are files of their own.
func TestStreams(t *testing.T) {
	person, tty := terminal(t)
	start := order(t, "sh", "-c", "echo out; echo err >&2; read x; echo got $x")
	start.Terminal, start.Stdio = true, [3]pid1.Stream{pid1.Given, pid1.Extra(0), pid1.Given}
	b := enter(t, setup{tty: tty}, start)
	b.expect(started)
	person.sees("err")
	person.types("typed\n")
	b.expect(exited(0))
	if got := b.ends(0); got != "out\ngot typed\n" {
		t.Errorf("%q", got)
	}
}

// The agent has the streams of its order, and no other descriptor of the first process or of the runner.
func TestDescriptors(t *testing.T) {
	spare, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer spare.Close()
	for _, row := range []struct {
		stdio [3]pid1.Stream
		want  string
	}{
		{[3]pid1.Stream{pid1.Given, pid1.Extra(0), pid1.Given}, "0 1 2"},
		{[3]pid1.Stream{pid1.Closed, pid1.Extra(0), pid1.Given}, "1 2"},
		{[3]pid1.Stream{pid1.Closed, pid1.Extra(0), pid1.Closed}, "1"},
		{[3]pid1.Stream{pid1.Extra(2), pid1.Extra(0), pid1.Extra(1)}, "0 1 2"},
	} {
		start := order(t, "sh", "-c", "for fd in 0 1 2 3 4 5 6 7 8 9; do if [ -e /proc/$$/fd/$fd ]; then echo $fd; fi; done")
		start.Stdio = row.stdio
		b := enter(t, setup{addFiles: []*os.File{spare, spare, spare, spare}}, start)
		b.expect(started, exited(0))
		if got := strings.Join(strings.Fields(b.ends(0)), " "); got != row.want {
			t.Errorf("%v: the agent has descriptors %q, want %q", row.stdio, got, row.want)
		}
	}
}

// Whoever reads what the agent writes sees the end of it as the agent closes it, not only as the container ends.
func TestNobodyElseHasTheStreams(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	start := order(t, "sh", "-c", "echo out; echo err >&2; exec >&- 2>&-; exec sleep 1000")
	start.Stdio = [3]pid1.Stream{pid1.Given, pid1.Given, pid1.Extra(0)}
	b := enter(t, setup{stdout: write}, start)
	write.Close()
	b.expect(started)
	if err := read.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(read); err != nil || string(got) != "out\n" {
		t.Errorf("%q, %v", got, err)
	}
	if got := b.all(); got != "err\n" {
		t.Errorf("%q", got)
	}
	b.signal(unix.SIGTERM, false)
	b.expect(killed(unix.SIGTERM))
}

// The signal that is blocked on the way into the foreground is not blocked for the agent, nor is any other.
func TestNoSignalIsBlocked(t *testing.T) {
	person, tty := terminal(t)
	b := enter(t, setup{tty: tty}, onTerminal(t, "grep", "-e", "^SigBlk:", "-e", "^SigIgn:", "/proc/self/status"))
	b.expect(started, exited(0))
	person.sees("SigBlk:\t0000000000000000\r\nSigIgn:\t0000000000000000\r\n")
}

// The environment and the folder are those of the container.
func TestEnvironmentAndFolder(t *testing.T) {
	b := enter(t, setup{env: []string{"A=1", "B=x y"}}, order(t, "sh", "-c", "pwd; env | grep -v -e ^PWD= -e ^_= -e ^OLDPWD= -e ^SHLVL= | sort"))
	b.expect(started, exited(0))
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	want := dir + "\nA=1\nB=x y\nGORACE=atexit_sleep_ms=10\nPATH=" + os.Getenv("PATH") + "\n"
	if got := b.ends(0); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestOrphansAreReaped(t *testing.T) {
	b := enter(t, setup{}, act(t, "orphans"))
	b.expect(started, exited(0))
	if got := b.ends(0); got != "" {
		t.Error(got)
	}
}

// lasting leaves processes in sessions of their own behind, and ignores what can be ignored.
const lasting = `trap "" TERM HUP INT; setsid sleep 1000 & setsid sh -c 'sleep 1000 & sleep 1000' & echo ready; sleep 1000; sleep 1000`

func TestTheContainerGoesWithItsRunner(t *testing.T) {
	for name, leave := range map[string]func(b *box) error{
		"gone":         func(b *box) error { return b.conn.Close() },
		"half gone":    func(b *box) error { return b.conn.CloseWrite() },
		"nonsense":     func(b *box) error { _, err := b.conn.Write([]byte("nonsense")); return err },
		"second order": func(b *box) error { return pid1.WriteStart(b.conn, order(b.t.(*testing.T), "true")) },
	} {
		t.Run(name, func(t *testing.T) {
			b := enter(t, setup{}, order(t, "sh", "-c", lasting))
			b.expect(started)
			b.line()
			if err := leave(b); err != nil {
				t.Fatal(err)
			}
			b.ends(137)
		})
	}
}

// The thread that started the container ends, while somebody else has the socket still.
func TestTheContainerGoesWithItsThread(t *testing.T) {
	leave := make(chan struct{})
	b := enter(t, setup{bind: true, started: func() { <-leave }}, order(t, "sh", "-c", lasting))
	b.expect(started)
	b.line()
	close(leave)
	<-b.waited
	if got := b.cmd.ProcessState.String(); got != "signal: killed" {
		t.Errorf("the container ends with %s", got)
	}
	b.all()
}

func TestARunnerThatNeverOrders(t *testing.T) {
	for name, leave := range map[string]func(b *box) error{
		"gone":     func(b *box) error { return b.conn.CloseWrite() },
		"nonsense": func(b *box) error { _, err := b.conn.Write([]byte("nonsense")); return err },
		"a signal": func(b *box) error { return pid1.WriteSignal(b.conn, pid1.Signal{Number: unix.SIGTERM}) },
	} {
		t.Run(name, func(t *testing.T) {
			b := makeBox(t, setup{})
			if err := leave(b); err != nil {
				t.Fatal(err)
			}
			report, err := pid1.ReadReport(b.conn)
			if err != nil || report.Event != pid1.Failed || report.Number != pid1.StatusFailed {
				t.Errorf("report %+v, %v", report, err)
			}
			b.ends(pid1.StatusFailed)
		})
	}
}

// Without no_new_privs the kernel takes no filter of somebody without CAP_SYS_ADMIN: there is no agent.
func TestNoAgentWithoutItsFilter(t *testing.T) {
	b := enter(t, setup{how: "privileged"}, order(t, "true"))
	b.expect(pid1.Report{Event: pid1.Failed, Number: pid1.StatusFailed, Text: "restrict system calls: permission denied"})
	b.ends(pid1.StatusFailed)
}

func TestEverybodyIsUnderTheFilter(t *testing.T) {
	for _, user := range []*pid1.User{nil, {UID: 4711, GID: 4712}} {
		start := order(t, "grep", "-h", "-e", "^Seccomp:", "-e", "^NoNewPrivs:", "-e", "^Name:", "/proc/1/status", "/proc/self/status")
		start.User = user
		b := enter(t, setup{}, start)
		b.expect(started, exited(0))
		want := "Name:\tcofferdam-init\nNoNewPrivs:\t1\nSeccomp:\t2\nName:\tgrep\nNoNewPrivs:\t1\nSeccomp:\t2\n"
		if got := b.ends(0); got != want {
			t.Errorf("%q", got)
		}
		start.Args = []string{"unshare", "-U", "true"}
		b = enter(t, setup{}, start)
		b.expect(started, exited(1))
		b.ends(1)
	}
}

// Rootless without subordinate ids: root outside the agent's namespace, the caller's own user inside.
func TestUser(t *testing.T) {
	start := order(t, "sh", "-c", "id -u; id -g; stat -c '%u %g' /proc/self; grep Cap /proc/self/status; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups")
	start.User = &pid1.User{UID: 4711, GID: 4712}
	b := enter(t, setup{}, start)
	b.expect(started, exited(0))
	got := strings.Join(strings.Fields(b.ends(0)), " ")
	for _, want := range []string{"4711 4712 4711 4712 ", "CapPrm: 0000000000000000 CapEff: 0000000000000000 ", "CapAmb: 0000000000000000", " 4711 0 1 4712 0 1 deny"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q, want %q in it", got, want)
		}
	}
}

// An agent with the same user tries what it can on PID 1, and does the same to a process of its own, which shows that it can.
func TestAttacks(t *testing.T) {
	for _, user := range []*pid1.User{nil, {UID: 4711, GID: 4712}} {
		start := act(t, "attack")
		start.User = user
		b := enter(t, setup{}, start)
		b.expect(started)
		if got := b.all(); got != "" {
			t.Errorf("user %v:\n%s", user, got)
		}
		b.expect(exited(0))
	}
}

// TestMemory holds the idle first process to what it is built for: 2 MiB, of which Go's runtime takes more or less.
func TestMemory(t *testing.T) {
	b := enter(t, setup{}, order(t, "sh", "-c", "echo ready; exec sleep 1000"))
	b.expect(started)
	b.line()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", b.cmd.Process.Pid))
	if err != nil {
		netnstest.Skip(t, "smaps_rollup", err.Error())
	}
	_, rest, _ := strings.Cut(string(text), "\nPss:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d KiB proportional set size", kib)
	if os.Getpagesize() == 4<<10 && kib > 2304 {
		t.Errorf("%d KiB:\n%s", kib, text)
	}
}

func BenchmarkStart(b *testing.B) {
	for range b.N {
		box := enter(b, setup{}, order(b, "true"))
		box.expect(started, exited(0))
		box.ends(0)
	}
}
