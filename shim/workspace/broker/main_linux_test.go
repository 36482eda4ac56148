package broker

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAListenerThatHasNoRoom is lost on its way, as where there are as many descriptors as may be: the broker is there for the others still.
func TestAListenerThatHasNoRoom(t *testing.T) {
	b, _ := desk(t)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	control := &Control{os.NewFile(uintptr(pair[0]), "broker")}
	ended := make(chan error, 1)
	go func() {
		err := b.obey(pair[1])
		unix.Close(pair[1])
		ended <- err
	}()
	if err := unix.Sendmsg(pair[0], []byte{sayListener}, nil, nil, 0); err != nil {
		t.Fatal(err)
	}
	b.report.changed("x")
	if r, err := control.Report(); err != nil || r.Changed != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	if err := control.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
