//go:build linux

package integration

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/integration/attack"
	"cofferdam.dev/cofferdam/integration/ctrd"
	"cofferdam.dev/cofferdam/integration/lab"
	"cofferdam.dev/cofferdam/shim/sandbox"
)

// witness is a sandbox whose agent is a probe that serves on a port of its own loopback: it hears us whatever dies outside.
type witness struct {
	*servant
	state  sandbox.State
	engine *ctrd.Daemon // nil: there is none
}

// witness fronts, by the names that they have in the table.
var witnesses = []struct {
	name string
	up   func(t *testing.T, r *ground) witness
}{
	{"shim-v2", witnessInContainer("v2")},
	{"shim-deb", witnessInContainer("deb")},
	{"run-root", witnessInRun(func(t testing.TB) person { return newPerson(t, "root", 0) })},
	{"run-user", witnessInRun(func(t testing.TB) person { return newPerson(t, "user", 4711) })},
}

const witnessPort = "7070"

func witnessInContainer(engine string) func(*testing.T, *ground) witness {
	return func(t *testing.T, r *ground) witness {
		d := Engine(t, engine)
		box := d.StartContainer(t, ctrd.Container{
			Image: agentImage, Runtime: ctrd.Cofferdam, Policy: Policy(t, onlyGood), Workspace: Workspace(t), Args: []string{"probe", "serve", witnessPort},
		})
		b := witness{state: inspect(t, d, box), engine: d}
		b.servant = call(t, b.state.Agent.PID, r.place("/workspace", suid))
		return b
	}
}

func witnessInRun(who func(testing.TB) person) func(*testing.T, *ground) witness {
	return func(t *testing.T, r *ground) witness {
		p := who(t)
		probe := filepath.Join(p.dir, "probe")
		cmd := p.command(t, "run", "--name", "witness", "--policy", p.write(t, ".config/cofferdam/policies/lab.yaml", onlyGood), "--read", p.dir, "--", probe, "serve", witnessPort)
		cmd.Stderr, cmd.Cancel = &note{t: t}, endsByItself
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Signal(unix.SIGCONT)
			_ = cmd.Process.Signal(unix.SIGTERM)
			_ = cmd.Wait()
		})
		var b witness
		eventually(t, "the agent runs", func() bool {
			got := finish(t, p.command(t, "inspect", "--json", "witness"))
			return got.Code == 0 && json.Unmarshal([]byte(got.Stdout), &b.state) == nil && b.state.Phase == sandbox.Running
		})
		b.servant = call(t, b.state.Agent.PID, r.place(p.workspace(), probe))
		return b
	}
}

// call connects to a probe that serves in the network namespace of a process.
func call(t testing.TB, pid int, place attack.Place) *servant {
	t.Helper()
	var c net.Conn
	eventually(t, "the probe serves", func() bool {
		return lab.DoIn(fmt.Sprintf("/proc/%d/ns/net", pid), func() (err error) {
			c, err = net.Dial("tcp", "127.0.0.1:"+witnessPort)
			return err
		}) == nil
	})
	t.Cleanup(func() { c.Close() })
	return &servant{c, bufio.NewReaderSize(c, 1<<20), place}
}

// inGate calls fn in the sandbox's GATE, which who made the sandbox has open.
func (b witness) inGate(t testing.TB, fn func() error) {
	t.Helper()
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", b.state.Shim.PID))
	if err != nil {
		t.Fatal(err)
	}
	fds = append(fds, "/run/cofferdam/netns/"+b.state.ID)
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && !strings.HasPrefix(to, "net:[") {
			continue
		}
		found := false
		err := lab.DoIn(fd, func() error {
			if _, err := net.InterfaceByName("gate"); err != nil {
				return nil
			}
			found = true
			return fn()
		})
		if found {
			if err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("the sandbox's gate is not found")
}

// mishaps are what happens to a sandbox before it is attacked. Each is undone when the test ends.
var mishaps = []struct {
	name   string
	engine bool // only where there is one
	make   func(t *testing.T, b witness)
}{
	{"load", false, func(t *testing.T, b witness) {
		// Eight processes of the agent's own, which try what is denied as fast as they can.
		loop := fmt.Sprintf("while :; do %[1]s -patience 50ms tcp 45.67.89.66:443 x; %[1]s -patience 50ms dns secret.evil.test - TXT; %[1]s -patience 50ms udp 9.9.9.9:99 x; done", b.place.SUID)
		if got := b.try(t, []string{"sh", "for i in 1 2 3 4 5 6 7 8; do (" + loop + ") >/dev/null 2>&1 & done"}); !got.OK {
			t.Fatal(got)
		}
	}},
	{"proxy-killed", false, func(t *testing.T, b witness) {
		stop(t, b.state.Shim.PID) // it would start the next one
		signal(t, b.state.Proxy.PID, unix.SIGKILL)
		eventually(t, "the proxy ends", func() bool { return !b.state.Proxy.Alive() })
	}},
	{"proxy-stopped", false, func(t *testing.T, b witness) { stop(t, b.state.Proxy.PID) }},
	{"maker-stopped", false, func(t *testing.T, b witness) { stop(t, b.state.Shim.PID) }},
	{"maker-killed", true, func(t *testing.T, b witness) { // without the engine, which would tidy up
		haltFor(t, b.engine)
		signal(t, b.state.Shim.PID, unix.SIGKILL)
		eventually(t, "the shim ends", func() bool { return !b.state.Shim.Alive() })
	}},
	{"engine-killed", true, func(t *testing.T, b witness) { haltFor(t, b.engine) }},
	{"gate-open", false, func(t *testing.T, b witness) {
		b.inGate(t, func() error {
			c, err := nftables.New()
			if err != nil {
				return err
			}
			c.FlushRuleset()
			err = c.Flush()
			for _, key := range []string{"ipv4/ip_forward", "ipv4/conf/all/forwarding", "ipv4/conf/gate/forwarding", "ipv6/conf/all/forwarding"} {
				err = errors.Join(err, os.WriteFile("/proc/sys/net/"+key, []byte("1"), 0))
			}
			return err
		})
		if got := b.try(t, []string{"-patience", "300ms", "https", "45.67.89.66:443", "good.test"}); got.OK {
			t.Fatalf("the damage is none: what is allowed is still reached: %s", got)
		}
	}},
}

// stop stops a process for the rest of the test.
func stop(t *testing.T, pid int) {
	t.Helper()
	signal(t, pid, unix.SIGSTOP)
	t.Cleanup(func() { _ = unix.Kill(pid, unix.SIGCONT) })
}

// haltFor kills an engine for the rest of the test.
func haltFor(t *testing.T, d *ctrd.Daemon) {
	t.Helper()
	if err := d.Halt(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Start(); err != nil {
			t.Error(err)
		}
	})
}

// briefly are the mishaps that make test has time for; make attack has it for all.
var briefly = []string{"shim-v2/gate-open", "run-user/proxy-killed"}

// TestAttacksAfterFaults makes every attack on a sandbox to which something has happened. What an agent is told may be anything then; what
// the world sees may not. The controls are those of TestAttacks.
func TestAttacksAfterFaults(t *testing.T) {
	Require(t, needShim, needImage)
	for _, f := range witnesses {
		for _, fault := range mishaps {
			name := f.name + "/" + fault.name
			if *attacksFile == "" && !slices.Contains(briefly, name) || fault.engine && !strings.HasPrefix(f.name, "shim-") {
				continue
			}
			t.Run(name, func(t *testing.T) {
				r := newGround(t)
				b := f.up(t, r)
				if got := b.try(t, []string{"https", "45.67.89.66:443", "good.test"}); !got.OK {
					t.Errorf("before the fault: %s", got)
				}
				if got := b.try(t, []string{"sh", "echo x >" + b.place.Workspace + "/x"}); !got.OK { // its broker runs from now on
					t.Errorf("before the fault: %s", got)
				}
				calm(t, r.lab)
				fault.make(t, b)
				for _, a := range inTime(name, inTurn(attack.All())) {
					if !a.Alone() || a.Lax {
						continue
					}
					a.Refused, a.At = nil, 0
					patience := "200ms"
					if a.Mute() { // nothing that the probe would wait for
						patience = "60ms"
					}
					says, escaped := r.contained(t, b.servant, a, "-patience", patience)
					for _, e := range escaped {
						t.Errorf("%s: %s", a.ID, e)
					}
					keep(attack.Result{ID: a.ID, Front: f.name + " " + fault.name, Outcome: says, Control: "as without the fault", Failed: len(escaped) > 0})
				}
			})
		}
	}
}
