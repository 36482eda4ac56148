//go:build linux

package integration

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/integration/ctrd"
	"cofferdam.dev/cofferdam/integration/lab"
)

// TestASandboxLeavesNothing takes sandboxes down in several ways and looks for what is left. Invariant I8.
func TestASandboxLeavesNothing(t *testing.T) {
	Require(t, needShim)
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		policy := Policy(t, onlyGood)
		for _, row := range []struct {
			name string
			do   func(t *testing.T, box *ctrd.Running)
		}{
			{"after it is removed", func(*testing.T, *ctrd.Running) {}},
			{"after its shim is killed", func(t *testing.T, box *ctrd.Running) {
				for _, pid := range box.Shims(t) {
					if err := unix.Kill(pid, unix.SIGKILL); err != nil {
						t.Fatal(err)
					}
				}
			}},
			{"after its command is killed", func(t *testing.T, box *ctrd.Running) {
				if err := unix.Kill(box.PID(t), unix.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}},
			{"after containerd is killed", func(t *testing.T, _ *ctrd.Running) { d.Restart(t, unix.SIGKILL) }},
		} {
			t.Run(row.name, func(t *testing.T) {
				before := lab.Take()
				workspace := Workspace(t)
				box := d.StartContainer(t, ctrd.Container{Image: agentImage, Runtime: ctrd.Cofferdam, Policy: policy, Workspace: workspace})
				if made := strings.Join(lab.Take().Since(before), "\n"); !strings.Contains(made, "file /run/cofferdam/") {
					t.Errorf("a running sandbox has no state:\n%s", made)
				}
				row.do(t, box)
				box.Remove(t)
				lab.NoLeftovers(t, before, append(notOfASandbox, "containerd --config")...)
				files, err := os.ReadDir(workspace)
				if err != nil || len(files) > 0 {
					t.Errorf("the workspace holds %v, %v", files, err)
				}
			})
		}
	})
}
