//go:build linux

package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/integration/ctrd"
	"cofferdam.dev/cofferdam/integration/lab"
)

// lives looks whether both walls of a sandbox have their gates: the workspace, which the agent owns, and good.test.
func lives(t *testing.T, box *ctrd.Running, workspace string) {
	t.Helper()
	l := lab.Get(t)
	if got := box.Probe(t, "https", "good.test:443", "good.test"); !got.OK {
		t.Errorf("what is allowed: %s", got)
	}
	mark := l.Mark(t)
	if got := box.Probe(t, "https", lab.Evil+":443", "evil.test"); got.OK {
		t.Errorf("what is not: %s", got)
	}
	l.Silent(t, mark)
	if got := box.Probe(t, "write", "/workspace/made", "by the agent"); !got.OK {
		t.Errorf("the workspace: %s", got)
	}
	if data, err := os.ReadFile(filepath.Join(workspace, "made")); err != nil || string(data) != "by the agent" {
		t.Errorf("the workspace holds %q, %v", data, err)
	}
}

func TestAUserNamespace(t *testing.T) {
	Require(t, needShim)
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		const base = 100_000
		before, workspace := lab.Take(), Workspace(t)
		if err := os.Chown(workspace, base, base); err != nil {
			t.Fatal(err)
		}
		box := d.StartContainer(t, ctrd.Container{
			Image: agentImage, Runtime: ctrd.Cofferdam, Policy: Policy(t, onlyGood), Workspace: workspace,
			Flags: []string{"--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536", "--cap-add", "CAP_NET_ADMIN", "--cap-add", "CAP_SYS_ADMIN"},
		})
		lives(t, box, workspace)
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(workspace, "made"), &st); err != nil || st.Uid != base {
			t.Errorf("the agent's file belongs to %d, %v", st.Uid, err)
		}
		if got := box.Exec(t, "awk", "{print $1, $2, $3}", "/proc/self/uid_map"); strings.TrimSpace(got.Stdout) != "0 100000 65536" {
			t.Errorf("uid_map: %s", got)
		}
		// Its root is root of a user namespace only; the network namespace, which that one may own, must not obey it.
		for _, attempt := range []string{
			"addr-add eth0 45.67.90.77/24", "route 10.200.0.9 eth0", "link-down eth0", "packet eth0", "icmp 45.67.89.66",
			"write /proc/sys/net/ipv4/ip_forward 1", "mount tmpfs none /tmp",
		} {
			if got := box.Probe(t, strings.Split(attempt, " ")...); got.OK {
				t.Errorf("it may: %s", got)
			}
		}
		box.Remove(t)
		lab.NoLeftovers(t, before, notOfASandbox...)
	})
}

func TestAReadOnlyRoot(t *testing.T) {
	Require(t, needShim)
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		policy, workspace := Policy(t, onlyGood), Workspace(t)
		c := ctrd.Container{Image: agentImage, Runtime: ctrd.Cofferdam, Policy: policy, Workspace: workspace}
		writable := d.StartContainer(t, c)
		c.ID, c.Flags = "", []string{"--read-only"}
		box := d.StartContainer(t, c)
		for _, file := range []string{"/made", "/etc/made", "/usr/local/bin/made"} {
			if got := writable.Probe(t, "write", file, "x"); !got.OK {
				t.Errorf("control: %s", got)
			}
			if got := box.Probe(t, "write", file, "x"); got.Errno != "EROFS" {
				t.Errorf("got %s, want EROFS", got)
			}
		}
		if got := box.Probe(t, "write", "/tmp/made", "x"); !got.OK {
			t.Errorf("got %s", got)
		}
		lives(t, box, workspace)
	})
}

// TestCrun names another OCI runtime in a configuration file. Debian's crun 1.8.1 does not get along with the second hierarchy of hybrid
// cgroups, which is hidden for the time of the test: below a tmpfs, since crun makes folders there. Nor does it know the spec's version
// that containerd 2.x writes, which the rewriting lowers.
func TestCrun(t *testing.T) {
	Require(t, needShim)
	const unified = "/sys/fs/cgroup/unified"
	if _, err := os.Stat(unified); err == nil {
		if err := unix.Mount("tmpfs", unified, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(unified, 0); err != nil {
				t.Error(err)
			}
		})
	}
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		policy := Policy(t, onlyGood)
		config := configFile(t, "version: 1\nruntime: crun\n")
		for _, killed := range []bool{false, true} {
			before, workspace := lab.Take(), Workspace(t)
			box := Contained(t, d, policy, "--runtime-config-path", config, "--mount", "type=bind,src="+workspace+",dst=/workspace,options=rbind:rw")
			lives(t, box, workspace)
			if got := inspect(t, d, box).Runtime; got.Name != "crun" || got.Warning != "" {
				t.Errorf("the runtime is %+v", got)
			}
			if got := box.Exec(t, "sh", "-c", "exit 9"); got.Code != 9 {
				t.Errorf("exec: %s", got)
			}
			for _, attempt := range []string{"addr-add eth0 45.67.90.77/24", "packet eth0", "vsock", "in-userns euid", "mount tmpfs none /tmp", "io-uring", "type-ahead 0", "type-ahead 1"} {
				if got := box.Probe(t, strings.Split(attempt, " ")...); got.OK {
					t.Errorf("it may: %s", got)
				}
			}
			if killed {
				killShim(t, box)
			}
			box.Remove(t)
			lab.NoLeftovers(t, before, append(notOfASandbox, unified+"/")...)
		}
	})
}

func TestAnOldRuntimeIsNamed(t *testing.T) {
	Require(t, needShim)
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		old := "version: 1\nruntime: " + oldRunc(t) + "\n"
		const warning = "runc 1.1.5+ds1 is older than the fixes for CVE-2025-31133"
		box := Contained(t, d, "", "--runtime-config-path", configFile(t, old))
		contains(t, "inspect", cli(t, "inspect", sandboxID(d, box)), "warning: "+warning)
		strict := configFile(t, old+"require_fixed_runtime: true\n")
		refusedContainer(t, d, ctrd.Container{Flags: []string{"--runtime-config-path", strict}}, strict, "require_fixed_runtime", warning)
	})
}
