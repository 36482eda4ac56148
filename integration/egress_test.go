//go:build linux

package integration

import (
	"strings"
	"testing"

	"cofferdam.dev/cofferdam/integration/ctrd"
	"cofferdam.dev/cofferdam/integration/lab"
	"cofferdam.dev/cofferdam/integration/outcome"
)

// reach is something that an agent may reach under onlyGood. What it may not is in the table of attacks.
type reach struct {
	name    string
	attempt string
	kind    string // of the sink's event
	to      string // address of the sink; only the resolver is asked besides
}

var egress = []reach{
	{"an allowed name by TLS", "https good.test:443 good.test", "http", lab.Good},
	{"an allowed name by HTTP", "http good.test:80 good.test", "http", lab.Good},
	{"an allowed name by SSH", "tcp ssh.good.test:22 SSH-2.0-probe\r\n", "ssh", lab.SSH},
	// An address is dialled only as the name that the connection gives: at that name's own address.
	{"an address with an allowed server name", "https 45.67.89.66:443 good.test", "http", lab.Good},
	{"the metadata address with an allowed host", "http 169.254.169.254:80 good.test", "http", lab.Good},
	// The gate's own proxies lead to the same decisions.
	{"an allowed name by CONNECT", "https-via http://10.200.0.1:3128 good.test:443 good.test", "http", lab.Good},
	{"an allowed name by SOCKS5", "https-via socks5://10.200.0.1:1080 good.test:443 good.test", "http", lab.Good},
	{"an allowed name by SSH in SOCKS5", "tcp-via socks5://10.200.0.1:1080 ssh.good.test:22 SSH-2.0-probe\r\n", "ssh", lab.SSH},
	{"an allowed name by an absolute target", "http 10.200.0.1:3128 good.test GET http://good.test/", "http", lab.Good},
}

// check makes the attempt: it succeeds, and is seen by the sink that it names, and by no other.
func (r reach) check(t *testing.T, l *lab.Lab, probe func(attempt ...string) outcome.Outcome) {
	mark := l.Mark(t)
	got := probe(strings.Split(r.attempt, " ")...)
	if !got.OK {
		t.Fatalf("it was refused: %s\n%s", got, lab.Join(l.Since(t, mark)))
	}
	l.WaitFor(t, mark, r.kind+" at "+r.to, func(e lab.Event) bool { return e.Kind == r.kind && e.Dst.Addr().String() == r.to })
	for _, e := range l.Since(t, mark) {
		if to := e.Dst.Addr().String(); to != r.to && to != lab.Resolver {
			t.Errorf("something else was reached: %s", e)
		}
	}
}

// TestWhatThePolicyAllowsIsReached is the positive half of the network wall. Invariants I2, I3.
func TestWhatThePolicyAllowsIsReached(t *testing.T) {
	Require(t, needShim)
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		l := lab.Get(t)
		box := Contained(t, d, Policy(t, onlyGood))
		for _, row := range egress {
			t.Run(row.name, func(t *testing.T) {
				row.check(t, l, func(attempt ...string) outcome.Outcome { return box.Probe(t, attempt...) })
			})
		}
	})
}

// TestNothingButSSHLeavesBySSH: an ssh rule's server may speak first, so it is reached; but it hears nothing of an agent that does not speak SSH.
// That it hears one that does is a row of the test above. Invariant I2.
func TestNothingButSSHLeavesBySSH(t *testing.T) {
	Require(t, needShim)
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		l := lab.Get(t)
		box := Contained(t, d, Policy(t, onlyGood))
		for _, attempt := range []string{"tcp ssh.good.test:22 probe\r\n", "tcp-via socks5://10.200.0.1:1080 ssh.good.test:22 probe\r\n"} {
			mark := l.Mark(t)
			box.Probe(t, strings.Split(attempt, " ")...)
			heard := l.WaitFor(t, mark, "the end of the connection", func(e lab.Event) bool { return e.Kind == "ssh" })
			if heard.Detail != `""` {
				t.Errorf("%s: the server heard %s", attempt, heard.Detail)
			}
		}
	})
}
