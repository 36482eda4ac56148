package proxy

import (
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"cofferdam.dev/cofferdam/proxy/record"
)

// proxyRecords ends the proxy and returns what it said about itself.
func (l *lab) proxyRecords() (reasons []string) {
	l.stop()
	for _, r := range readRecords(l.t, l.log) {
		if r.Kind == record.Proxy && r.Reason != "started" && r.Reason != "stopped" {
			reasons = append(reasons, r.Reason)
		}
	}
	return reasons
}

// TestCapOfConnections: an agent that holds every place, and says nothing, keeps
// itself waiting; DNS goes on, a person sees it once, and the places come back.
func TestCapOfConnections(t *testing.T) {
	const places = 20
	l := newLab(t, tlsPolicy, func(cfg *Config, _ *lab) { cfg.MaxConns = places })
	l.upstream(tlsUpstream)
	address := l.synthetic("good.test")
	var held []net.Conn
	for range places {
		held = append(held, l.dial(address))
	}
	l.waitOpen(places - 1) // and the one that the listener's place went to
	waiting := l.dial(address)
	if got := l.synthetic("other.test"); got == "" {
		t.Error("DNS does not answer")
	}
	waiting.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := waiting.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("a further connection does not wait: %v", err)
	}
	for _, conn := range held {
		conn.Close()
	}
	if got, err := l.askTLS(address, "good.test", nil); got != "hello from good.test" {
		t.Errorf("afterwards: %q, %v", got, err)
	}
	checkRecords(t, l.proxyRecords(), []string{"20 connections are open: further ones wait"})
}

// TestCapOfPending: names that do not resolve hold the places for new ones; a
// further connection waits for a while and is refused with that reason. What
// needs no place is not affected.
func TestCapOfPending(t *testing.T) {
	release := make(chan struct{})
	slow := newAuthority(t, func(string) []netip.Addr { <-release; return nil })
	l := newLab(t, "version: 1\nnetwork: {rules: [{allow: \"*.slow.test\", ports: [PORT], protocol: tcp}, {allow: raw.test, ports: [PORT], protocol: tcp, addresses: [\"::1\"]}]}\n",
		withResolver(slow), withChange(func(s *Server) {
			s.pending = make(chan struct{}, 2)
			s.timeouts.pending = 50 * time.Millisecond
		}))
	connected := make(chan struct{}, 2)
	l.upstream(func(c *net.TCPConn) {
		connected <- struct{}{}
		echo(c)
	})
	open := l.dial(l.synthetic("raw.test"))
	open.Write([]byte("x"))
	<-connected // its own place is free again
	for _, name := range []string{"a.slow.test", "b.slow.test"} {
		l.dial(l.synthetic(name))
	}
	for deadline := time.Now().Add(patience); len(l.server.pending) < 2 && time.Now().Before(deadline); {
		<-time.After(time.Millisecond)
	}
	if !l.refused(l.synthetic("c.slow.test")) {
		t.Error("a further connection is not refused")
	}
	open.CloseWrite()
	if got, _ := io.ReadAll(open); string(got) != "got 1: x" {
		t.Errorf("an open connection gets %q", got)
	}
	close(release)
	l.waitOpen(0)
	again := l.dial(l.synthetic("raw.test"))
	again.CloseWrite()
	if got, _ := io.ReadAll(again); string(got) != "got 0: " {
		t.Errorf("afterwards a connection gets %q", got)
	}
	checkRecords(t, l.proxyRecords(), []string{"2 connections are being made at once: further ones are refused"})
	for _, r := range readRecords(t, l.log) {
		if r.Kind == record.Close && r.Name == "c.slow.test" && !strings.HasPrefix(r.Reason, "refused: 2 connections") {
			t.Errorf("closed with %q", r.Reason)
		}
	}
}

// TestCapRecordedAnew: a cap that is reached for hours is recorded now and then.
func TestCapRecordedAnew(t *testing.T) {
	c := &clock{now: time.Unix(0, 0)}
	l := newLab(t, "", withChange(func(s *Server) { s.budgets = newBudgets(c.Now) }))
	for range 3 {
		for range 100 {
			l.server.reached("one")
			l.server.reached("another")
		}
		c.pass(capInterval)
	}
	if got := l.proxyRecords(); len(got) != 6 {
		t.Errorf("%d records", len(got))
	}
}

// TestCapOfStreams: connections for DNS that say nothing hold a few places only.
func TestCapOfStreams(t *testing.T) {
	l := newLab(t, dnsPolicy, withChange(func(s *Server) { s.streams = make(chan struct{}, 2) }))
	dns := netip.MustParseAddrPort("127.9.9.9:53")
	for range 2 {
		l.serveTo(dns)
	}
	for deadline := time.Now().Add(patience); len(l.server.streams) < 2 && time.Now().Before(deadline); {
		<-time.After(time.Millisecond)
	}
	if !ended(t, l.serveTo(dns)) {
		t.Error("a third stream is served")
	}
	message := buildQuery(t, "good.test.", dnsmessage.TypeA, dnsmessage.ClassINET, 0, nil)
	if got := describe(t, l.server.answer(message, maxUDP)); got != "Success good.test. [127 64 0 1] ttl 60" {
		t.Errorf("UDP: %s", got)
	}
	checkRecords(t, l.proxyRecords(), []string{"2 connections for DNS are open: further ones are reset"})
}

// TestCapOfNames: further names get no address, and the old ones keep theirs.
func TestCapOfNames(t *testing.T) {
	l := newLab(t, dnsPolicy, withChange(func(s *Server) { s.names.most = 2 }))
	var answers []string
	for _, name := range []string{"a", "b", "c", "d", "a"} {
		message := buildQuery(t, name+".example.org.", dnsmessage.TypeA, dnsmessage.ClassINET, 1232, nil)
		answers = append(answers, describe(t, l.server.answer(message, maxUDP)))
	}
	checkRecords(t, answers, []string{
		"Success a.example.org. [127 64 0 1] ttl 60",
		"Success b.example.org. [127 64 0 2] ttl 60",
		`ServerFailure c.example.org. ede 0 "too many names"`,
		`ServerFailure d.example.org. ede 0 "too many names"`,
		"Success a.example.org. [127 64 0 1] ttl 60",
	})
	checkRecords(t, l.proxyRecords(), []string{"2 names have an address: further ones get none"})
}

// TestMemoryOfHTTP: an agent and a server that work together, with heads of the worst kind and nobody who reads, make a
// connection hold no more than package doc says. What all of them may hold bounds the process.
func TestMemoryOfHTTP(t *testing.T) {
	const conns, most = 64, 350 << 10 // bytes, those of the test included
	head := func(first string, size int) []byte {
		const fields = 500
		return []byte(first + strings.Repeat("Accept: "+strings.Repeat("x", size/fields-10)+"\r\n", fields) + "\r\n")
	}
	request := head("POST / HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: chunked\r\n", maxRequestHead-300)
	answer := head("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", maxResponseHead-300)
	chunk := []byte("ea60\r\n" + strings.Repeat("x", 60000) + "\r\n")
	flood := func(c *net.TCPConn, first []byte) {
		c.SetReadBuffer(2048)
		c.Write(first)
		for err := error(nil); err == nil; {
			_, err = c.Write(chunk)
		}
	}
	l := newLab(t, httpPolicy)
	l.upstream(func(c *net.TCPConn) {
		io.ReadFull(c, make([]byte, 1))
		flood(c, answer)
	})
	address := l.synthetic("good.test")
	used := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := used()
	var agents []*net.TCPConn
	for range conns {
		agents = append(agents, l.dial(address))
		go flood(agents[len(agents)-1], request)
	}
	for _, agent := range agents { // there are answers, and bodies on their way
		if _, err := io.ReadFull(agent, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if each := (used() - before) / conns; each > most {
		t.Errorf("a connection holds %d bytes", each)
	}
	for _, agent := range agents {
		abort(agent)
	}
}

func TestPace(t *testing.T) {
	var p pace
	now := time.Now()
	for i := range 100 {
		if wait := p.take(now, 1000, 100); wait != 0 {
			t.Fatalf("%d of a burst: wait %v", i, wait)
		}
	}
	for i := range 10 {
		if wait, want := p.take(now, 1000, 100), time.Duration(i+1)*time.Millisecond; wait != want {
			t.Errorf("%d more: wait %v, want %v", i, wait, want)
		}
	}
	if wait := p.take(now.Add(time.Hour), 1000, 100); wait != 0 {
		t.Errorf("later: wait %v", wait)
	}
	for range 99 {
		p.take(now.Add(time.Hour), 1000, 100)
	}
	if wait := p.take(now.Add(time.Hour), 1000, 100); wait != time.Millisecond {
		t.Errorf("time that has passed counts for one burst only: wait %v", wait)
	}
}
