package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"cofferdam.dev/cofferdam/proxy/policy"
	"cofferdam.dev/cofferdam/proxy/record"
)

// patience bounds every wait of the tests.
const patience = 10 * time.Second

// The tests use the real kernel on loopback: a listener on 0.0.0.0 accepts
// connections to all of 127.0.0.0/8, and the local address of each is the one
// that was dialled, as with AnyIP in GATE. Synthetic addresses come from
// 127.64.0.0/16. Upstreams listen on ::1, at the same port.
var testPool = netip.MustParsePrefix("127.64.0.0/16")

var testGate = netip.MustParseAddr("10.200.0.1")

const literal = "127.9.9.9" // an address that is not of the pool

// lab is a proxy with its log and, where a test asks, an upstream.
type lab struct {
	t        testing.TB
	server   *Server
	port     int // of the proxy, hence of every destination, and of the upstream
	dns      string
	log      string
	idle     time.Duration // zero for the server's own
	identify time.Duration // the same
	change   func(*Server) // before it serves
	full     bool          // the log does not take all records
	ctx      context.Context
	others   sync.WaitGroup // connections that the listener did not accept
	stop     func()         // ends the proxy and waits for it
}

type labOption func(*Config, *lab)

// newLab starts a proxy. PORT in the policy stands for the port.
func newLab(t testing.TB, policyText string, options ...labOption) *lab {
	t.Helper()
	tcp, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	dns, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4zero})
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{
		t: t, port: tcp.Addr().(*net.TCPAddr).Port, log: filepath.Join(t.TempDir(), "records"),
		dns: fmt.Sprintf("127.0.0.1:%d", dns.LocalAddr().(*net.UDPAddr).Port),
	}
	cfg := Config{
		TCP: tcp.(*net.TCPListener), DNS: dns, Pool: testPool, Box: netip.MustParseAddr("127.0.0.1"), Gate: testGate,
		Names: openFile(t, filepath.Join(t.TempDir(), "names"), os.O_RDWR|os.O_APPEND),
	}
	if policyText != "" {
		if cfg.Policy, err = policy.Parse("test", []byte(strings.ReplaceAll(policyText, "PORT", fmt.Sprint(l.port)))); err != nil {
			t.Fatal(err)
		}
	}
	cfg.Records = newRecords(t, l.log, record.Limits{})
	for _, option := range options {
		option(&cfg, l)
	}
	if l.server, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	l.server.timeouts.refuse = 200 * time.Millisecond
	if l.idle > 0 {
		l.server.timeouts.idle = l.idle
	}
	if l.identify > 0 {
		l.server.timeouts.identify = l.identify
	}
	if l.change != nil {
		l.change(l.server)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.ctx = ctx
	ended := make(chan error, 1)
	go func() { ended <- l.server.Serve(ctx) }()
	l.stop = func() {
		t.Helper()
		cancel()
		select {
		case err := <-ended:
			ended <- nil
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(patience):
			t.Fatal("Serve does not end")
		}
		l.others.Wait()
	}
	t.Cleanup(func() {
		l.stop()
		l.checkEnds()
	})
	return l
}

// checkEnds holds every test to this: a connection that was allowed something has exactly one record of its end, whatever that was, and no
// other has one.
func (l *lab) checkEnds() {
	l.t.Helper()
	if l.full {
		return
	}
	allowed, closed := map[uint64]bool{}, map[uint64]int{}
	for _, r := range readRecords(l.t, l.log) {
		switch {
		case r.Kind == record.Decision && r.Verdict == "allow" && r.Protocol != "dns":
			allowed[r.Conn] = true
		case r.Kind == record.Close:
			closed[r.Conn]++
		}
	}
	for conn := range allowed {
		if closed[conn] != 1 {
			l.t.Errorf("connection %d was allowed, and has %d records of its end", conn, closed[conn])
		}
	}
	for conn := range closed {
		if !allowed[conn] {
			l.t.Errorf("connection %d was never allowed, and has a record of its end", conn)
		}
	}
}

func openFile(t testing.TB, path string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|flags, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func newRecords(t testing.TB, path string, limits record.Limits) *record.Writer {
	t.Helper()
	log, err := record.OpenLog(path, "box-1", limits)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- log.Serve(theirs) }() // ends when the writer is closed
	w := record.NewWriter(ours, "box-1", "test")
	t.Cleanup(func() {
		w.Close()
		if err := errors.Join(<-served, log.Close()); err != nil {
			t.Errorf("log: %v", err)
		}
	})
	return w
}

func withLogLimit(limit int64) labOption {
	return func(cfg *Config, l *lab) {
		cfg.Records, l.full = newRecords(l.t, l.log, record.Limits{Life: limit}), true
	}
}

func withChange(change func(*Server)) labOption {
	return func(_ *Config, l *lab) { l.change = change }
}

// records ends the proxy and returns what it recorded, but for its own start and
// end, as "kind verdict protocol name rule? reason".
func (l *lab) records() []string {
	l.t.Helper()
	l.stop()
	var lines []string
	for _, r := range readRecords(l.t, l.log) {
		if r.Kind == record.Proxy && (r.Reason == "started" || r.Reason == "stopped") {
			continue
		}
		host := r.Name
		if host == "" {
			host = r.Address
		}
		line := strings.Join(strings.Fields(fmt.Sprint(r.Kind, " ", r.Verdict, " ", r.Protocol, " ", host)), " ")
		if r.Kind != record.Close {
			line += ": " + r.Reason
		} else {
			line += fmt.Sprintf(": up %d down %d", r.BytesUp, r.BytesDown)
		}
		lines = append(lines, strings.ReplaceAll(line, fmt.Sprint(l.port), "PORT"))
	}
	return lines
}

func readRecords(t testing.TB, path string) []record.Record {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []record.Record
	for r, err := range record.Read(strings.NewReader(string(data))) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// synthetic looks a name up in the proxy's DNS with Go's own resolver.
func (l *lab) synthetic(name string) string {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	addrs, err := l.resolver().LookupHost(ctx, name+".")
	if err != nil || len(addrs) != 1 {
		l.t.Fatalf("look up %s: %v, %v", name, addrs, err)
	}
	return addrs[0]
}

func (l *lab) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, l.dns)
	}}
}

// dial connects to an address through the proxy.
func (l *lab) dial(address string) *net.TCPConn {
	l.t.Helper()
	conn, err := net.DialTimeout("tcp4", fmt.Sprintf("%s:%d", address, l.port), patience)
	if err != nil {
		l.t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(patience))
	l.t.Cleanup(func() { conn.Close() })
	return conn.(*net.TCPConn)
}

// waitOpen waits until the number of connections is open that is asked for. The
// listener holds a place too, for the next one.
func (l *lab) waitOpen(n int) {
	l.t.Helper()
	deadline := time.Now().Add(patience)
	for len(l.server.open) != n+1 {
		if time.Now().After(deadline) {
			l.t.Fatalf("%d connections are open, want %d", len(l.server.open)-1, n)
		}
		<-time.After(time.Millisecond)
	}
}

// serveTo returns the agent's end of a connection whose original destination is
// the given one, which loopback cannot give.
func (l *lab) serveTo(dest netip.AddrPort) *net.TCPConn {
	l.t.Helper()
	listener, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		l.t.Fatal(err)
	}
	defer listener.Close()
	agent, err := net.DialTimeout("tcp4", listener.Addr().String(), patience)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { agent.Close() })
	agent.SetDeadline(time.Now().Add(patience))
	tcp, err := listener.AcceptTCP()
	if err != nil {
		l.t.Fatal(err)
	}
	l.others.Go(func() {
		defer tcp.Close()
		stop := context.AfterFunc(l.ctx, func() { tcp.Close() })
		defer stop()
		c := &conn{s: l.server, tcp: tcp, id: 1, start: time.Now()}
		c.aim(dest)
		switch {
		case dest.Port() == 53:
			c.serveStream(l.ctx)
		case !c.serveFront(l.ctx):
			c.serve(l.ctx)
		}
	})
	return agent.(*net.TCPConn)
}

// upstream listens on ::1 at the lab's port and serves each connection.
func (l *lab) upstream(serve func(*net.TCPConn)) {
	l.t.Helper()
	listener, err := net.Listen("tcp6", fmt.Sprintf("[::1]:%d", l.port))
	if err != nil {
		for want := range strings.SplitSeq(os.Getenv("COFFERDAM_TEST_REQUIRE"), ",") {
			if want == "ipv6" || want == "all" {
				l.t.Fatalf("missing: ipv6: %v", err)
			}
		}
		l.t.Skipf("missing: ipv6 (a listener on ::1 at the port of the proxy): %v", err)
	}
	l.t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(patience))
				serve(conn.(*net.TCPConn))
			}()
		}
	}()
}

// echo sends back what it gets, after its end.
func echo(conn *net.TCPConn) {
	data, _ := io.ReadAll(conn)
	fmt.Fprintf(conn, "got %d: %.20s", len(data), data)
}

// refused reports whether a connection is reset, which the client may see as
// early as in connect(2).
func (l *lab) refused(address string) bool {
	conn, err := net.DialTimeout("tcp4", net.JoinHostPort(address, fmt.Sprint(l.port)), patience)
	if err != nil {
		return true
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	return ended(l.t, conn)
}

// ended reports whether the connection ends without a byte.
func ended(t testing.TB, conn net.Conn) bool {
	t.Helper()
	n, err := conn.Read(make([]byte, 1))
	if e, ok := err.(net.Error); ok && e.Timeout() {
		t.Error("the connection stays open")
	}
	return n == 0 && err != nil
}
