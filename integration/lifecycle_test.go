//go:build linux

package integration

import (
	"errors"
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

// TestAPolicyIsReloaded changes the file of a policy under a running agent. Connections that the new one denies end, the agent's next ones are
// decided by it; a file with a mistake changes nothing, and the decision log says so.
func TestAPolicyIsReloaded(t *testing.T) {
	Require(t, needShim)
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		name := Policy(t, onlyGood)
		box := Contained(t, d, name)
		id := sandboxID(d, box)
		file := inspect(t, d, box).Policy.Layers[0].Path
		reaches := func() bool { return box.Probe(t, "https", "good.test:443", "good.test").OK }
		install := func(text string) {
			t.Helper()
			next := file + ".next"
			if err := errors.Join(os.WriteFile(next, []byte(text), 0o644), os.Rename(next, file)); err != nil {
				t.Fatal(err)
			}
		}
		logged := func(text string) func() bool {
			return func() bool { return strings.Contains(cli(t, "log", id), text) }
		}
		if !reaches() {
			t.Fatal("control: the first policy allows it")
		}
		install("version: 1\nnetwork: {rules: [{allow: evil.test}]}\n")
		eventually(t, "the policy is reloaded", logged("the policy was reloaded"))
		if reaches() {
			t.Error("what the new policy denies is reached")
		}
		if got := box.Probe(t, "https", "evil.test:443", "evil.test"); !got.OK {
			t.Errorf("what the new policy allows is refused: %s", got)
		}
		contains(t, "inspect", cli(t, "inspect", id), `{allow: "evil.test"`)
		install("version: 1\nnetwork: {rulez: []}\n")
		eventually(t, "the mistake is logged", logged("the policy was not reloaded: "))
		contains(t, "log", cli(t, "log", id), "rulez")
		if got := box.Probe(t, "https", "evil.test:443", "evil.test"); !got.OK {
			t.Errorf("the old policy is not in force: %s", got)
		}
		proxy := inspect(t, d, box).Proxy
		if proxy.Restarts > 0 {
			t.Errorf("the proxy was restarted %d times", proxy.Restarts)
		}
		signal(t, proxy.PID, unix.SIGKILL)
		eventually(t, "another proxy serves", func() bool { p := inspect(t, d, box).Proxy; return p.Alive() && p.PID != proxy.PID })
		if got := box.Probe(t, "https", "evil.test:443", "evil.test"); !got.OK || reaches() {
			t.Errorf("the next proxy has another policy: %s", got)
		}
		install(onlyGood)
		signal(t, box.Shims(t)[0], unix.SIGHUP)
		eventually(t, "the policy is back", reaches)
	})
}
