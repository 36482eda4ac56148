package shim

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	runc "github.com/containerd/go-runc"
	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/netns/netnstest"
)

// started keeps the command that it is to start.
type started struct {
	runc.ProcessMonitor
	cmd *exec.Cmd
}

func (s *started) Start(cmd *exec.Cmd) (chan runc.Exit, error) {
	s.cmd = cmd
	return nil, cmd.Run()
}

func TestNullIsNobodysToChange(t *testing.T) {
	if os.Geteuid() != 0 {
		netnstest.Skip(t, "root", "only root has a mount of its own for the null device")
	}
	inner := &started{}
	m, err := newNullMonitor(inner)
	if err != nil {
		t.Fatal(err)
	}
	// As go-runc has it: what is not there, and what it has opened itself.
	device, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	cmd := exec.Command("sh", "-c", "cat; echo text; chmod 0666 /proc/self/fd/0 2>/dev/null; test $? = 1")
	cmd.Stdout, cmd.Stderr = device, device
	if _, err := m.Start(cmd); err != nil {
		t.Errorf("the mode could be changed, or nothing was read and written: %v", err)
	}
	for _, stream := range []any{cmd.Stdin, cmd.Stdout, cmd.Stderr} {
		f, ok := stream.(*os.File)
		if !ok || !isNull(f) {
			t.Fatalf("a stream is %v", stream)
		}
		if err := unix.Fchmod(int(f.Fd()), 0o666); !errors.Is(err, unix.EROFS) {
			t.Errorf("fchmod: %v", err)
		}
	}
	if err := unix.Fchmod(int(device.Fd()), 0o666); err != nil {
		t.Errorf("control: %v", err)
	}
	// Others stay.
	cmd = exec.Command("cat")
	in, out := strings.NewReader("x"), &strings.Builder{}
	cmd.Stdin, cmd.Stdout = in, out
	if _, err := m.Start(cmd); err != nil || out.String() != "x" || cmd.Stdin != in {
		t.Errorf("%q, %v", out, err)
	}
}
