package runner

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// opened opens a file of a test.
func opened(t *testing.T, name string, flags int, text string) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// twin is what an agent has: a descriptor of its own.
func twin(t *testing.T, f *os.File) *os.File {
	t.Helper()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	own := os.NewFile(uintptr(fd), "agent's")
	t.Cleanup(func() { own.Close() })
	return own
}

func TestStreamsAreNoFilesOfTheCaller(t *testing.T) {
	in, out := opened(t, "in", os.O_RDONLY, "one\ntwo\nthree\n"), opened(t, "out", os.O_WRONLY|os.O_APPEND, "before\n")
	if _, err := io.ReadFull(in, make([]byte, len("one\n"))); err != nil {
		t.Fatal(err)
	}
	s, err := newStreams([3]*os.File{in, out, out})
	if err != nil {
		t.Fatal(err)
	}
	var agents [3]*os.File
	for i, f := range s.given {
		if st, err := f.Stat(); err != nil || st.Mode()&os.ModeNamedPipe == 0 {
			t.Errorf("descriptor %d is %v, %v; want a pipe", i, st.Mode(), err)
		}
		agents[i] = twin(t, f)
	}
	s.start()
	line := make([]byte, len("two\n"))
	if _, err := io.ReadFull(agents[0], line); err != nil || string(line) != "two\n" {
		t.Errorf("the agent reads %q, %v", line, err)
	}
	for i := range 3 {
		fmt.Fprintf(agents[1], "out %d\n", i)
		fmt.Fprintf(agents[2], "err %d\n", i)
	}
	// The agent's ends stay open, as if it had handed them on; what is written later is nobody's.
	if err := s.close(); err != nil {
		t.Error(err)
	}
	if _, err := agents[1].WriteString("later\n"); err == nil {
		t.Error("somebody reads what is written after the end")
	}
	if got, err := os.ReadFile(out.Name()); err != nil || string(got) != "before\nout 0\nerr 0\nout 1\nerr 1\nout 2\nerr 2\n" {
		t.Errorf("the output is %q, %v", got, err)
	}
	if rest, err := io.ReadAll(in); err != nil || string(rest) != "three\n" {
		t.Errorf("%q is left for the caller, %v", rest, err)
	}
}

// An agent can write to the pipe that it reads from. That moves nobody to before the place where they were.
func TestStreamsGoNoFurtherBack(t *testing.T) {
	in := opened(t, "in", os.O_RDONLY, "one\ntwo\n")
	if _, err := in.Seek(4, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	null := opened(t, "out", os.O_WRONLY, "")
	s, err := newStreams([3]*os.File{in, null, null})
	if err != nil {
		t.Fatal(err)
	}
	s.start()
	w, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", s.given[0].Fd()), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.WriteString(strings.Repeat("x", 100)); err != nil {
		t.Fatal(err)
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
	if at, err := in.Seek(0, io.SeekCurrent); err != nil || at < 4 || at > 8 {
		t.Errorf("the caller goes on at %d, %v", at, err)
	}
}

func TestStreamsOfOtherKinds(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	s, err := newStreams([3]*os.File{r, w, w})
	if err != nil {
		t.Fatal(err)
	}
	if s.given != [3]*os.File{r, w, w} {
		t.Error("pipes are not handed over as they are")
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}

	dir, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if _, err := newStreams([3]*os.File{dir, w, w}); err == nil {
		t.Error("a folder is handed over")
	}

	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	if s, err = newStreams([3]*os.File{r, full, w}); err != nil {
		t.Fatal(err)
	}
	agents := twin(t, s.given[1])
	s.start()
	if _, err := agents.Write(bytes.Repeat([]byte("x"), 3*buffer)); err == nil {
		t.Error("an agent is not told that its output goes nowhere")
	}
	if err := s.close(); err == nil || !strings.Contains(err.Error(), "no space left on device") {
		t.Errorf("got %v, want what the device said", err)
	}
}
