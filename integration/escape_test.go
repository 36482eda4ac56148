//go:build linux

package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"cofferdam.dev/cofferdam/integration/ctrd"
	"cofferdam.dev/cofferdam/integration/lab"
)

func startHost(t testing.TB) *lab.Host {
	t.Helper()
	host, stop, err := lab.StartHost()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return host
}

// Somebody who has broken every wall but I1 has the box's network namespace and all capabilities in it. There is still no path.
func TestABoxHasNoPathEvenForRoot(t *testing.T) {
	Require(t, needShim)
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		l := lab.Get(t)
		box := Contained(t, d, Policy(t, onlyGood))
		ns := fmt.Sprintf("/proc/%d/ns/net", box.PID(t))
		for _, attempt := range []string{
			"packet eth0", "icmp 45.67.89.66", "icmp 2a0e:97c0:ffff::1", "raw 132 45.67.89.66", "raw 47 45.67.89.66", "raw 50 45.67.89.66",
			"udp 45.67.89.66:51820 tunnel", "udp 255.255.255.255:5353 all", "tcp 45.67.89.66:5432", "tcp [2a0e:97c0:ffff::1]:5432",
			"write /proc/sys/net/ipv4/ip_forward 1", "addr-add eth0 45.67.90.77/24", "addr-add eth0 2a0e:97c0:1::77/64", "route 45.67.90.1 eth0",
			"tcp 45.67.89.66:5432", "udp 45.67.89.66:51820 tunnel", "udp 9.9.9.9:53 tunnel", "icmp 45.67.89.66", "packet eth0",
		} {
			t.Run(attempt, func(t *testing.T) {
				mark := l.Mark(t)
				// Only the silence of the lab counts, and it needs no waiting: the fence is behind everything.
				got := ProbeIn(t, ns, append([]string{"-patience", "300ms"}, strings.Split(attempt, " ")...)...)
				l.Silent(t, mark)
				if strings.HasPrefix(attempt, "tcp") && got.OK {
					t.Errorf("it was reached: %s", got)
				}
			})
		}
	})
}

// eventually waits up to five seconds for a condition that nobody announces.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}
