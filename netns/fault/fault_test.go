package fault

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

const envFolder = "FAULT_TEST_FOLDER"

func TestMain(m *testing.M) {
	if folder := os.Getenv(envFolder); folder != "" { // a process to be killed
		if err := Pass(folder, "a: step"); err != nil {
			os.Exit(3)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestThePlanIsCarriedOutOnce(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "faults")
	if err := Pass(folder, "a: step"); err != nil {
		t.Errorf("without a folder: %v", err)
	}
	for _, row := range []struct {
		action Action
		want   error
		slow   bool
	}{{Fail, ErrInjected, false}, {Full, unix.ENOSPC, false}, {Delay, nil, true}} {
		if err := (Plan{"a: step", 2, row.action}).Write(folder); err != nil {
			t.Fatal(err)
		}
		want := []Passage{
			{os.Getpid(), "another: step", ""}, {os.Getpid(), "a: step", ""}, {os.Getpid(), "a: step", row.action}, {os.Getpid(), "a: step", ""},
		}
		for _, p := range want {
			began := time.Now()
			err := Pass(folder, p.Point)
			if p.Done == "" && err != nil || p.Done != "" && !errors.Is(err, row.want) {
				t.Errorf("%s: %+v gives %v", row.action, p, err)
			}
			if slow := time.Since(began) >= Delayed; slow != (row.slow && p.Done != "") {
				t.Errorf("%s: %+v took %v", row.action, p, time.Since(began))
			}
		}
		got, err := Passed(folder)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", row.action, err, diff)
		}
	}
}

func TestAPointKillsAndStopsItsProcess(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "faults")
	for _, action := range []Action{"", Kill, Stop} {
		plan := Plan{"a: step", 1, action}
		if err := plan.Write(folder); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), envFolder+"="+folder)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var status unix.WaitStatus
		if _, err := unix.Wait4(cmd.Process.Pid, &status, unix.WUNTRACED, nil); err != nil {
			t.Fatal(err)
		}
		if status.Exited() != (action == "") || status.Signaled() != (action == Kill) || status.Stopped() != (action == Stop) {
			t.Errorf("%q: status %#x", action, status)
		}
		if status.Stopped() {
			if err := errors.Join(unix.Kill(cmd.Process.Pid, unix.SIGCONT), cmd.Wait()); err != nil {
				t.Errorf("when continued: %v", err)
			}
		}
		if got, err := Passed(folder); err != nil || len(got) != 1 || got[0].Done != action {
			t.Errorf("%q: passed %+v, %v", action, got, err)
		}
	}
}

// In the build that people get a point does nothing, whatever there is to find.
func TestAPointIsEmpty(t *testing.T) {
	if err := Point("a", "step"); err != nil {
		t.Error(err)
	}
	if n := testing.AllocsPerRun(10, func() { _ = Point("a", "step") }); n != 0 {
		t.Errorf("a point allocates %v times", n)
	}
}
