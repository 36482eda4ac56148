//go:build linux

package integration

import (
	"strings"
	"testing"

	"cofferdam.dev/cofferdam/integration/ctrd"
	"cofferdam.dev/cofferdam/integration/lab"
	"cofferdam.dev/cofferdam/integration/outcome"
)

// reach is something that an agent under onlyGood wants to reach.
type reach struct {
	name    string
	attempt string
	kind    string // of the sink's event, "" if it must be refused
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
	{"a denied name by CONNECT", "https-via http://10.200.0.1:3128 evil.test:443 evil.test", "", ""},
	{"a denied name by SOCKS5", "https-via socks5://10.200.0.1:1080 evil.test:443 evil.test", "", ""},
	{"a denied name by an absolute target", "http 10.200.0.1:3128 good.test GET http://evil.test/", "", ""},
	{"another server name in CONNECT", "https-via http://10.200.0.1:3128 good.test:443 evil.test", "", ""},
	{"another server name in SOCKS5", "https-via socks5://10.200.0.1:1080 good.test:443 evil.test", "", ""},
	{"something else than TLS in CONNECT", "tcp-via http://10.200.0.1:3128 good.test:443 SSH-2.0-probe\r\n", "", ""},
	{"an address by SOCKS5", "https-via socks5://10.200.0.1:1080 45.67.89.66:443 -", "", ""},
	{"a host of the uplink by CONNECT", "tcp-via http://10.200.0.1:3128 169.254.169.254:80 x", "", ""},
	{"a resolver by DNS over TLS", "https 8.8.8.8:853 -", "", ""},
	{"a resolver by DNS over HTTPS", "https 8.8.8.8:443 dns.google", "", ""},
	{"a denied name below an allowed one", "https bad.good.test:443 bad.good.test", "", ""},
	{"a name that no rule mentions", "https evil.test:443 evil.test", "", ""},
	{"a name below an allowed one", "https www.good.test:443 www.good.test", "", ""},
	{"an allowed name on another port", "https good.test:8443 good.test", "", ""},
	{"an allowed name for HTTP on another port", "http good.test:8080 good.test", "", ""},
	{"another server name at an allowed name", "https good.test:443 evil.test", "", ""},
	{"no server name at an allowed name", "https good.test:443 -", "", ""},
	{"another host at an allowed name", "http good.test:80 evil.test", "", ""},
	{"something else than TLS at a TLS port", "tcp good.test:443 SSH-2.0-probe\r\n", "", ""},
}

// check makes the attempt: what succeeds is seen by the sink that it names, and by no other; what fails is seen by nobody.
func (r reach) check(t *testing.T, l *lab.Lab, probe func(attempt ...string) outcome.Outcome) {
	mark := l.Mark(t)
	got := probe(strings.Split(r.attempt, " ")...)
	if r.kind == "" {
		if got.OK {
			t.Errorf("it was reached: %s", got)
		}
		l.Silent(t, mark)
		return
	}
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

// TestOnlyWhatThePolicyAllowsIsReached is the positive half of the network wall. Invariants I2, I3.
func TestOnlyWhatThePolicyAllowsIsReached(t *testing.T) {
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
