package netns

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/netns/netnstest"
)

// What nft lists is what Rules prints: text and kernel agree.
func TestRulesInKernel(t *testing.T) {
	netnstest.Require(t, "nft")
	netnstest.Run(t, func(t *testing.T) {
		ns := newNS(t)
		must(t, Rules().apply(ns))
		var out []byte
		must(t, Do(ns, func() (err error) {
			out, err = exec.Command(netnstest.Program("nft"), "-s", "list", "ruleset").CombinedOutput()
			return err
		}))
		if diff := cmp.Diff(Rules().String(), string(out)); diff != "" {
			t.Errorf("rules differ (-described +in kernel):\n%s", diff)
		}
	})
}

func TestConnectionArrivesWithItsDestination(t *testing.T) {
	netnstest.Run(t, func(t *testing.T) {
		l := newLab(t)
		for _, addr := range []string{
			"8.8.8.8:443", "169.254.169.254:80", "10.200.0.1:22", "10.200.0.1:53", "192.168.1.1:8080",
			"100.100.100.200:80", "198.18.0.7:1", "1.1.1.1:65535",
			"10.200.0.1:15001", "8.8.8.8:15001", // L17: the listener's own port is any port
		} {
			l.arrives(t, addr)
		}
	})
}

func TestManyConnectionsToOneDestination(t *testing.T) {
	netnstest.Run(t, func(t *testing.T) {
		l := newLab(t)
		const n = 200
		var conns []net.Conn
		for range n { // they queue in the backlog meanwhile
			c, err := l.dial("tcp4", "8.8.8.8:443", plainTCP)
			must(t, err)
			conns = append(conns, c)
		}
		for range n {
			s := l.accept(t)
			_, err := s.Write([]byte("hello"))
			must(t, err)
			s.Close()
		}
		for _, c := range conns {
			b := make([]byte, 8)
			must(t, c.SetDeadline(time.Now().Add(patience)))
			if n, err := c.Read(b); err != nil || string(b[:n]) != "hello" {
				t.Errorf("read %q, %v", b[:n], err)
			}
			c.Close()
		}
	})
}

// L10: a client that offers MPTCP gets plain TCP.
func TestAcceptedSocketIsPlainTCP(t *testing.T) {
	netnstest.Run(t, func(t *testing.T) {
		l := newLab(t)
		// Even where the client's side speaks it.
		l.inBox(t, func() error {
			if err := sysctl("net.mptcp.enabled", "1"); err != nil && !errors.Is(err, unix.ENOENT) {
				return err
			}
			return nil
		})
		d := net.Dialer{}
		d.SetMultipathTCP(true)
		c, err := l.dial("tcp4", "8.8.8.8:443", d)
		must(t, err)
		defer c.Close()
		s := l.accept(t)
		defer s.Close()
		raw, err := s.SyscallConn()
		must(t, err)
		must(t, raw.Control(func(fd uintptr) {
			proto, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PROTOCOL)
			if err != nil || proto != unix.IPPROTO_TCP {
				t.Errorf("accepted socket has protocol %d, %v; want %d", proto, err, unix.IPPROTO_TCP)
			}
		}))
	})
}

func TestQueryIsAnsweredFromTheQueriedAddress(t *testing.T) {
	netnstest.Run(t, func(t *testing.T) {
		l := newLab(t)
		for _, addr := range []string{"10.200.0.1", "8.8.8.8", "127.0.0.53", "169.254.169.254"} {
			if addr == "127.0.0.53" {
				continue // BOX's own loopback
			}
			l.answers(t, addr)
		}
	})
}

// L9: QUIC, NTP, WireGuard and all else that is UDP, more of it than the
// kernel's rate limit for ICMP errors would let be refused.
func TestOtherUDPIsRefusedAtOnce(t *testing.T) {
	netnstest.Run(t, func(t *testing.T) {
		l := newLab(t)
		was := l.count(t, "udp")
		for _, ip := range []string{"8.8.8.8", "10.200.0.1"} {
			for _, port := range []int{1, 54, 67, 123, 443, 500, 853, 1194, 3478, 5353, 15001, 51820, 65535} {
				for range 4 {
					l.refused(t, "udp4", fmt.Sprintf("%s:%d", ip, port))
				}
			}
		}
		if got := l.count(t, "udp") - was; got != 2*13*4 {
			t.Errorf("counter udp rose by %d, want %d", got, 2*13*4)
		}
		l.silent(t)
	})
}

// L8, L10: ping gets no answer, unknown protocols get "protocol unreachable".
func TestPingIsSilentAndProtocolsAreRefused(t *testing.T) {
	netnstest.Run(t, func(t *testing.T) {
		l := newLab(t)
		const experimental = 253 // RFC 3692
		wasICMP, wasOther := l.count(t, "icmp"), l.count(t, "other")
		l.inBox(t, func() error {
			icmp, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
			if err != nil {
				return err
			}
			defer func() { _ = unix.Close(icmp) }()
			tv := unix.NsecToTimeval(patience.Nanoseconds())
			if err := unix.SetsockoptTimeval(icmp, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
				return err
			}
			raw, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, experimental)
			if err != nil {
				return err
			}
			defer func() { _ = unix.Close(raw) }()
			echo := []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0} // echo request with its checksum
			for _, ip := range [][4]byte{{8, 8, 8, 8}, {10, 200, 0, 1}} {
				if err := unix.Sendto(icmp, echo, 0, &unix.SockaddrInet4{Addr: ip}); err != nil {
					return err
				}
				// A reply would come before what answers the next packet.
				if err := unix.Sendto(raw, []byte("payload"), 0, &unix.SockaddrInet4{Addr: ip}); err != nil {
					return err
				}
				b := make([]byte, 1500)
				n, _, err := unix.Recvfrom(icmp, b, 0)
				if err != nil {
					return fmt.Errorf("wait for an ICMP message: %w", err)
				}
				if n < 28 || b[20] != 3 || b[21] != 2 {
					t.Errorf("%v: got ICMP type %d code %d first, want 3 2 (protocol unreachable)", ip, b[20], b[21])
				}
			}
			return nil
		})
		if got := l.count(t, "icmp") - wasICMP; got != 2 {
			t.Errorf("counter icmp rose by %d, want 2", got)
		}
		if got := l.count(t, "other") - wasOther; got != 2 {
			t.Errorf("counter other rose by %d, want 2", got)
		}
	})
}

// L16: the cable carries no IPv6, while ::1 works inside.
func TestIPv6IsClosed(t *testing.T) {
	netnstest.Run(t, func(t *testing.T) {
		l := newLab(t)
		for _, addr := range []string{"[2001:db8::1]:443", "[fe80::1%eth0]:443", "[64:ff9b::808:808]:443", "[2002::1]:443"} {
			start := time.Now()
			if c, err := l.dial("tcp6", addr, plainTCP); err == nil {
				t.Errorf("dial %s: connected", addr)
				c.Close()
			} else if d := time.Since(start); d > time.Second {
				t.Errorf("dial %s: %v after %v, want at once", addr, err, d)
			}
		}
		l.inBox(t, func() error {
			ln, err := net.Listen("tcp6", "[::1]:0")
			if err != nil {
				return err
			}
			defer ln.Close()
			c, err := net.Dial("tcp6", ln.Addr().String())
			if err != nil {
				return err
			}
			return c.Close()
		})
		// IPv4 in IPv6's clothes is IPv4 on the wire.
		c, err := l.dial("tcp", "[::ffff:8.8.8.8]:443", plainTCP)
		must(t, err)
		c.Close()
		l.accept(t).Close()

		// Root of BOX switches it on again and sends to GATE by its hardware address.
		l.ipv6InBox(t)
		l.sendIPv6(t)
		l.silent(t)

		// And with GATE's switched on too, the rule drops it.
		must(t, l.g.Do(func() error { return sysctl("net.ipv6.conf.gate.disable_ipv6", "0") }))
		was := l.count(t, "ipv6")
		eventually(t, "counter ipv6 rises", func() bool {
			l.sendIPv6(t)
			return l.count(t, "ipv6") > was
		})
		l.silent(t)
	})
}

func (l *lab) ipv6InBox(t *testing.T) {
	t.Helper()
	var gate netlink.Link
	must(t, l.g.Do(func() (err error) { gate, err = netlink.LinkByName(GateLink); return err }))
	l.inBox(t, func() error {
		if err := sysctl("net.ipv6.conf.eth0.disable_ipv6", "0", "net.ipv6.conf.eth0.accept_dad", "0"); err != nil {
			return err
		}
		eth0, err := netlink.LinkByName(BoxLink)
		if err != nil {
			return err
		}
		addr, err := netlink.ParseAddr("fd00::2/64")
		if err != nil {
			return err
		}
		addr.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(eth0, addr); err != nil {
			return err
		}
		return netlink.NeighAdd(&netlink.Neigh{
			LinkIndex: eth0.Attrs().Index, State: netlink.NUD_PERMANENT,
			IP: net.ParseIP("fd00::1"), HardwareAddr: gate.Attrs().HardwareAddr,
		})
	})
}

func (l *lab) sendIPv6(t *testing.T) {
	t.Helper()
	c, err := l.dial("udp6", "[fd00::1]:53", net.Dialer{})
	must(t, err)
	defer c.Close()
	_, err = c.Write([]byte("spoof"))
	must(t, err)
}

// L5: only the box's own address is listened to.
func TestSpoofedSourceIsDropped(t *testing.T) {
	for _, rules := range []bool{true, false} {
		t.Run(fmt.Sprintf("rules=%v", rules), func(t *testing.T) {
			netnstest.Run(t, func(t *testing.T) {
				l := newLab(t)
				l.silent(t) // the control, and ARP is done: it is not answered to strangers either
				if !rules {
					l.flush(t)
				}
				sources := []string{"203.0.113.9", "10.200.0.9", "10.200.0.1", "8.8.8.8"}
				l.inBox(t, func() error {
					eth0, err := netlink.LinkByName(BoxLink)
					if err != nil {
						return err
					}
					for _, s := range sources {
						addr, err := netlink.ParseAddr(s + "/32")
						if err == nil {
							err = netlink.AddrAdd(eth0, addr)
						}
						if err != nil {
							return err
						}
					}
					return nil
				})
				for _, s := range sources {
					var was uint64
					if rules {
						was = l.count(t, "spoofed")
					}
					// UDP, and the first packet of TCP, which nobody waits for.
					udp, err := l.dial("udp4", "1.2.3.4:53", net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(s)}})
					must(t, err)
					_, err = udp.Write([]byte("spoof"))
					must(t, err)
					udp.Close()
					l.inBox(t, func() error { return startConnect(s, [4]byte{1, 2, 3, 4}, 443) })
					if rules {
						l.counted(t, "spoofed", was+1)
					}
				}
				if rules {
					l.silent(t)
				} else {
					// Without TPROXY connections reach only the listener's own port.
					l.arrives(t, "8.8.4.4:15001")
					l.answers(t, "8.8.4.4")
				}
			})
		})
	}
}

// startConnect sends the first packet of a connection.
func startConnect(from string, to [4]byte, port int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte(net.ParseIP(from).To4())}); err != nil {
		return err
	}
	err = unix.Connect(fd, &unix.SockaddrInet4{Addr: to, Port: port})
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return err
	}
	return nil
}

// L12: the loopback addresses of BOX are its own, and sent over the cable by
// its root they are martians to GATE.
func TestLoopbackOverTheCableIsDropped(t *testing.T) {
	netnstest.Run(t, func(t *testing.T) {
		l := newLab(t)
		l.inBox(t, func() error {
			if err := sysctl("net.ipv4.conf.all.route_localnet", "1"); err != nil {
				return err
			}
			eth0, err := netlink.LinkByName(BoxLink)
			if err != nil {
				return err
			}
			return netlink.RouteAdd(&netlink.Route{
				LinkIndex: eth0.Attrs().Index, Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_UNICAST,
				Dst: &net.IPNet{IP: net.IPv4(127, 0, 0, 53).To4(), Mask: net.CIDRMask(32, 32)},
				Gw:  GateIP.AsSlice(), Src: BoxIP.AsSlice(), Flags: int(netlink.FLAG_ONLINK),
			})
		})
		sent := l.received(t)
		l.inBox(t, func() error { return startConnect("10.200.0.2", [4]byte{127, 0, 0, 53}, 443) })
		eventually(t, "the packet reaches gate", func() bool { return l.received(t) > sent })
		udp, err := l.dial("udp4", "127.0.0.53:53", net.Dialer{LocalAddr: &net.UDPAddr{IP: BoxIP.AsSlice()}})
		must(t, err)
		defer udp.Close()
		_, err = udp.Write([]byte("x"))
		must(t, err)
		l.silent(t)
	})
}

// received counts the packets that reached gate.
func (l *lab) received(t *testing.T) (n uint64) {
	t.Helper()
	must(t, l.g.Do(func() error {
		gate, err := netlink.LinkByName(GateLink)
		if err == nil {
			n = gate.Attrs().Statistics.RxPackets
		}
		return err
	}))
	return n
}

// flush removes all rules of GATE.
func (l *lab) flush(t *testing.T) {
	t.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(int(l.g.ns.Fd())))
	must(t, err)
	conn.FlushRuleset()
	must(t, conn.Flush())
}

// L1, L2, L3: whatever dies, connections are refused, at once.
func TestFailuresRefuse(t *testing.T) {
	forward := func(t *testing.T, l *lab) {
		must(t, l.g.Do(func() error {
			return sysctl("net.ipv4.ip_forward", "1", "net.ipv4.conf.gate.forwarding", "1")
		}))
	}
	for _, row := range []struct {
		name   string
		damage func(t *testing.T, l *lab)
	}{
		{"listeners closed", func(t *testing.T, l *lab) { l.hush() }},
		{"rules flushed", func(t *testing.T, l *lab) { l.flush(t) }},
		{"forwarding on and rules flushed", func(t *testing.T, l *lab) { forward(t, l); l.flush(t) }},
		{"forwarding on, rules flushed, listeners closed", func(t *testing.T, l *lab) { forward(t, l); l.flush(t); l.hush() }},
		{"forwarding on, listeners closed", func(t *testing.T, l *lab) { forward(t, l); l.hush() }},
	} {
		t.Run(row.name, func(t *testing.T) {
			netnstest.Run(t, func(t *testing.T) {
				l := newLab(t)
				l.silent(t) // the control: it works before
				row.damage(t, l)
				for _, addr := range []string{"8.8.8.8:443", "10.200.0.1:22", "169.254.169.254:80"} {
					l.refused(t, "tcp4", addr)
				}
				l.refused(t, "udp4", "8.8.8.8:443")
				if got, want := names(t, l.g.ns), []string{"lo", "gate"}; !slices.Equal(got, want) {
					t.Errorf("gate has %v, want %v", got, want)
				}
			})
		})
	}
}

// The cable works the moment Attach returns: no packet is lost to a link that
// the kernel is still activating, which would cost a second of waiting for ARP.
func TestConnectionRightAfterAttach(t *testing.T) {
	netnstest.Run(t, func(t *testing.T) {
		for range 100 {
			dir, box := t.TempDir(), newNS(t)
			g, err := Setup(t.Context(), dir, "a")
			must(t, err)
			must(t, g.Attach(box))
			l := &lab{g: g, box: box}
			start := time.Now()
			l.refused(t, "tcp4", "8.8.8.8:443")
			if d := time.Since(start); d > 500*time.Millisecond {
				t.Errorf("the first connection took %v", d)
			}
			must(t, g.Close())
			must(t, Teardown(dir, "a"))
		}
	})
}

// L12: two sandboxes with the same addresses do not see each other.
func TestTwoSandboxes(t *testing.T) {
	netnstest.Run(t, func(t *testing.T) {
		a, b := newLab(t), newLab(t)
		c, err := a.dial("tcp4", "10.200.0.1:80", plainTCP)
		must(t, err)
		defer c.Close()
		u, err := a.dial("udp4", "10.200.0.1:53", net.Dialer{})
		must(t, err)
		defer u.Close()
		_, err = u.Write([]byte("from a"))
		must(t, err)
		a.accept(t).Close()
		a.answer(t)
		b.silent(t)
		// A's own servers are not B's.
		a.inBox(t, func() error {
			ln, err := net.Listen("tcp4", "10.200.0.2:8080")
			if err == nil {
				t.Cleanup(func() { ln.Close() })
			}
			return err
		})
		b.refused(t, "tcp4", "10.200.0.2:8080")
		a.silent(t)
	})
}

// Settings are those of the namespace, not of the process or the caller.
func TestSysctlsFollowTheThread(t *testing.T) {
	netnstest.Run(t, func(t *testing.T) {
		read := func(key string) string {
			b, err := os.ReadFile(Sysctl{Key: key}.path())
			must(t, err)
			return strings.TrimSpace(string(b))
		}
		must(t, onThread(func() error { return sysctl("net.ipv4.ip_forward", "1") })) // the caller's
		before := read("net.ipv4.icmp_ratemask")
		l := newLab(t)
		must(t, l.g.Do(func() error {
			for _, c := range GateSysctls() {
				if _, err := os.Stat(c.path()); c.Optional && err != nil {
					continue
				}
				if got := read(c.Key); got != c.Value {
					t.Errorf("gate: %s = %s, want %s", c.Key, got, c.Value)
				}
			}
			if got := read("net.ipv4.conf.gate.forwarding"); got != "0" {
				t.Errorf("gate: forwarding of gate = %s, want 0", got)
			}
			return nil
		}))
		l.inBox(t, func() error {
			if got := read("net.ipv6.conf.eth0.disable_ipv6"); got != "1" {
				t.Errorf("box: disable_ipv6 of eth0 = %s, want 1", got)
			}
			return nil
		})
		if got := read("net.ipv4.icmp_ratemask"); got != before {
			t.Errorf("caller: icmp_ratemask = %s, want %s as before", got, before)
		}
		if got := read("net.ipv4.ip_forward"); got != "1" {
			t.Errorf("caller: ip_forward = %s, want 1 as before", got)
		}
	})
}
