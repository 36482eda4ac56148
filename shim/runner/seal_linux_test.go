package runner

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/netns/netnstest"
)

// A program that was sealed runs, and cannot be written to by who finds it as /proc/PID/exe: CVE-2019-5736. The control is the program as it lies
// there, opened for its path only.
func TestSealedProgramsCannotBeWritten(t *testing.T) {
	netnstest.Run(t, func(t *testing.T) { // in which an overlay may be made
		path, err := exec.LookPath("true")
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		program, empty := filepath.Join(t.TempDir(), `a:b\c`, "program"), t.TempDir()
		if err := os.Mkdir(filepath.Dir(program), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(program, text, 0o755); err != nil {
			t.Fatal(err)
		}
		open := func(path, _ string) (*os.File, error) {
			fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
			return os.NewFile(uintptr(fd), path), err
		}
		for _, row := range []struct {
			name string
			seal func(path, tmp string) (*os.File, error)
			want error
		}{
			{"overlay", throughOverlay, unix.EROFS}, {"copy", copyOf, unix.EPERM}, {"nothing", open, nil},
		} {
			f, err := row.seal(program, empty)
			if err != nil {
				t.Errorf("%s: %v", row.name, err)
				continue
			}
			defer f.Close()
			magic := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
			cmd := exec.Command("/proc/self/fd/3")
			cmd.ExtraFiles = []*os.File{f}
			if err := cmd.Run(); err != nil {
				t.Errorf("%s: it does not run: %v", row.name, err)
			}
			if err := writeTo(magic); !errors.Is(err, row.want) {
				t.Errorf("%s: written to: %v, want %v", row.name, err, row.want)
			}
		}
		if got, err := os.ReadFile(program); err != nil || !bytes.Equal(got, append([]byte("x"), text[1:]...)) {
			t.Errorf("the control did not write, or it was not alone: %v", err)
		}
	})
}

// writeTo writes over a file's first byte.
func writeTo(path string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Pwrite(fd, []byte("x"), 0)
	return err
}
