package sandbox

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func testPaths(t *testing.T) Paths {
	dir := t.TempDir()
	p := Paths{
		Config: filepath.Join(dir, "etc/config.yaml"), Policies: filepath.Join(dir, "etc/policies"), State: filepath.Join(dir, "run/sandboxes"),
		Pins: filepath.Join(dir, "run/netns"), Logs: filepath.Join(dir, "log"), Cache: filepath.Join(dir, "run/runtimes.json"),
	}
	for _, d := range []string{p.Policies, p.State, p.Pins, p.Logs} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func TestID(t *testing.T) {
	if id, err := ID("k8s.io", "web-1"); err != nil || id != "k8s.io:web-1" {
		t.Errorf("got %q, %v", id, err)
	}
	for _, bad := range [][2]string{{"", "a"}, {"a", ""}, {"a:b", "c"}, {"a", "../b"}, {"a", "b/c"}, {"a", ".."}, {"a", strings.Repeat("x", 77)}, {"a", "b\n"}} {
		if id, err := ID(bad[0], bad[1]); err == nil {
			t.Errorf("ID(%q, %q) is %q, want an error", bad[0], bad[1], id)
		}
	}
	for _, bad := range []string{"", "a", "../etc:b", "a:b/c", "a:b:c", "a:", ":b"} {
		if checkID(bad) == nil {
			t.Errorf("checkID(%q): no error", bad)
		}
		if err := Teardown(testPaths(t), bad); err == nil {
			t.Errorf("Teardown(%q): no error", bad)
		}
	}
}

func TestStateIsSavedWholeAndFoundByItsID(t *testing.T) {
	p := testPaths(t)
	s := State{ID: "default:web-1", Namespace: "default", Container: "web-1", Phase: Running, Proxy: ProxyState{Process: Process{PID: 7, StartTime: 9}, Restarts: 2}}
	if _, err := Load(p, s.ID); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("load before save: %v", err)
	}
	if err := os.Mkdir(p.dir(s.ID), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.save(p); err != nil {
		t.Fatal(err)
	}
	got, err := Load(p, s.ID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&s, got); diff != "" {
		t.Error(diff)
	}
	if err := os.Mkdir(p.dir("default:web-2"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(p.stateFile(s.ID), p.stateFile("default:web-2")); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(p, "default:web-2"); err == nil {
		t.Error("the state of another sandbox must not load")
	}
}

func TestOwnedUntilTheOwnerIsGone(t *testing.T) {
	p := testPaths(t)
	const id = "default:web-1"
	if Owned(p, id) {
		t.Error("owned before it exists")
	}
	if err := os.Mkdir(p.dir(id), 0o700); err != nil {
		t.Fatal(err)
	}
	lock, err := lockFile(p.lock(id), unix.LOCK_EX|unix.LOCK_NB)
	if err != nil {
		t.Fatal(err)
	}
	if !Owned(p, id) {
		t.Error("not owned while the lock is held")
	}
	// A child that inherits nothing must not keep the lock: descriptors are close-on-exec.
	child := exec.Command("sleep", "infinity")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	gone, err := Collect(p)
	if err != nil || len(gone) != 0 {
		t.Errorf("collected %v, %v while owned", gone, err)
	}
	lock.Close()
	if Owned(p, id) {
		t.Error("owned after the lock was dropped")
	}
	if gone, err = Collect(p); err != nil || !cmp.Equal(gone, []string{id}) {
		t.Errorf("collected %v, %v", gone, err)
	}
	if _, err := os.Stat(p.dir(id)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("state folder after collection: %v", err)
	}
}

func TestProcessIsNotTakenForAnother(t *testing.T) {
	cmd := exec.Command("sleep", "infinity")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	p := processOf(cmd.Process.Pid)
	if !p.Alive() {
		t.Fatal("a running process is not alive")
	}
	other := Process{PID: p.PID, StartTime: p.StartTime + 1}
	if other.Alive() {
		t.Error("a process with another start time counts as alive")
	}
	if err := other.Kill(); err != nil || !p.Alive() {
		t.Errorf("killing another process with the same PID: %v, alive %v", err, p.Alive())
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if p.Alive() {
		t.Error("alive after the kill")
	}
	if err := p.Kill(); err != nil {
		t.Errorf("second kill: %v", err)
	}
	if err := (Process{}).Kill(); err != nil || (Process{}).Alive() {
		t.Error("the zero process is nobody")
	}
}

func TestUndoRunsInReverseAndGoesOnAfterAnError(t *testing.T) {
	var (
		u   undo
		got []string

		stuck = true
	)
	step := func(what string) (string, func() error) {
		return what, func() error {
			got = append(got, what)
			if what == "b" && stuck {
				return errors.New("stuck")
			}
			return nil
		}
	}
	for _, err := range []error{u.add(step("a")), u.addRecord(step("record")), u.add(step("b")), u.add(step("c"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := u.run("undo"); err == nil || err.Error() != "undo b: stuck" {
		t.Errorf("error %v", err)
	}
	stuck = false
	for range 2 { // what failed is tried again, and then there is nothing left
		if err := u.run("undo"); err != nil {
			t.Errorf("another run: %v", err)
		}
	}
	// The record goes when nothing is left that is found by it.
	if diff := cmp.Diff([]string{"c", "b", "a", "b", "record"}, got); diff != "" {
		t.Error(diff)
	}
}

// TestTeardownKeepsWhatItIsFoundBy: a sandbox of which something is left can be found again.
func TestTeardownKeepsWhatItIsFoundBy(t *testing.T) {
	p := testPaths(t)
	st := State{ID: "run:x", Own: true, Cgroup: "/elsewhere"} // not one of ours: it is not removed
	if err := errors.Join(os.Mkdir(p.dir(st.ID), 0o700), st.save(p)); err != nil {
		t.Fatal(err)
	}
	if err := Teardown(p, st.ID); err == nil || !strings.Contains(err.Error(), "/elsewhere") {
		t.Errorf("a cgroup that cannot be removed: %v", err)
	}
	if _, err := Load(p, st.ID); err != nil {
		t.Errorf("the state is gone: %v", err)
	}
	// A state that is there and cannot be read now is no reason to forget what it has.
	if err := errors.Join(os.Remove(p.stateFile(st.ID)), os.Mkdir(p.stateFile(st.ID), 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := Teardown(p, st.ID); err == nil {
		t.Error("a state that cannot be read was torn down")
	}
	if err := errors.Join(os.Remove(p.stateFile(st.ID)), os.WriteFile(p.stateFile(st.ID), []byte("{"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Teardown(p, st.ID); err != nil {
			t.Errorf("a state that says nothing: %v", err)
		}
	}
	if _, err := os.Stat(p.dir(st.ID)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder: %v", err)
	}
}

func TestLogsOfTheGoneArePruned(t *testing.T) {
	p := testPaths(t)
	now := time.Now()
	for i, name := range []string{"a:old.jsonl", "a:old.jsonl.2", "a:new.jsonl", "a:live.jsonl", "notes.txt"} {
		path := filepath.Join(p.Logs, name)
		if err := os.WriteFile(path, make([]byte, 100), 0o600); err != nil {
			t.Fatal(err)
		}
		if at := now.Add(time.Duration(i-100) * time.Hour); name != "a:live.jsonl" {
			if err := os.Chtimes(path, at, at); err != nil {
				t.Fatal(err)
			}
		} else if err := os.Chtimes(path, now.Add(-1e6*time.Hour), now.Add(-1e6*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(p.dir("a:live"), 0o700); err != nil {
		t.Fatal(err)
	}
	lock, err := lockFile(p.lock("a:live"), unix.LOCK_EX)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := pruneLogs(p, 250); err != nil {
		t.Fatal(err)
	}
	var left []string
	entries, err := os.ReadDir(p.Logs)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if diff := cmp.Diff([]string{"a:live.jsonl", "a:new.jsonl", "a:old.jsonl.2", "notes.txt"}, left); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
}
