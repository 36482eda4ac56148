//go:build linux

package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/integration/ctrd"
)

// mountBelow mounts folders of the owner's in a workspace: "open", and "shut", which is read-only there.
func mountBelow(t *testing.T, top string) {
	t.Helper()
	for _, name := range []string{"open", "shut"} {
		source, at := t.TempDir(), filepath.Join(top, "below", name)
		if err := os.WriteFile(filepath.Join(source, "file"), []byte("owner's\n"), 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(at, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(source, at, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
		if name == "shut" {
			if err := unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
				t.Fatal(err)
			}
		}
	}
	if out, err := exec.Command("chmod", "-R", "a+rwX", top).CombinedOutput(); err == nil {
		t.Fatalf("the read-only mount can be written to: %s", out)
	}
}

// What the owner has mounted read-only in a workspace is that inside as well, and the rest can be written to. The control is the mount beside it, which is not.
func TestMountsBelowAWorkspace(t *testing.T) {
	const script = "echo agent >file; echo agent >below/open/file; for how in 'echo agent >below/shut/file' 'rm below/shut/file' 'touch below/shut/new'; do (eval $how) && exit 1; done; cat file below/*/file"
	check := func(t *testing.T, top string, got ctrd.Result) {
		t.Helper()
		if got.Code != 0 || got.Stdout != "agent\nagent\nowner's\n" {
			t.Errorf("%s", got)
		}
		for name, want := range map[string]string{"file": "agent\n", "below/open/file": "agent\n", "below/shut/file": "owner's\n"} {
			if b, err := os.ReadFile(filepath.Join(top, name)); err != nil || string(b) != want {
				t.Errorf("%s has %q, %v", name, b, err)
			}
		}
	}
	Require(t, needShim, needImage)
	t.Run("user", func(t *testing.T) { // whose kernel has him take along what is mounted below
		p := newPerson(t, "user", 4711)
		mountBelow(t, p.workspace())
		check(t, p.workspace(), p.run(t, "sh", "-c", script))
	})
	t.Run("container", func(t *testing.T) {
		eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
			top := Workspace(t)
			mountBelow(t, top)
			check(t, top, d.Run(t, ctrd.Container{Image: agentImage, Runtime: ctrd.Cofferdam, Workspace: top, Args: []string{"sh", "-c", "cd /workspace; " + script}}))
		})
	})
}
