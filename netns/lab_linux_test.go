package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds what should take microseconds, on a machine that is busy.
const patience = 10 * time.Second

// A lab is a sandbox without its container.
type lab struct {
	dir, id string
	g       *Gate
	l       Listeners
	box     *os.File
	tcp     *net.TCPListener
	dns     *net.UDPConn
}

// newLab makes one, verified; it is torn down with the test.
func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{dir: t.TempDir(), id: "default:web-1"}
	var err error
	l.g, err = Setup(t.Context(), l.dir, l.id)
	must(t, err)
	t.Cleanup(func() {
		l.g.Close()
		must(t, Teardown(l.dir, l.id))
	})
	l.box = newNS(t)
	must(t, l.g.Attach(l.box))
	l.l, err = l.g.Listen()
	must(t, err)
	t.Cleanup(func() { l.l.Close() })
	must(t, l.g.Verify(l.box))

	ln, err := net.FileListener(l.l.TCP)
	must(t, err)
	l.tcp = ln.(*net.TCPListener)
	t.Cleanup(func() { ln.Close() })
	pc, err := net.FilePacketConn(l.l.DNS)
	must(t, err)
	l.dns = pc.(*net.UDPConn)
	t.Cleanup(func() { pc.Close() })
	return l
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newNS makes a network namespace, as runc makes BOX.
func newNS(t testing.TB) *os.File {
	t.Helper()
	var ns *os.File
	must(t, onThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		ns, err = os.Open(ownNet)
		return err
	}))
	t.Cleanup(func() { ns.Close() })
	return ns
}

// hush closes the listeners, all copies of them.
func (l *lab) hush() {
	l.l.Close()
	l.tcp.Close()
	l.dns.Close()
}

// inBox runs f in BOX.
func (l *lab) inBox(t *testing.T, f func() error) {
	t.Helper()
	must(t, Do(l.box, f))
}

// dial dials from BOX. net does so on the calling thread, given an IP literal.
func (l *lab) dial(network, addr string, d net.Dialer) (c net.Conn, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err = Do(l.box, func() error { c, err = d.DialContext(ctx, network, addr); return err })
	return c, err
}

// plainTCP dials TCP rather than MPTCP.
var plainTCP = net.Dialer{}

// arrives dials addr from BOX and wants the listener to see it so.
func (l *lab) arrives(t *testing.T, addr string) {
	t.Helper()
	c, err := l.dial("tcp4", addr, plainTCP)
	if err != nil {
		t.Errorf("dial %s: %v", addr, err)
		return
	}
	defer c.Close()
	s := l.accept(t)
	defer s.Close()
	if got := s.LocalAddr().String(); got != addr {
		t.Errorf("dialled %s, accepted as %s", addr, got)
	}
	if got, want := s.RemoteAddr().String(), c.LocalAddr().String(); got != want {
		t.Errorf("dial %s: peer is %s, want %s", addr, got, want)
	}
}

func (l *lab) accept(t *testing.T) *net.TCPConn {
	t.Helper()
	must(t, l.tcp.SetDeadline(time.Now().Add(patience)))
	c, err := l.tcp.AcceptTCP()
	must(t, err)
	return c
}

// refused dials addr from BOX, sends a datagram if it is UDP, and wants
// "connection refused", at once.
func (l *lab) refused(t *testing.T, network, addr string) {
	t.Helper()
	start := time.Now()
	c, err := l.dial(network, addr, plainTCP)
	if err == nil {
		if network == "udp4" {
			_, err = exchange(c)
		}
		c.Close()
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("%s %s: got %v, want connection refused", network, addr, err)
	}
	if d := time.Since(start); d > time.Second { // a retransmission, at the earliest
		t.Errorf("%s %s: refused after %v, want at once", network, addr, d)
	}
}

// exchange sends a datagram and waits for one.
func exchange(c net.Conn) (string, error) {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := c.Write([]byte("query")); err != nil {
		return "", err
	}
	b := make([]byte, 512)
	n, err := c.Read(b)
	return string(b[:n]), err
}

// answer answers the next query from the queried address, which it returns.
func (l *lab) answer(t *testing.T) netip.Addr {
	t.Helper()
	b, oob := make([]byte, 512), make([]byte, 128)
	must(t, l.dns.SetDeadline(time.Now().Add(patience)))
	n, oobn, _, from, err := l.dns.ReadMsgUDP(b, oob)
	must(t, err)
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	must(t, err)
	for _, m := range msgs {
		if m.Header.Level != unix.SOL_IP || m.Header.Type != unix.IP_PKTINFO {
			continue
		}
		// struct in_pktinfo: int ipi_ifindex, in_addr ipi_spec_dst, ipi_addr.
		dst := [4]byte(m.Data[8:12])
		_, _, err = l.dns.WriteMsgUDP(b[:n], unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: dst}), from)
		must(t, err)
		return netip.AddrFrom4(dst)
	}
	t.Fatal("no IP_PKTINFO with the query")
	return netip.Addr{}
}

// silent proves that nothing arrived until now: a connection and a query made
// now are the first.
func (l *lab) silent(t *testing.T) {
	t.Helper()
	l.arrives(t, "192.0.2.1:9")
	l.answers(t, "192.0.2.1")
}

// answers queries addr from BOX and wants the answer to come from there.
func (l *lab) answers(t *testing.T, addr string) {
	t.Helper()
	c, err := l.dial("udp4", addr+":53", net.Dialer{})
	must(t, err)
	defer c.Close()
	must(t, c.SetDeadline(time.Now().Add(patience)))
	_, err = c.Write([]byte("to " + addr))
	must(t, err)
	if got := l.answer(t); got.String() != addr {
		t.Errorf("queried %s, arrived at %s", addr, got)
	}
	b := make([]byte, 512)
	n, err := c.Read(b) // of a connected socket: only what comes from addr
	if err != nil || string(b[:n]) != "to "+addr {
		t.Errorf("query to %s: answer %q, %v", addr, b[:n], err)
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); <-time.After(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not: %s", what)
		}
	}
}

// counted waits until a counter has passed what it was.
func (l *lab) counted(t *testing.T, name string, was uint64) {
	t.Helper()
	eventually(t, fmt.Sprintf("counter %s above %d", name, was), func() bool { return l.count(t, name) > was })
}

func (l *lab) count(t *testing.T, name string) uint64 {
	t.Helper()
	c, err := l.g.Counters()
	must(t, err)
	return c[name]
}

// names are the interfaces of a namespace.
func names(t *testing.T, ns *os.File) []string {
	t.Helper()
	var list []string
	must(t, Do(ns, func() error {
		all, err := links()
		for _, l := range all {
			list = append(list, l.name)
		}
		return err
	}))
	return list
}

// sysctl writes one setting, or more, in the calling thread's namespace.
func sysctl(pairs ...string) error {
	var s Sysctls
	for i := 0; i < len(pairs); i += 2 {
		s = append(s, Sysctl{Key: pairs[i], Value: pairs[i+1]})
	}
	return s.apply()
}

// entries are the names in a folder.
func entries(t *testing.T, dir string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, "*"))
	must(t, err)
	return list
}
