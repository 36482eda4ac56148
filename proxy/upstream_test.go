package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"cofferdam.dev/cofferdam/proxy/policy"
	"cofferdam.dev/cofferdam/proxy/record"
	"cofferdam.dev/cofferdam/proxy/upstream"
)

// site is an HTTP proxy on loopback that carries every tunnel to one address.
type site struct {
	at     netip.AddrPort
	to     string // of every tunnel
	answer string // in place of a tunnel, if not empty
	wants  string // the credentials, if not empty

	mu    sync.Mutex // guards asked
	asked []string   // each head, its lines joined by |
}

func newSite(t *testing.T) *site {
	t.Helper()
	listener, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	s := &site{at: listener.Addr().(*net.TCPAddr).AddrPort()}
	var open sync.WaitGroup
	t.Cleanup(func() { listener.Close(); open.Wait() })
	open.Go(func() {
		for {
			conn, err := listener.AcceptTCP()
			if err != nil {
				return
			}
			open.Go(func() {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(patience))
				s.serve(conn)
			})
		}
	})
	return s
}

func (s *site) serve(conn *net.TCPConn) {
	in := bufio.NewReader(conn)
	var lines []string
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		if line == "\r\n" {
			break
		}
		lines = append(lines, strings.TrimSuffix(line, "\r\n"))
	}
	s.mu.Lock()
	s.asked = append(s.asked, strings.Join(lines, "|"))
	s.mu.Unlock()
	r, _ := http.NewRequest(http.MethodConnect, "", nil)
	user, password, _ := strings.Cut(s.wants, ":")
	r.SetBasicAuth(user, password)
	switch {
	case s.answer != "":
		io.WriteString(conn, s.answer)
		io.Copy(io.Discard, in) // until the client has had enough
	case s.wants != "" && !slices.Contains(lines, "Proxy-Authorization: "+r.Header.Get("Authorization")):
		io.WriteString(conn, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n")
	default:
		up, err := net.DialTimeout("tcp", s.to, patience)
		if err != nil {
			io.WriteString(conn, "HTTP/1.1 502 Bad Gateway\r\n\r\n")
			return
		}
		defer up.Close()
		// In one write with what the server says first, if it does.
		up.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		first := make([]byte, 100)
		n, _ := up.Read(first)
		up.SetReadDeadline(time.Now().Add(patience))
		conn.Write(append([]byte("HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n"), first[:n]...))
		var both sync.WaitGroup
		both.Go(func() { io.Copy(up, in); up.(*net.TCPConn).CloseWrite() })
		both.Go(func() { io.Copy(conn, up); conn.CloseWrite() })
		both.Wait()
	}
}

// heads returns what the site was asked, PORT for the lab's port.
func (s *site) heads(l *lab) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var heads []string
	for _, h := range s.asked {
		heads = append(heads, strings.ReplaceAll(h, fmt.Sprint(l.port), "PORT"))
	}
	return heads
}

// withSite makes the lab's connections go through s to the lab's upstream.
func withSite(s *site, change func(*upstream.Proxy)) labOption {
	return func(cfg *Config, l *lab) {
		cfg.Proxy = &upstream.Proxy{Host: s.at.Addr().String(), Port: s.at.Port()}
		if change != nil {
			change(cfg.Proxy)
		}
		s.to = fmt.Sprintf("[::1]:%d", l.port)
	}
}

const secret = "ann:hunter2"

// sitePolicy has names that the HTTP proxy resolves, and one that is pinned.
const sitePolicy = `version: 1
network:
  rules:
    - {allow: good.test, ports: [PORT]}
    - {allow: pinned.test, ports: [PORT], addresses: ["::1"]}
`

// TestThroughProxy: what is allowed goes through the HTTP proxy, by name or by the
// address that a rule pins, and nothing else is told to it.
func TestThroughProxy(t *testing.T) {
	name := func(s string) upstream.Exception { return upstream.Exception{Name: s} }
	below := func(s string) upstream.Exception { return upstream.Exception{Name: s, Below: true} }
	loopback := upstream.Exception{Prefix: netip.MustParsePrefix("::/64")}
	for _, test := range []struct {
		name, sni string
		noProxy   []upstream.Exception
		heads     []string
		ok        bool
	}{
		{"a name", "good.test", nil, []string{"CONNECT good.test:PORT HTTP/1.1|Host: good.test:PORT"}, true},
		{"a name in capitals", "GOOD.test", nil, []string{"CONNECT good.test:PORT HTTP/1.1|Host: good.test:PORT"}, true},
		{"a pinned name", "pinned.test", nil, []string{"CONNECT [::1]:PORT HTTP/1.1|Host: [::1]:PORT"}, true},
		{"a denied name", "evil.test", nil, nil, false},
		{"a name below", "www.good.test", nil, nil, false},
		{"another name's exception", "good.test", []upstream.Exception{below("good.test"), name("other.test"), loopback}, []string{"CONNECT good.test:PORT HTTP/1.1|Host: good.test:PORT"}, true},
		{"an exception for the name", "pinned.test", []upstream.Exception{name("pinned.test")}, nil, true},
		{"an exception for the address", "pinned.test", []upstream.Exception{loopback}, nil, true},
		{"a denied name with an exception", "evil.test", []upstream.Exception{name("evil.test")}, nil, false},
		// What goes directly is resolved here, and its addresses are filtered.
		{"an exception for a name that leads within", "good.test", []upstream.Exception{name("good.test")}, nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			sink := newAuthority(t, func(string) []netip.Addr { return addrs("::1") })
			s := newSite(t)
			l := newLab(t, sitePolicy, withResolver(sink), withSite(s, func(p *upstream.Proxy) { p.NoProxy = test.noProxy }))
			l.upstream(tlsUpstream)
			got, err := l.askTLS(literal, test.sni, nil)
			if ok := got == "hello from "+test.sni; ok != test.ok {
				t.Errorf("got %q, %v", got, err)
			}
			if !test.ok && (err == nil || !strings.Contains(err.Error(), "access denied")) {
				t.Errorf("error is %v, want the alert access_denied", err)
			}
			if diff := cmp.Diff(test.heads, s.heads(l)); diff != "" {
				t.Errorf("the proxy was asked (-want +got):\n%s", diff)
			}
			if resolved := len(sink.names()) > 0; resolved != slices.Contains(test.noProxy, name("good.test")) {
				t.Errorf("resolved %q", sink.names())
			}
			l.stop()
			for _, r := range readRecords(t, l.log) {
				upstream, through := fmt.Sprintf("[::1]:%d", l.port), ""
				if len(test.heads) > 0 {
					upstream, through = "", s.at.String()
				}
				if r.Kind == record.Close && (r.Upstream != upstream || r.Through != through) {
					t.Errorf("the record says %q through %q, want %q through %q", r.Upstream, r.Through, upstream, through)
				}
			}
		})
	}
}

// TestThroughProxyHTTP: cleartext requests are tunnelled too, each decided.
func TestThroughProxyHTTP(t *testing.T) {
	s := newSite(t)
	web := &webSink{}
	l := newLab(t, "version: 1\nnetwork: {rules: [{allow: good.test, ports: [PORT], protocol: http}]}\n", withSite(s, nil))
	l.upstream(web.serve)
	statuses, bodies := exchange(t, l.dial(literal),
		"GET /a HTTP/1.1\r\nHost: good.test\r\nProxy-Authorization: Basic eDp5\r\n\r\n"+
			"GET /b HTTP/1.1\r\nHost: good.test\r\n\r\nGET /c HTTP/1.1\r\nHost: evil.test\r\n\r\n", 3)
	if !slices.Equal(statuses, []int{200, 200, 403}) {
		t.Errorf("statuses %v, bodies %q", statuses, bodies)
	}
	want := []string{"CONNECT good.test:PORT HTTP/1.1|Host: good.test:PORT"}
	if diff := cmp.Diff(want, s.heads(l)); diff != "" {
		t.Errorf("the proxy was asked (-want +got):\n%s", diff)
	}
	if saw := web.saw(); !strings.Contains(saw, "GET /a ") || !strings.Contains(saw, "GET /b ") || strings.Contains(saw, "GET /c ") {
		t.Errorf("the upstream saw %q", saw)
	}
}

// TestTunnelBytes: what the server says first comes in one segment with the head
// of the HTTP proxy's answer, and is the agent's from its first byte; and bulk
// goes through whole.
func TestTunnelBytes(t *testing.T) {
	s := newSite(t)
	l := newLab(t, tcpPolicy, withSite(s, nil))
	l.upstream(func(c *net.TCPConn) { io.WriteString(c, "\r\n\r\nbanner\n"); echo(c) })
	conn := l.dial(l.synthetic("raw.test"))
	in := bufio.NewReader(conn)
	for _, want := range []string{"\r\n", "\r\n", "banner\n"} {
		if line, err := in.ReadString('\n'); line != want {
			t.Fatalf("got %q, %v, want %q", line, err, want)
		}
	}
	io.CopyN(conn, zeros{}, 2<<20)
	conn.CloseWrite()
	if got, err := io.ReadAll(in); !strings.HasPrefix(string(got), fmt.Sprintf("got %d: ", 2<<20)) {
		t.Errorf("got %q, %v", got, err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// TestProxyByName: the HTTP proxy's own name is resolved, and its address is the
// administrator's word, which no rule has to allow.
func TestProxyByName(t *testing.T) {
	sink := newAuthority(t, func(name string) []netip.Addr {
		if name == "proxy.corp.test." {
			return addrs("127.0.0.9", "127.0.0.1") // nobody listens at the first
		}
		return nil
	})
	s := newSite(t)
	l := newLab(t, sitePolicy, withResolver(sink), withSite(s, func(p *upstream.Proxy) { p.Host = "proxy.corp.test" }))
	l.upstream(tlsUpstream)
	if got, err := l.askTLS(literal, "good.test", nil); got != "hello from good.test" {
		t.Errorf("got %q, %v", got, err)
	}
	for _, name := range sink.names() {
		if name != "proxy.corp.test." {
			t.Errorf("%s was resolved", name)
		}
	}
	// The agent's word is not the administrator's.
	if got, err := l.askTLS(literal, "proxy.corp.test", nil); err == nil {
		t.Errorf("got %q", got)
	}
}

// TestProxyFails: whatever the HTTP proxy does, the agent sees a failure and no
// refusal, and nobody sees the credentials.
func TestProxyFails(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n\r\n"
	for _, test := range []struct {
		name, answer, wants, has string
		reason                   string // empty: the control, where it works
	}{
		{"a tunnel", "", "", "", ""},
		{"a tunnel with credentials", "", secret, secret, ""},
		{"credentials that are not asked for", "", "", secret, ""},
		{"no credentials", "", secret, "", "it wants credentials (407)"},
		{"other credentials", "", "bob:" + secret, secret, "it does not accept the credentials (407)"},
		{"forbidden", "HTTP/1.1 403 " + secret + "\r\n\r\n", "", secret, "it answers 403 Forbidden"},
		{"unavailable", "HTTP/1.0 503 x\r\nContent-Length: 0\r\n\r\n", "", "", "it answers 503 Service Unavailable"},
		{"a status without a name", "HTTP/1.1 599\r\n\r\n", "", "", "it answers 599"},
		{"a redirect", "HTTP/1.1 302 Found\r\nLocation: http://evil.test/\r\n\r\n", "", "", "it answers 302 Found"},
		{"an interim answer", "HTTP/1.1 100 Continue\r\n\r\n" + ok, "", "", "it answers 100 Continue"},
		{"silence", "H", "", "", "i/o timeout"},
		{"a head without end", "HTTP/1.1 200 OK\r\n", "", "", "i/o timeout"},
		{"another protocol", "SSH-2.0-x\r\n", "", "", errNotHTTP.Error()},
		{"HTTP/2", "HTTP/2 200\r\n\r\n", "", "", errNotHTTP.Error()},
		{"lines that end in LF", "HTTP/1.1 200 OK\n\n", "", "", errNotHTTP.Error()},
		{"a folded line", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", "", "", errNotHTTP.Error()},
		{"a long head", "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("b", maxProxyHead) + "\r\n\r\n", "", "", errLongHead.Error()},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSite(t)
			s.answer, s.wants = test.answer, test.wants
			l := newLab(t, sitePolicy+"    - {allow: web.test, ports: [PORT], protocol: tcp}\n",
				withSite(s, func(p *upstream.Proxy) { p.Credentials = upstream.Credentials(test.has) }))
			if test.reason == "i/o timeout" {
				l.server.timeouts.dial = 50 * time.Millisecond
			}
			l.upstream(tlsUpstream)
			got, err := l.askTLS(literal, "good.test", nil)
			switch {
			case test.reason == "":
				if got != "hello from good.test" {
					t.Errorf("got %q, %v", got, err)
				}
			case err == nil || !strings.Contains(err.Error(), "internal error"):
				t.Errorf("got %q, %v, want the alert internal_error", got, err)
			}
			l.stop()
			for _, r := range readRecords(t, l.log) {
				if r.Kind == record.Close && test.reason != "" && r.Reason != "upstream proxy: "+test.reason {
					t.Errorf("the record says %q, want %q", r.Reason, test.reason)
				}
				if strings.Contains(fmt.Sprintf("%+v", r), "hunter2") {
					t.Errorf("the record tells the credentials: %+v", r)
				}
			}
		})
	}
	t.Run("nobody listens", func(t *testing.T) {
		s := newSite(t)
		l := newLab(t, "version: 1\nnetwork: {rules: [{allow: good.test, ports: [PORT], protocol: http}]}\n",
			withSite(s, func(p *upstream.Proxy) { p.Host, p.Credentials = "127.0.0.9", secret }))
		conn := l.dial(literal)
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: good.test\r\n\r\n")
		got, _ := io.ReadAll(conn)
		if !strings.HasPrefix(string(got), "HTTP/1.1 502 ") || !strings.Contains(string(got), `"upstream proxy: connection refused"`) ||
			strings.Contains(string(got), "127.0.0.9") || strings.Contains(string(got), "hunter2") {
			t.Errorf("got %q", got)
		}
	})
}

// TestDeniedAtProxy: what the HTTP proxy is told is decided right before.
func TestDeniedAtProxy(t *testing.T) {
	s := newSite(t)
	l := newLab(t, sitePolicy, withSite(s, nil))
	l.upstream(tlsUpstream)
	q := question{Request: policy.Request{Protocol: policy.TLS, Port: uint16(l.port)}}
	for _, test := range []struct {
		name, addr string
		ok         bool
	}{
		{"good.test", "", true}, {"evil.test", "", false}, {"pinned.test", "::1", true}, {"pinned.test", "::2", false}, {"good.test", "::1", false},
	} {
		q.Name = mustName(t, test.name)
		target := netip.AddrPortFrom(netip.Addr{}, q.Port)
		if test.addr != "" {
			target = netip.AddrPortFrom(netip.MustParseAddr(test.addr), q.Port)
		}
		before := len(s.heads(l))
		conn, err := l.server.dial(t.Context(), q, []netip.AddrPort{target})
		if conn != nil {
			conn.Close()
		}
		_, isDenied := errors.AsType[*denied](err)
		if told := len(s.heads(l)) > before; (err == nil) != test.ok || isDenied == test.ok || told != test.ok {
			t.Errorf("%s %s: %v, and the proxy was told: %v", test.name, test.addr, err, told)
		}
	}
	// Without an HTTP proxy a target needs an address.
	l.server.cfg.Proxy = nil
	q.Name = mustName(t, "good.test")
	if conn, err := l.server.dial(t.Context(), q, []netip.AddrPort{netip.AddrPortFrom(netip.Addr{}, q.Port)}); err == nil {
		t.Errorf("%v was dialled for no address", conn.RemoteAddr())
	}
}

// FuzzTunnelHead: a head that is accepted is read to its end and no further.
func FuzzTunnelHead(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\n\r\nrest", "HTTP/1.0 407 x\r\nA: b\r\nC:\t d \r\n\r\n", "HTTP/1.1 200\r\n\r\n\r\n\r\n", "HTTP/1.1 200 OK\n\n", "HTTP/1.1 200 OK\r\n: x\r\n\r\n", "",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		in := strings.NewReader(string(data))
		status, err := readTunnelHead(in)
		read := data[:len(data)-in.Len()]
		if len(read) > maxProxyHead {
			t.Fatalf("%d bytes were read", len(read))
		}
		if err != nil {
			return
		}
		if head := string(read); strings.Index(head, "\r\n\r\n") != len(head)-4 || !strings.HasPrefix(head, "HTTP/1.") || status < 100 || status > 599 {
			t.Fatalf("status %d of %q", status, head)
		}
	})
}
