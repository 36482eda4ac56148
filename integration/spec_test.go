//go:build linux

package integration

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cofferdam.dev/cofferdam/integration/ctrd"
	"cofferdam.dev/cofferdam/integration/lab"
	"cofferdam.dev/cofferdam/integration/outcome"
)

// engineSocket is what a container engine's socket is to an agent: it says the marker to whoever connects.
func engineSocket(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "s") // t.TempDir is too long for a socket's address
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "engine.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() { // ends with its listener
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(c, outcome.Marker)
			c.Close()
		}
	}()
	return path
}

// TestOnlyTheWorkspaceOfTheHostIsSeen gives one container many mounts. Invariant I4.
func TestOnlyTheWorkspaceOfTheHostIsSeen(t *testing.T) {
	Require(t, needShim)
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		socket, other, workspace := engineSocket(t), Workspace(t), Workspace(t)
		for _, dir := range []string{other, workspace} {
			if err := os.WriteFile(filepath.Join(dir, "file"), []byte("host\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		flags := []string(nil)
		for _, m := range [][2]string{{socket, "/run/engine.sock"}, {"/", "/host"}, {"/etc", "/host-etc"}, {other, "/other"}, {other, "/workspace/other"}, {"/etc", "/etc"}} {
			flags = append(flags, "--mount", "type=bind,src="+m[0]+",dst="+m[1]+",options=rbind:rw")
		}
		c := ctrd.Container{Image: agentImage, Runtime: ctrd.Stock, Workspace: workspace, Flags: flags}
		open := d.StartContainer(t, c)
		c.ID, c.Runtime = "", ctrd.Cofferdam
		box := d.StartContainer(t, c)
		for _, attempt := range []string{
			"unix /run/engine.sock", "read /host/etc/passwd", "read /host" + other + "/file", "read /host-etc/passwd", "read /other/file",
			"write /other/made x", "read /workspace/other/file", "read /etc/apt/sources.list.d",
		} {
			words := strings.Split(attempt, " ")
			if got := open.Probe(t, words...); !got.OK {
				t.Errorf("control: %s", got)
			}
			os.Remove(filepath.Join(other, "made"))
			if got := box.Probe(t, words...); got.OK {
				t.Errorf("it is there: %s", got)
			}
		}
		if files, err := os.ReadDir(other); err != nil || len(files) != 1 {
			t.Errorf("the other folder holds %v, %v", files, err)
		}
		if got := box.Probe(t, "read", "/workspace/file"); got.Reply != "host\n" {
			t.Errorf("the workspace: %s", got)
		}
		contains(t, "inspect", cli(t, "inspect", sandboxID(d, box)),
			"mounts[/run/engine.sock]", "mounts[/host]", "mounts[/host-etc]", "mounts[/other]", "mounts[/workspace/other]", "mounts[/etc]")
	})
}

func TestNamespacesOfTheHostAreNotShared(t *testing.T) {
	Require(t, needShim)
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		lab.Get(t)
		for _, row := range []struct{ kind, flags string }{
			{"net", "--net-host"}, {"pid", "--with-ns pid:/proc/1/ns/pid"}, {"ipc", "--with-ns ipc:/proc/1/ns/ipc"}, {"uts", "--with-ns uts:/proc/1/ns/uts"},
		} {
			host, err := os.Readlink("/proc/self/ns/" + row.kind)
			if err != nil {
				t.Fatal(err)
			}
			c := ctrd.Container{Image: agentImage, Runtime: ctrd.Stock, Flags: strings.Split(row.flags, " ")}
			ask := func() (string, *ctrd.Running) {
				box := d.StartContainer(t, c)
				return strings.TrimSpace(box.Exec(t, "readlink", "/proc/self/ns/"+row.kind).Stdout), box
			}
			if got, _ := ask(); got != host {
				t.Errorf("control: %s of a stock container is %s, of the host %s", row.flags, got, host)
			}
			c.ID, c.Runtime = "", ctrd.Cofferdam
			got, box := ask()
			if got == host || !strings.HasPrefix(got, row.kind+":[") {
				t.Errorf("%s: %s, of the host %s", row.flags, got, host)
			}
			if row.kind != "net" {
				continue
			}
			links := box.Probe(t, "addrs").Detail
			if strings.Count(links, ";") != 2 || !strings.HasPrefix(links, "lo ") || !strings.Contains(links, "eth0 [10.200.0.2/30") {
				t.Errorf("links %q, want lo and eth0", links)
			}
		}
	})
}

// refusedContainer starts a container that must be refused for the given reasons, and looks for what is left. Invariants I6, I7, I8.
func refusedContainer(t *testing.T, d *ctrd.Daemon, c ctrd.Container, reasons ...string) {
	t.Helper()
	before, ran := lab.Take(), Workspace(t)
	if c.Image == "" {
		c.Image = agentImage
	}
	c.Runtime = ctrd.Cofferdam
	c.Args = []string{"touch", "/workspace/ran"}
	if c.Workspace == "" {
		c.Workspace = ran
	}
	box, got := d.TryContainer(t, c)
	if got.Code == 0 {
		t.Error("it was started")
	}
	contains(t, "stderr", got.Stderr, append(reasons, "cofferdam: ")...)
	box.Remove(t)
	lab.NoLeftovers(t, before, notOfASandbox...)
	if files, err := os.ReadDir(ran); err != nil || len(files) > 0 {
		t.Errorf("the workspace holds %v, %v", files, err)
	}
}

func TestWhatCannotBeMadeSafeIsRefused(t *testing.T) {
	Require(t, needShim)
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		link := func(to string) string {
			from := filepath.Join(t.TempDir(), "link")
			if err := os.Symlink(to, from); err != nil {
				t.Fatal(err)
			}
			return from
		}
		socket := engineSocket(t)
		policyDir := "/etc/cofferdam/policies/"
		broken := Policy(named{t, t.Name() + "-broken"}, "version: 1\nnetwork:\n  rules:\n    - allow: good.test\n      port: [443]\n")
		yaml := Policy(named{t, t.Name() + "-yaml"}, "version: 1\nnetwork: [\n")
		writable := Policy(named{t, t.Name() + "-writable"}, onlyGood)
		if err := os.Chmod(policyDir+writable+".yaml", 0o666); err != nil {
			t.Fatal(err)
		}
		for _, row := range []struct {
			name string
			c    ctrd.Container
			want []string
		}{
			{"privileged", ctrd.Container{Flags: []string{"--privileged"}}, []string{"a privileged container cannot be contained"}},
			{"a foreign network namespace", ctrd.Container{Flags: []string{"--with-ns", "network:/proc/1/ns/net"}}, []string{"linux.namespaces[network]", "/proc/1/ns/net"}},
			{"a workspace that is the host", ctrd.Container{Workspace: "/"}, []string{"workspace", "the whole host"}},
			{"a workspace that is protected", ctrd.Container{Workspace: "/etc"}, []string{"workspace", "/etc", "protected"}},
			{"a workspace that is a link to a protected place", ctrd.Container{Workspace: link("/etc")}, []string{"workspace", "/etc", "protected"}},
			{"a workspace that is a link to a home's keys", ctrd.Container{Workspace: link("/root")}, []string{"workspace", "/root", "protected"}},
			{"a workspace that is a socket", ctrd.Container{Workspace: socket}, []string{"workspace", "not a folder"}},
			{"a workspace that is not there", ctrd.Container{Workspace: filepath.Join(filepath.Dir(socket), "none")}, []string{"workspace", "no such file"}},
			{"a link as root file system", ctrd.Container{Image: link("/etc"), Flags: []string{"--rootfs"}}, []string{"root.path", "symbolic link"}},
			{"a log file that root would open", ctrd.Container{Flags: []string{"-d", "--log-uri", "file://" + filepath.Join(Workspace(t), "agent.log")}}, []string{"stdio", "fifos"}},
			{"the host as root file system", ctrd.Container{Image: "/", Flags: []string{"--rootfs"}}, []string{"root.path", "the whole host"}},
			{"an unknown annotation", ctrd.Container{Annotations: map[string]string{"cofferdam.dev/polcy": "x"}}, []string{"annotations[cofferdam.dev/polcy]", "cofferdam.dev/policy"}},
			{"an unknown policy", ctrd.Container{Policy: "no-such-policy"}, []string{`policy "no-such-policy"`, policyDir + "no-such-policy.yaml"}},
			{"a policy by a path", ctrd.Container{Policy: "../../tmp/x"}, []string{"annotations[cofferdam.dev/policy]"}},
			{"a policy with an unknown key", ctrd.Container{Policy: broken}, []string{policyDir + broken + ".yaml:5:7: network.rules.port: unknown key"}},
			{"a policy that is no YAML", ctrd.Container{Policy: yaml}, []string{policyDir + yaml + ".yaml:"}},
			{"a policy that anybody can write", ctrd.Container{Policy: writable}, []string{policyDir + writable + ".yaml", "writable by group or others"}},
		} {
			t.Run(row.name, func(t *testing.T) { refusedContainer(t, d, row.c, row.want...) })
		}
	})
}

// TestARootFileSystemOfItsOwnIsNotRefused is the control for the host's as one.
func TestARootFileSystemOfItsOwnIsNotRefused(t *testing.T) {
	Require(t, needShim)
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		rootfs := Workspace(t)
		busybox, err := os.ReadFile("/bin/busybox")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(rootfs, "bin"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(rootfs, "bin/busybox"), busybox, 0o755); err != nil {
			t.Fatal(err)
		}
		got := d.Run(t, ctrd.Container{Image: rootfs, Runtime: ctrd.Cofferdam, Flags: []string{"--rootfs"}, Args: []string{"/bin/busybox", "echo", "out"}})
		if got.Code != 0 || got.Stdout != "out\n" {
			t.Errorf("got %s", got)
		}
	})
}

// TestAnImageMakesNothingInTheWorkspace runs a root file system whose /etc is a link to the workspace. Runtimes make mount points that are
// missing, and so would leave a file there that the agent did not write (I8). The control is a mount of the stock runtime.
func TestAnImageMakesNothingInTheWorkspace(t *testing.T) {
	Require(t, needShim)
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		rootfs := Workspace(t)
		if err := errors.Join(
			os.Mkdir(filepath.Join(rootfs, "bin"), 0o755),
			os.WriteFile(filepath.Join(rootfs, "bin/busybox"), busybox, 0o755),
			os.Mkdir(filepath.Join(rootfs, "workspace"), 0o755),
			os.Symlink("/workspace", filepath.Join(rootfs, "etc")),
		); err != nil {
			t.Fatal(err)
		}
		c := ctrd.Container{Image: rootfs, Runtime: ctrd.Stock, Workspace: Workspace(t), Flags: []string{"--rootfs"}, Args: []string{"/bin/busybox", "true"}}
		open := c
		open.Flags = append(open.Flags, "--mount", "type=bind,src=/etc/hostname,dst=/etc/hostname,options=bind:ro")
		if got := d.Run(t, open); got.Code != 0 {
			t.Fatalf("control: %s", got)
		}
		if files, err := os.ReadDir(open.Workspace); err != nil || len(files) != 1 {
			t.Errorf("control: the workspace holds %v, %v, want a mount point", files, err)
		}
		c.Runtime, c.Workspace = ctrd.Cofferdam, Workspace(t)
		if got := d.Run(t, c); got.Code != 0 {
			t.Errorf("got %s", got)
		}
		if files, err := os.ReadDir(c.Workspace); err != nil || len(files) != 0 {
			t.Errorf("the workspace holds %v, %v", files, err)
		}
	})
}
