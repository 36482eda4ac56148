//go:build linux

package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/integration/attack"
)

// verdict puts the result of an attack that is a test of its own into the table. what is what went through, with nothing for none.
func verdict(t *testing.T, id, front, what, control string, shown bool) {
	t.Helper()
	r := attack.Result{ID: id, Front: front, Outcome: "nothing went through", Control: control}
	if what != "" {
		r.Outcome, r.Failed = "ESCAPED", true
		t.Errorf("%s: %s", id, what)
	}
	if !shown {
		r.Control, r.Failed = failed+": "+control, true
		t.Errorf("%s: the control shows nothing: %s", id, control)
	}
	if !slices.ContainsFunc(attack.All(), func(a attack.Attack) bool { return a.ID == id && a.Test != "" && strings.HasPrefix(t.Name(), a.Test) }) {
		t.Errorf("%s: no row of the table says that this test makes it", id)
	}
	keep(r)
}

// A streamed attack is a script, and what its input and its output are.
type streamed struct {
	id      string
	script  string
	in, out string // files; "" is a pipe
	extra   string // is left open as descriptor 9
	worked  func(stdout string) bool
}

// streamedAttacks are made with files in dir, which has a file "secret".
func streamedAttacks(dir string) []streamed {
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	return []streamed{
		{"file.stream-input", `echo spoiled >/proc/self/fd/0`, in, "", "", func(string) bool {
			b, err := os.ReadFile(in)
			return err != nil || string(b) != untouched
		}},
		{"file.stream-folder", `cat /proc/self/fd/0/secret`, dir, "", "", func(stdout string) bool { return strings.Contains(stdout, "of the host") }},
		{"file.stream-output", `echo program; chmod 4755 /proc/self/fd/1`, "", out, "", func(string) bool {
			st, err := os.Stat(out)
			return err != nil || st.Mode()&os.ModeSetuid != 0
		}},
		{"file.stream-inherited", `cat /proc/self/fd/9/secret`, "", "", dir, func(stdout string) bool { return strings.Contains(stdout, "of the host") }},
	}
}

// do makes it with a command that runs a script, and tells whether it worked.
func (s streamed) do(t *testing.T, dir string, cmd *exec.Cmd) bool {
	t.Helper()
	for name, text := range map[string]string{"in": untouched, "out": "", "secret": "of the host\n"} {
		file := filepath.Join(dir, name)
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	if s.in != "" {
		f, err := os.Open(s.in)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.Stdin = f
	}
	if s.out != "" {
		f, err := os.OpenFile(s.out, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.Stdout = f
	}
	if s.extra != "" {
		f, err := os.Open(s.extra)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.ExtraFiles = []*os.File{f, f, f, f, f, f, f} // 3 to 9
	}
	_ = cmd.Run() // what became of the files says it
	return s.worked(stdout.String())
}

// An agent has its streams, and no file, folder or device of whoever started it.
func TestStreamsGiveNothingAway(t *testing.T) {
	eachPersonAndRanged(t, func(t *testing.T, p person) {
		dir := filepath.Join(filepath.Dir(p.home), "streams")
		if err := os.Mkdir(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		for _, s := range streamedAttacks(dir) {
			open := exec.Command("sh", "-c", s.script)
			control := s.do(t, dir, open)
			what := ""
			if s.do(t, dir, p.command(t, "run", "--", "sh", "-c", s.script)) {
				what = "it went through"
			}
			verdict(t, s.id, "run-"+p.name, what, "it went through without a sandbox", control)
		}
	})
	t.Run("null", func(t *testing.T) {
		// The mode that is set gives nobody less than before.
		mode := func() uint32 {
			var st unix.Stat_t
			if err := unix.Stat(os.DevNull, &st); err != nil {
				t.Fatal(err)
			}
			return st.Mode & 0o7777
		}
		before := mode()
		restore := func() {
			if err := unix.Chmod(os.DevNull, before); err != nil {
				t.Fatal(err)
			}
		}
		t.Cleanup(restore)
		// Without a terminal beside it, libcontainer opens the sandbox's own device.
		p := newPerson(t, "root", 0)
		s := newScreen(t, p)
		s.typed("sh -c 'chmod 1666 /proc/self/fd/0' </dev/null; echo do''ne\r")
		s.expect(`done\r\n`)
		control := mode() != before
		restore()
		s.typed("$CD run sh -c 'chmod 1666 /proc/self/fd/0; echo tri''ed' </dev/null\r")
		s.expect(`tried\r\n`)
		what := ""
		if mode() != before {
			what = fmt.Sprintf("the mode of %s was changed", os.DevNull)
		}
		verdict(t, "file.stream-device", "run-root", what, "the mode of the host's device was changed", control)
	})
}
