// Package fault has the points at which a test injects faults: one after each step by which a sandbox is set up, one before each by which it is
// taken down.
//
// A build with the tag "faults", which tests make for themselves, tells in a file which points it passes, and does at one of them what a test has
// written into another file: the process is killed or stopped there, or the step fails. In every other build [Point] is an empty function,
// which the compiler takes out, and with it the rest of this package.
//
// It lies below netns since that is the lowest package that has such steps; shim, above, uses it too. Package proxy has none: to it a fault
// is the end of its process, or of what it talks to, and both can be had from outside.
package fault

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Folder is where a build with the tag looks for its plan. Without the folder it passes its points as any other build does. It must be the
// test's alone, and writable by whoever runs the build.
const Folder = "/run/cofferdam-faults"

// An Action is what happens at a point.
type Action string

// The actions.
const (
	Kill  Action = "kill"  // the process, by SIGKILL
	Stop  Action = "stop"  // the process, by SIGSTOP, until somebody continues it
	Fail  Action = "fail"  // the step fails with [ErrInjected]
	Full  Action = "full"  // the step fails with ENOSPC
	Delay Action = "delay" // the step takes longer by [Delayed]
)

// Actions are all of them.
var Actions = []Action{Kill, Stop, Fail, Full, Delay}

// Delayed is how long a step takes longer.
const Delayed = 300 * time.Millisecond

// ErrInjected is matched by the error of a step that was made to fail.
var ErrInjected = errors.New("injected fault")

// A Plan says what is to happen: at the Hit-th time, from 1 on, that any process passes the point, Action is done. At other times nothing
// is.
type Plan struct {
	Point  string
	Hit    int
	Action Action
}

func (p Plan) String() string { return fmt.Sprintf("%s at %q, hit %d", p.Action, p.Point, p.Hit) }

// A Passage is a point that a process has passed.
type Passage struct {
	PID   int
	Point string
	Done  Action // what happened there; empty: nothing
}

const (
	planFile   = "plan"
	passedFile = "passed"
)

// Write makes the folder anew, with the plan in it; the zero Plan is none.
func (p Plan) Write(folder string) error {
	if err := os.RemoveAll(folder); err != nil {
		return err
	}
	err := os.MkdirAll(folder, 0o755)
	if err == nil && p != (Plan{}) {
		err = os.WriteFile(filepath.Join(folder, planFile), fmt.Appendf(nil, "%s\t%d\t%s\n", p.Point, p.Hit, p.Action), 0o644)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(folder, passedFile), nil, 0o600)
	}
	if err == nil {
		err = os.Chmod(filepath.Join(folder, passedFile), 0o666) // the umask may have taken rights from it
	}
	return err
}

// Passed returns the points that were passed since [Plan.Write], in order.
func Passed(folder string) ([]Passage, error) {
	f, err := os.Open(filepath.Join(folder, passedFile))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readPassed(f)
}

func readPassed(r io.Reader) (passed []Passage, err error) {
	for lines := bufio.NewScanner(r); lines.Scan(); {
		var p Passage
		fields := strings.Split(lines.Text(), "\t")
		if len(fields) != 3 {
			return nil, fmt.Errorf("malformed passage %q", lines.Text())
		}
		if _, err := fmt.Sscan(fields[0], &p.PID); err != nil {
			return nil, fmt.Errorf("malformed passage %q", lines.Text())
		}
		p.Point, p.Done = fields[1], Action(fields[2])
		passed = append(passed, p)
	}
	return passed, nil
}

// Pass is what [Point] does in a build with the tag. What keeps it from telling what it passes is an error: a test would count on it.
func Pass(folder, point string) error {
	f, err := os.OpenFile(filepath.Join(folder, passedFile), os.O_RDWR|os.O_APPEND, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	action, err := tell(f, folder, point)
	if err != nil {
		return fmt.Errorf("fault point %q: %w", point, err)
	}
	f.Close() // with the lock, before this process stops
	switch action {
	case Kill, Stop:
		sig := unix.SIGKILL
		if action == Stop {
			sig = unix.SIGSTOP
		}
		if err := unix.Kill(os.Getpid(), sig); err != nil {
			return os.NewSyscallError("kill", err)
		}
	case Fail:
		return fmt.Errorf("%s: %w", point, ErrInjected)
	case Full:
		return fmt.Errorf("%s: %w: %w", point, ErrInjected, unix.ENOSPC)
	case Delay:
		<-time.After(Delayed)
	}
	return nil
}

// tell writes that the point is passed, and returns what is to happen there.
func tell(f *os.File, folder, point string) (Action, error) {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return "", os.NewSyscallError("flock", err)
	}
	before, err := readPassed(f)
	if err != nil {
		return "", err
	}
	var p Plan
	text, err := os.ReadFile(filepath.Join(folder, planFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if fields := strings.Split(strings.TrimSpace(string(text)), "\t"); len(fields) == 3 {
		p.Point, p.Action = fields[0], Action(fields[2])
		if _, err := fmt.Sscan(fields[1], &p.Hit); err != nil {
			return "", err
		}
	}
	hit := 1
	for _, b := range before {
		if b.Point == point {
			hit++
		}
	}
	if p.Point != point || p.Hit != hit {
		p.Action = ""
	}
	_, err = fmt.Fprintf(f, "%d\t%s\t%s\n", os.Getpid(), point, p.Action)
	return p.Action, err
}
