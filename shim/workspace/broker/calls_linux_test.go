package broker

import (
	"errors"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/shim/runner/seccomp"
	"cofferdam.dev/cofferdam/spec"
)

// TestEveryQuestionHasAnAnswer holds the filter and the handlers together: a call that asks and has no handler would never work in a
// workspace, one that has a handler and does not ask is refused there.
func TestEveryQuestionHasAnAnswer(t *testing.T) {
	profile, err := spec.Seccomp(runtime.GOARCH, true)
	if err != nil {
		t.Fatal(err)
	}
	f, err := seccomp.Filter(profile)
	if err != nil {
		t.Fatal(err)
	}
	asks := map[int32]string{}
	for _, r := range f.Rules {
		if r.Ask {
			asks[int32(r.Number)] = r.Call
		}
	}
	for number, call := range asks {
		if handlers[number] == nil && legacy[number] == nil {
			t.Errorf("%s asks, and nobody answers", call)
		}
	}
	for _, set := range []map[int32]func(*request) outcome{handlers, legacy} {
		for number := range set {
			if asks[number] == "" {
				t.Errorf("call %d has an answer and does not ask", number)
			}
		}
	}
	if len(asks) == 0 {
		t.Error("nothing asks")
	}
}

// TestAListenersCallIsTheKernels compares the requests of ioctl(2) with how asm-generic/ioctl.h makes them.
func TestAListenersCallIsTheKernels(t *testing.T) {
	const read, write = 2, 1
	request := func(dir, number, size uintptr) uintptr { return dir<<30 | size<<16 | '!'<<8 | number }
	for _, r := range []struct{ got, want uintptr }{
		{notifyReceive, request(read|write, 0, 80)},
		{notifySend, request(read|write, 1, 24)},
		{notifyValid, request(write, 2, 8)},
		{notifyAdd, request(write, 3, 24)},
		{notifySetFlags, request(write, 4, 8)},
	} {
		if r.got != r.want {
			t.Errorf("%#x, want %#x", r.got, r.want)
		}
	}
}

// An id of the caller's is what the kernel would take it for, or none.
func TestMapped(t *testing.T) {
	const some = "      4711          0          1\n         0     300000       4711\n      4712     304711      60824\n"
	for _, test := range []struct {
		text string
		id   uint32
		want int
		err  error
	}{
		{"         0          0 4294967295\n", 42, 42, nil},
		{"         0          0 4294967295\n", 1<<32 - 2, 1<<32 - 2, nil},
		{some, 4711, 0, nil},
		{some, 0, 300000, nil},
		{some, 4710, 304710, nil},
		{some, 4712, 304711, nil},
		{some, 65535, 365534, nil},
		{some, 65536, 0, unix.EINVAL},
		{"", 0, 0, unix.EINVAL},
		{"0 0\n", 0, 0, unix.EPERM},
		{"0 x 1\n", 0, 0, unix.EPERM},
	} {
		if got, err := mapped(test.text, test.id); got != test.want || !errors.Is(err, test.err) {
			t.Errorf("%d in %q: %d, %v", test.id, test.text, got, err)
		}
	}
}
