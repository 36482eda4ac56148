//go:build linux

package integration

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/integration/ctrd"
	"cofferdam.dev/cofferdam/integration/lab"
	"cofferdam.dev/cofferdam/integration/outcome"
)

// netOf is the network namespace of a container's command; it is opened while that lives.
func netOf(t testing.TB, box *ctrd.Running) string { return fmt.Sprintf("/proc/%d/ns/net", box.PID(t)) }

func signal(t testing.TB, pid int, sig unix.Signal) {
	t.Helper()
	if err := unix.Kill(pid, sig); err != nil {
		t.Fatalf("%v to %d: %v", sig, pid, err)
	}
}

// halted runs test while the engine is dead, and starts it again.
func halted(t *testing.T, d *ctrd.Daemon, test func()) {
	t.Helper()
	if err := d.Halt(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Start(); err != nil {
			t.Error(err)
		}
	}()
	test()
}

// established reports whether a process in the network namespace at path has a connection to port of addr, proc_net_tcp(5).
func established(t testing.TB, path, addr string, port int) bool {
	t.Helper()
	var found bool
	if err := lab.DoIn(path, func() error {
		data, err := os.ReadFile("/proc/thread-self/net/tcp")
		for line := range strings.Lines(string(data)) {
			f := strings.Fields(line)
			if len(f) < 4 || f[3] != "01" {
				continue
			}
			var a [4]byte
			fmt.Sscanf(f[2][:8], "%02X%02X%02X%02X", &a[3], &a[2], &a[1], &a[0]) // little endian
			found = found || fmt.Sprintf("%d.%d.%d.%d", a[0], a[1], a[2], a[3]) == addr && strings.HasSuffix(f[2], fmt.Sprintf(":%04X", port))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return found
}

// TestAConnectionWaitsForTheNextProxy kills a proxy while its parent, which would start the next one at once, stands still.
func TestAConnectionWaitsForTheNextProxy(t *testing.T) {
	Require(t, needShim)
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		l := lab.Get(t)
		box := Contained(t, d, Policy(t, onlyGood))
		ns := netOf(t, box)
		old := box.Probe(t, "dns", "good.test", "-", "A")
		if !old.OK {
			t.Fatal(old)
		}
		proxy, shim := inspect(t, d, box).Proxy, box.Shims(t)[0]

		signal(t, shim, unix.SIGSTOP)
		resumed := false
		resume := func() {
			if !resumed {
				resumed = true
				signal(t, shim, unix.SIGCONT)
			}
		}
		defer resume()
		signal(t, proxy.PID, unix.SIGKILL)
		eventually(t, "the proxy ends", func() bool { return !proxy.Alive() })
		mark := l.Mark(t)
		served := make(chan outcome.Outcome, 1)
		go func() { served <- ProbeIn(t, ns, "-patience", "20s", "https", old.Reply+":443", "good.test") }()
		eventually(t, "a connection is queued", func() bool { return established(t, ns, old.Reply, 443) })
		l.Silent(t, mark)
		resume()
		if got := <-served; !got.OK {
			t.Errorf("the connection that was queued: %s", got)
		}

		eventually(t, "ps shows the restart", func() bool { return strings.Contains(psLine(t, d, box), "up, restarted 1×") })
		if now := inspect(t, d, box).Proxy; now.PID == proxy.PID || !now.Alive() || !strings.Contains(now.LastExit, "137") {
			t.Errorf("the proxy was %+v and is %+v", proxy, now)
		}
		if got := box.Probe(t, "https", old.Reply+":443", "good.test"); !got.OK {
			t.Errorf("a name that was resolved before: %s", got)
		}
		if again := box.Probe(t, "dns", "good.test", "-", "A"); again.Reply != old.Reply {
			t.Errorf("good.test was %s and is %s", old.Reply, again.Reply)
		}
	})
}

// TestASSHAddressOutlivesItsProxy shows that a name is known by its synthetic address alone after the proxy has been replaced.
func TestASSHAddressOutlivesItsProxy(t *testing.T) {
	Require(t, needShim)
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		l := lab.Get(t)
		box := Contained(t, d, Policy(t, onlyGood))
		addr := box.Probe(t, "dns", "ssh.good.test", "-", "A")
		proxy := inspect(t, d, box).Proxy
		signal(t, proxy.PID, unix.SIGKILL)
		mark := l.Mark(t)
		if got := box.Probe(t, "tcp", addr.Reply+":22", "SSH-2.0-probe\r\n"); !got.OK {
			t.Errorf("got %s", got)
		}
		l.WaitFor(t, mark, "ssh", func(e lab.Event) bool { return e.Kind == "ssh" && e.Dst.Addr().String() == lab.SSH })
	})
}

func TestTheWallsStandWithoutTheEngine(t *testing.T) {
	Require(t, needShim)
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		l := lab.Get(t)
		box := Contained(t, d, Policy(t, onlyGood))
		ns := netOf(t, box)
		check := func() {
			t.Helper()
			if got := ProbeIn(t, ns, "https", lab.Evil+":443", "good.test"); !got.OK { // dialled as good.test
				t.Errorf("what is allowed: %s", got)
			}
			mark := l.Mark(t)
			if got := ProbeIn(t, ns, "https", lab.Evil+":443", "evil.test"); got.OK {
				t.Errorf("what is not: %s", got)
			}
			l.Silent(t, mark)
		}
		halted(t, d, check)
		check()
		if got := box.Probe(t, "https", "good.test:443", "good.test"); !got.OK {
			t.Errorf("exec after the restart: %s", got)
		}
		mark := l.Mark(t)
		if got := box.Probe(t, "https", lab.Evil+":443", "evil.test"); got.OK {
			t.Errorf("exec after the restart: %s", got)
		}
		l.Silent(t, mark)
	})
}

// TestTheNetworkIsClosedWhenTheShimIsKilled leaves an agent alone: nobody tidies up, since the engine is dead too. Invariant I1.
func TestTheNetworkIsClosedWhenTheShimIsKilled(t *testing.T) {
	Require(t, needShim)
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		l := lab.Get(t)
		before := lab.Take()
		box := Contained(t, d, Policy(t, onlyGood))
		ns, agent, proxy := netOf(t, box), box.PID(t), inspect(t, d, box).Proxy
		if got := ProbeIn(t, ns, "https", lab.Evil+":443", "good.test"); !got.OK {
			t.Errorf("control: %s", got)
		}
		halted(t, d, func() {
			killShim(t, box)
			eventually(t, "the proxy dies with its parent", func() bool { return !proxy.Alive() })
			if err := unix.Kill(agent, 0); err != nil {
				t.Errorf("the agent has not survived, so that nothing is shown: %v", err)
			}
			mark := l.Mark(t)
			for _, name := range []string{"good.test", "evil.test"} {
				if got := ProbeIn(t, ns, "https", lab.Evil+":443", name); got.OK || got.Connected || got.Elapsed > time.Second {
					t.Errorf("%s: %s", name, got)
				}
			}
			l.Silent(t, mark)
		})
		box.Remove(t)
		lab.NoLeftovers(t, before, append(notOfASandbox, "containerd --config")...)
	})
}

// TestAKilledShimIsTidiedUp asks for what the engine gives "shim delete": five seconds. Invariant I8.
func TestAKilledShimIsTidiedUp(t *testing.T) {
	Require(t, needShim)
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		box := Contained(t, d, Policy(t, onlyGood))
		agent := box.PID(t)
		killShim(t, box)
		eventually(t, "agent, task and sandbox are gone", func() bool {
			return errors.Is(unix.Kill(agent, 0), unix.ESRCH) && psLine(t, d, box) == "" &&
				!strings.Contains(d.MustCtr(t, "task", "list").Stdout, "\n"+box.ID+" ")
		})
	})
}

// TestADamagedGateHasNoPath takes from GATE all that a defender could lose. Invariant I1.
func TestADamagedGateHasNoPath(t *testing.T) {
	Require(t, needShim)
	attempts := []string{
		"tcp 45.67.89.66:5432", "https 45.67.89.66:443 evil.test", "udp 45.67.89.66:51820 tunnel", "udp 9.9.9.9:53 tunnel", "icmp 45.67.89.66",
		"raw 47 45.67.89.66", "dns secret.evil.test 8.8.8.8:53 TXT",
	}
	attack := func(t *testing.T, ns, attempt string) outcome.Outcome {
		return ProbeIn(t, ns, append([]string{"-patience", "300ms"}, strings.Split(attempt, " ")...)...)
	}
	t.Run("control", func(t *testing.T) {
		Require(t)
		l := lab.Get(t)
		for _, a := range attempts {
			mark := l.Mark(t)
			attack(t, "/proc/self/ns/net", a)
			if len(l.Since(t, mark)) == 0 {
				t.Errorf("%s is not seen from UPLINK", a)
			}
		}
	})
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		l := lab.Get(t)
		box := Contained(t, d, Policy(t, onlyGood))
		ns, proxy := netOf(t, box), inspect(t, d, box).Proxy
		if got := ProbeIn(t, ns, "https", lab.Evil+":443", "good.test"); !got.OK {
			t.Errorf("before the damage: %s", got)
		}
		silent := func(damage string) {
			t.Helper()
			for _, a := range attempts {
				mark := l.Mark(t)
				if got := attack(t, ns, a); got.OK && !strings.HasPrefix(a, "icmp") && !strings.HasPrefix(a, "raw") {
					t.Errorf("%s: %s: %s", damage, a, got)
				}
				l.Silent(t, mark)
			}
		}
		halted(t, d, func() {
			if err := lab.DoIn("/run/cofferdam/netns/"+sandboxID(d, box), func() error {
				c, err := nftables.New()
				if err != nil {
					return err
				}
				c.FlushRuleset()
				err = c.Flush()
				for _, key := range []string{"ip_forward", "conf/all/forwarding", "conf/gate/forwarding"} {
					err = errors.Join(err, os.WriteFile("/proc/sys/net/ipv4/"+key, []byte("1"), 0))
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if got := ProbeIn(t, ns, "https", lab.Evil+":443", "good.test"); got.OK {
				t.Errorf("the damage is none: what is allowed is still reached: %s", got)
			}
			silent("forwarding without rules")
			signal(t, proxy.PID, unix.SIGSTOP)
			silent("and the proxy stands still")
			killShim(t, box)
			eventually(t, "the proxy dies with its parent", func() bool { return !proxy.Alive() })
			silent("and proxy and shim are dead")
		})
	})
}
