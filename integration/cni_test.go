//go:build linux

package integration

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/integration/ctrd"
	"cofferdam.dev/cofferdam/integration/lab"
)

// network has `ctr --cni` use a network with one plugin, which it calls between Create and Start of a task. fill puts the plugins into a
// folder.
func network(t *testing.T, list string, fill func(dir string) error) {
	t.Helper()
	const config, plugins = "/etc/cni/net.d", "/opt/cni/bin" // ctr knows no others
	if err := os.MkdirAll(config, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", "/opt", "tmpfs", 0, "mode=755"); err != nil {
		t.Fatal("mount on /opt:", err)
	}
	t.Cleanup(func() {
		err := unix.Unmount("/opt", unix.MNT_DETACH)
		if err := errors.Join(err, os.RemoveAll("/etc/cni"), os.RemoveAll("/var/lib/cni")); err != nil {
			t.Error(err)
		}
	})
	if err := os.MkdirAll(plugins, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(fill(plugins), os.WriteFile(filepath.Join(config, "lab.conflist"), []byte(list), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// TestTheEnginesNetworkIsTheProxysUplink gives a container a network by CNI. The agent sees nothing of it; the proxy dials from there.
func TestTheEnginesNetworkIsTheProxysUplink(t *testing.T) {
	Require(t, needShim, needCNI)
	a, _ := lab.Inside()
	const own = "45.67.90.77" // of the container in the engine's network
	network(t, `{"cniVersion":"0.4.0","name":"lab","plugins":[{"type":"macvlan","master":"uplink","mode":"bridge","ipam":
		{"type":"static","addresses":[{"address":"`+own+`/24","gateway":"45.67.90.1"}],"routes":[{"dst":"0.0.0.0/0"}]}}]}`,
		func(dir string) error {
			var errs []error
			for _, plugin := range []string{"macvlan", "static"} {
				errs = append(errs, os.Symlink(filepath.Join(a.Paths[needCNI], plugin), filepath.Join(dir, plugin)))
			}
			return errors.Join(errs...)
		})
	from := func(address string) func(lab.Event) bool {
		return func(e lab.Event) bool { return e.Kind == "http" && e.Src.Addr().String() == address }
	}
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		l := lab.Get(t)
		open := d.StartContainer(t, ctrd.Container{Image: agentImage, Runtime: ctrd.Stock, Flags: []string{"--cni"}})
		mark := l.Mark(t)
		if got := open.Probe(t, "http", lab.Evil+":80", "evil.test"); !got.OK {
			t.Errorf("control: %s", got)
		}
		l.WaitFor(t, mark, "the control's request from "+own, from(own))
		open.Remove(t)

		before := lab.Take()
		box := Contained(t, d, Policy(t, onlyGood), "--cni")
		if got := box.Probe(t, "addrs"); strings.Contains(got.Detail, own) || !strings.Contains(got.Detail, "10.200.0.2") {
			t.Errorf("the agent's interfaces: %s", got)
		}
		contains(t, "inspect", cli(t, "inspect", sandboxID(d, box)), "uplink ", "the engine's network (eth0)")
		mark = l.Mark(t)
		for _, attempt := range []string{"http evil.test:80 evil.test", "http " + lab.Evil + ":80 evil.test", "http 45.67.90.1:80 evil.test", "udp " + lab.Evil + ":9 x"} {
			if got := box.Probe(t, strings.Split(attempt, " ")...); got.OK {
				t.Errorf("it was reached: %s", got)
			}
		}
		l.Silent(t, mark)
		reach := func(what string) {
			mark := l.Mark(t)
			if got := box.Probe(t, "http", "good.test:80", "good.test"); !got.OK {
				t.Errorf("%s: %s", what, got)
			}
			l.WaitFor(t, mark, what+": a request from "+own, from(own))
		}
		reach("the proxy")
		proxy := inspect(t, d, box).Proxy
		signal(t, proxy.PID, unix.SIGKILL)
		eventually(t, "another proxy serves", func() bool { p := inspect(t, d, box).Proxy; return p.Alive() && p.PID != proxy.PID })
		reach("the next proxy")
		box.Remove(t)
		lab.NoLeftovers(t, before, notOfASandbox...)
	})
}

// TestAnInterfaceInTheAgentsNetworkIsRefused has a plugin that does not take the process it is shown, but looks for the container's first one,
// and gives that a link.
func TestAnInterfaceInTheAgentsNetworkIsRefused(t *testing.T) {
	Require(t, needShim)
	a, _ := lab.Inside()
	network(t, `{"cniVersion":"0.4.0","name":"lab","plugins":[{"type":"plug"}]}`, func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "plug"), []byte(`#!/bin/sh
[ "$CNI_COMMAND" = ADD ] || exit 0
for bundle in `+ctrd.Bundles+`; do
	case $CNI_CONTAINERID in
	*-"${bundle##*/}") nsenter --net="/proc/$(cat "$bundle/init.pid")/ns/net" `+strconv.Quote(filepath.Join(a.Dir, "probe"))+` link-add stranger >&2 || exit 1 ;;
	esac
done
echo '{"cniVersion":"0.4.0","interfaces":[{"name":"stranger","sandbox":"'$CNI_NETNS'"}],"ips":[{"version":"4","interface":0,"address":"10.9.8.7/24"}]}'
`), 0o755)
	})
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		open := d.StartContainer(t, ctrd.Container{Image: agentImage, Runtime: ctrd.Stock, Flags: []string{"--cni"}})
		if got := open.Probe(t, "addrs"); !strings.Contains(got.Detail, "stranger") {
			t.Errorf("control: %s", got)
		}
		before, ws := lab.Take(), Workspace(t)
		box, got := d.TryContainer(t, ctrd.Container{
			Image: agentImage, Runtime: ctrd.Cofferdam, Workspace: ws, Flags: []string{"--cni"}, Args: []string{"touch", "/workspace/ran"},
		})
		if got.Code == 0 || !strings.Contains(got.Stderr, `not started: box has an extra interface "stranger`) {
			t.Errorf("got %s", got)
		}
		box.Remove(t)
		if files, _ := os.ReadDir(ws); len(files) > 0 {
			t.Error("the command has run")
		}
		lab.NoLeftovers(t, before, notOfASandbox...)
	})
}
