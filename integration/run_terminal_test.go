//go:build linux

package integration

import (
	"bytes"
	"errors"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/console"
)

// screen is a person's terminal with an interactive shell in it: what they type, and what they have seen so far.
type screen struct {
	t    *testing.T
	pty  console.Console
	mu   sync.Mutex // guards seen
	seen bytes.Buffer
	at   int // what was expected and found so far
}

func newScreen(t *testing.T, p person) *screen {
	t.Helper()
	pty, path, err := console.NewPty()
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	if err := tty.Chown(int(p.id), int(p.id)); err != nil {
		t.Fatal(err)
	}
	if err := pty.Resize(console.WinSize{Height: 33, Width: 99}); err != nil {
		t.Fatal(err)
	}
	shell := p.command(t, "run")
	cofferdam := shell.Path
	shell.Path, shell.Args = "/bin/bash", []string{"bash", "--norc", "--noprofile", "-i"}
	shell.Env = append(shell.Env, "CD="+cofferdam, "PS1=$ ")
	shell.Stdin, shell.Stdout, shell.Stderr = tty, tty, tty
	if shell.SysProcAttr == nil {
		shell.SysProcAttr = &syscall.SysProcAttr{}
	}
	shell.SysProcAttr.Setsid, shell.SysProcAttr.Setctty = true, true
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	s := &screen{t: t, pty: pty}
	go func() { // ends with the terminal
		buf := make([]byte, 4096)
		for {
			n, err := pty.Read(buf)
			s.mu.Lock()
			s.seen.Write(buf[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = shell.Process.Kill()
		_ = shell.Wait()
		pty.Close()
	})
	return s
}

func (s *screen) typed(text string) {
	s.t.Helper()
	if _, err := s.pty.Write([]byte(text)); err != nil {
		s.t.Fatal(err)
	}
}

// expect waits until the pattern is seen behind what was expected before.
func (s *screen) expect(pattern string) {
	s.t.Helper()
	re := regexp.MustCompile(pattern)
	for deadline := time.Now().Add(10 * time.Second); ; <-time.After(5 * time.Millisecond) {
		s.mu.Lock()
		all := s.seen.String()
		s.mu.Unlock()
		if at := re.FindStringIndex(all[s.at:]); at != nil {
			s.at += at[1]
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%q is not seen after %q", pattern, all)
		}
	}
}

// A terminal in the sandbox is one: its size and what changes it, ^C, ^Z and the shell's jobs on both sides, exit statuses; and a pipe beside it
// stays one. Outside, the terminal is as it was.
func TestRunHasATerminal(t *testing.T) {
	eachPerson(t, func(t *testing.T, p person) {
		if _, err := os.Stat("/bin/bash"); err != nil {
			t.Fatal(errors.New("the shell of Debian is missing"))
		}
		s := newScreen(t, p)
		s.typed("$CD run sh -c 'stty size; tty; echo in''side; read x; stty size; exit 3'; echo status=$?\r")
		s.expect(`33 99\r\n/dev/pts/0\r\ninside\r\n`)
		if err := s.pty.Resize(console.WinSize{Height: 44, Width: 111}); err != nil {
			t.Fatal(err)
		}
		<-time.After(50 * time.Millisecond) // the signal's way to the other terminal, of which nobody tells
		s.typed("\r")
		s.expect(`44 111\r\n`)
		s.expect(`status=3\r\n`)

		s.typed("$CD run sh -c 'echo rea''dy; exec sleep 60'; echo status=$?\r")
		s.expect(`ready\r\n`)
		s.typed("\x03")
		s.expect(`status=130\r\n`)

		s.typed("$CD run sh -c 'echo rea''dy; exec sleep 61'\r")
		s.expect(`ready\r\n`)
		s.typed("\x1a")
		s.expect(`Stopped`)
		s.typed("stty -a | grep -o ' icanon'; fg\r")
		s.expect(`icanon`)
		<-time.After(100 * time.Millisecond) // until it has the terminal again
		s.typed("\x03")
		s.expect(`\^C(\r\n)?\$ `) // what is typed before is the agent's
		s.typed("echo status=$?\r")
		s.expect(`status=130\r\n`)

		// A shell inside has jobs of its own.
		s.typed("$CD run bash --norc --noprofile -i\r")
		s.typed("sh -c 'echo a''job; exec sleep 62'\r")
		s.expect(`ajob\r\n`) // before, a shell's child ignores what stops it
		s.typed("\x1a")
		s.expect(`Stopped +sh -c`)
		s.typed("kill -9 %1; sleep 0.3; exit 5\r")
		s.expect(`exit\r\n\$ `)
		s.typed("echo status=$?\r")
		s.expect(`status=5\r\n`)

		// Standard input is a pipe, and output the terminal.
		s.typed("printf 'a\\tb' | $CD run sh -c 'cat | od -c | head -1; test -t 0 && echo in''tty; test -t 1 && echo out''tty'\r")
		s.expect(`a +\\t +b`)
		s.expect(`outtty`)
		s.mu.Lock()
		defer s.mu.Unlock()
		if strings.Contains(s.seen.String(), "intty") {
			t.Error("a pipe became a terminal")
		}
	})
}
