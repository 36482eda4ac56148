package netnstest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inside is set in a re-executed test binary, to the test it is to run.
const inside = "COFFERDAM_NETNSTEST"

// Run runs f in fresh namespaces; nothing of the test but f may have effects,
// since what precedes the call runs outside and again inside.
func Run(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	if os.Getenv(inside) == t.Name() {
		// What f mounts is not to reach the mounts outside.
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			Skip(t, "netns", fmt.Sprintf("make mounts private: %v", err))
		}
		f(t)
		return
	}
	args := []string{"-test.run=" + pattern(t.Name()), "-test.v", "-test.count=1"}
	if end, ok := t.Deadline(); ok {
		args = append(args, "-test.timeout="+time.Until(end).String())
	}
	out, err := run(os.Args[0], args, inside+"="+t.Name())
	if errors.As(err, new(*startError)) {
		Skip(t, "netns", err.Error())
	}
	result := func(word string) bool {
		return bytes.Contains(out, []byte("--- "+word+": "+t.Name()+" ("))
	}
	switch {
	case err != nil:
		t.Fatalf("in namespaces: %v\n%s", err, out)
	case result("SKIP"):
		t.Skipf("in namespaces:\n%s", out)
	case !result("PASS"): // such as a name that -test.run does not find
		t.Fatalf("in namespaces: the test did not run\n%s", out)
	case testing.Verbose():
		t.Logf("in namespaces:\n%s", out)
	}
}

// pattern is the -test.run that matches the one test.
func pattern(name string) string {
	parts := strings.Split(name, "/")
	for i, p := range parts {
		parts[i] = "^" + regexp.QuoteMeta(p) + "$"
	}
	return strings.Join(parts, "/")
}

// A startError says that a process in new namespaces could not be made.
type startError struct{ error }

// run runs a program in fresh namespaces and returns what it wrote.
func run(path string, args []string, env ...string) ([]byte, error) {
	// The parent-death signal is that of the thread which started the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var out bytes.Buffer
	cmd := exec.Command(path, args...)
	// A test built with -race would sleep for a second at its end.
	cmd.Env = append([]string{"GORACE=atexit_sleep_ms=10"}, append(os.Environ(), env...)...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return nil, &startError{fmt.Errorf("start in user, network and mount namespaces: %w", err)}
	}
	err := cmd.Wait()
	return out.Bytes(), err
}

func requireNetns(t testing.TB) {
	t.Helper()
	if _, err := run("/proc/self/exe", []string{"-test.list=^$"}); err != nil {
		Skip(t, "netns", err.Error())
	}
}
