//go:build linux

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/integration/ctrd"
	"cofferdam.dev/cofferdam/integration/lab"
)

// The harness is only worth what it can see: each oracle here is shown traffic, and each kind of leftover is shown one.

func TestTheInternetSeesWhatAStockContainerSends(t *testing.T) {
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		l := lab.Get(t)
		box := Uncontained(t, d)
		host, stop, err := lab.StartHost()
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		for _, row := range []struct {
			attempt string
			kind    string // of the event, "" for none
			detail  string // that it contains
		}{
			{"tcp 45.67.89.66:5432 hello", "tcp", "hello"},
			{"tcp [2a0e:97c0:ffff::1]:5432 hello", "tcp", "hello"},
			{"tcp 45.67.89.22:22 SSH-2.0-probe\r\n", "ssh", "SSH-2.0-probe"},
			{"udp 45.67.89.66:51820 tunnel", "udp", "tunnel"},
			{"udp [2a0e:97c0:ffff::1]:123 tunnel", "udp", "tunnel"},
			{"dns secret.dns.google 8.8.8.8:53 TXT", "dns", "secret.dns.google TXT"},
			{"dns good.test 9.9.9.9:53 A tcp", "dns", "good.test A"},
			{"dns v6.good.test - AAAA", "dns", "v6.good.test AAAA"},
			{"icmp 1.1.1.1", "frame", "8"},
			{"icmp 2a0e:97c0:ffff::1", "frame", "128"},
			{"raw 132 45.67.89.66", "frame", ""},
			{"packet uplink", "frame", ""},
			{"http good.test:80 good.test GET /x", "http", "GET http://good.test/x"},
			{"http 169.254.169.254:80 169.254.169.254 GET /latest/meta-data/", "http", "/latest/meta-data/"},
			{"https good.test:443 good.test evil.test POST /y", "http", "POST https://evil.test/y"},
			{"https 1.1.1.1:8443 -", "tls", ""},
			{"tcp 127.0.0.1:" + host.TCP, "", ""},
			{"unix " + host.Abstract, "", ""},
		} {
			t.Run(row.attempt, func(t *testing.T) {
				mark := l.Mark(t)
				got := box.Probe(t, strings.Split(row.attempt, " ")...)
				if !got.OK {
					t.Errorf("refused: %s", got)
				}
				if row.kind == "" {
					return
				}
				l.WaitFor(t, mark, row.kind, func(e lab.Event) bool { return e.Kind == row.kind && strings.Contains(e.Detail, row.detail) })
				for _, e := range l.Since(t, mark) {
					if e.Kind == "frame" {
						return
					}
				}
				t.Error("there is an event, but no frame")
			})
		}
		if got := host.Seen(); got != 2 {
			t.Errorf("the host's services have seen %d connections, want 2", got)
		}
	})
}

func TestTheInternetIsSilentWhenNobodySends(t *testing.T) {
	Require(t)
	l := lab.Get(t)
	mark := l.Mark(t)
	for range 20 {
		l.Silent(t, mark)
	}
}

func TestAContainerRunsToItsEnd(t *testing.T) {
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		ws := Workspace(t)
		got := d.Run(t, ctrd.Container{Image: agentImage, Runtime: ctrd.Stock, Workspace: ws, Args: []string{"sh", "-c", "echo out; echo made >/workspace/f; exit 7"}})
		if got.Code != 7 || got.Stdout != "out\n" {
			t.Errorf("got %s", got)
		}
		if data, err := os.ReadFile(filepath.Join(ws, "f")); err != nil || string(data) != "made\n" {
			t.Errorf("workspace/f = %q, %v", data, err)
		}
	})
}

func TestAContainerOutlivesItsDaemon(t *testing.T) {
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		before := lab.Take()
		box := Uncontained(t, d)
		pid := box.PID(t)
		if shims := box.Shims(t); len(shims) != 1 {
			t.Errorf("shims %v, want one", shims)
		}
		for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
			d.Restart(t, sig)
			if got := box.PID(t); got != pid {
				t.Errorf("after %v: pid %d, want %d", sig, got, pid)
			}
			if got := box.Probe(t, "tcp", lab.Good+":7"); !got.OK {
				t.Errorf("after %v: %s", sig, got)
			}
		}
		box.Remove(t)
		lab.NoLeftovers(t, before, "containerd --config")
	})
}

func TestASnapshotShowsEveryKindOfLeftover(t *testing.T) {
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		before := lab.Take()
		box := d.StartContainer(t, ctrd.Container{Image: agentImage, Runtime: ctrd.Stock})
		if err := os.MkdirAll("/run/cofferdam/sandboxes/x", 0o755); err != nil {
			t.Fatal(err)
		}
		want := []string{
			"process ", "sleep 3600\n", "containerd-shim-runc-v2 ", "mount /run/cd/" + d.Engine.Name + "/", "netns net:[", "cgroup /sys/fs/cgroup/",
			"file /run/containerd/s/", "file /run/cofferdam/sandboxes/x\n",
		}
		eventually(t, fmt.Sprintf("%q in a snapshot", want), func() bool { // runc's own process becomes the command a moment after the start
			now := strings.Join(lab.Take().Since(before), "\n") + "\n"
			return !slices.ContainsFunc(want, func(w string) bool { return !strings.Contains(now, w) })
		})
		if err := os.RemoveAll("/run/cofferdam"); err != nil {
			t.Fatal(err)
		}
		box.Remove(t)
		lab.NoLeftovers(t, before)
	})
}

func TestAProbeEntersANetworkNamespace(t *testing.T) {
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		box := d.StartContainer(t, ctrd.Container{Image: agentImage, Runtime: ctrd.Stock})
		got := ProbeIn(t, fmt.Sprintf("/proc/%d/ns/net", box.PID(t)), "addrs")
		if !got.OK || !strings.HasPrefix(got.Detail, "lo ") || strings.Contains(got.Detail, "uplink") {
			t.Errorf("got %s, want loopback alone", got)
		}
	})
}

func TestTheHostIsNotTouched(t *testing.T) {
	Require(t)
	lab.Get(t)
	got := ProbeIn(t, "/proc/self/ns/net", "addrs")
	if strings.Count(got.Detail, ";") != 2 || !strings.Contains(got.Detail, "uplink [") {
		t.Errorf("links are %q, want lo and uplink", got.Detail)
	}
	var fs unix.Statfs_t
	for dir, magic := range map[string]int64{"/run": unix.TMPFS_MAGIC, "/var/log": unix.TMPFS_MAGIC, "/etc": unix.OVERLAYFS_SUPER_MAGIC} {
		if err := unix.Statfs(dir, &fs); err != nil || fs.Type != magic {
			t.Errorf("%s has type %#x, %v; want %#x", dir, fs.Type, err, magic)
		}
	}
}
