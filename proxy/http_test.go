package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const httpPolicy = `version: 1
network:
  rules:
    - {allow: good.test, ports: [PORT], protocol: http, addresses: ["::1"]}
    - {allow: other.test, ports: [PORT], protocol: http, addresses: ["::1"]}
    - {allow: tls.test, ports: [PORT]}
`

// webSink is an upstream that records every byte it is sent.
type webSink struct {
	mu       sync.Mutex // guards the rest
	received bytes.Buffer
	hosts    []string
}

func (s *webSink) serve(conn *net.TCPConn) {
	in := bufio.NewReader(io.TeeReader(conn, s))
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		s.mu.Lock()
		s.hosts = append(s.hosts, r.Host)
		s.mu.Unlock()
		body, _ := io.ReadAll(r.Body)
		if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
			io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			io.Copy(conn, in)
			return
		}
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(r.Host)+len(body), r.Host+string(body))
	}
}

func (s *webSink) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.received.Write(b)
}

func (s *webSink) saw() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.received.String()
}

// exchange sends text on one connection and returns the answers' statuses and
// bodies until the connection ends or n came.
func exchange(t *testing.T, conn *net.TCPConn, text string, n int) (statuses []int, bodies []string) {
	t.Helper()
	io.WriteString(conn, text)
	in := bufio.NewReader(conn)
	for range n {
		r, err := http.ReadResponse(in, nil)
		if err != nil {
			break
		}
		body, _ := io.ReadAll(r.Body)
		statuses, bodies = append(statuses, r.StatusCode), append(bodies, string(body))
	}
	return statuses, bodies
}

func TestHTTP(t *testing.T) {
	const dns = "decision allow dns good.test: a rule allows it"
	const allow = "decision allow http good.test: a rule allows it"
	for _, test := range []struct {
		name     string
		looked   string // empty for a literal
		text     string // $ stands for CR LF
		statuses []int
		says     string // in the last answer
		records  []string
	}{
		{
			"an allowed host", "good.test", "GET /a?b;c HTTP/1.1$Host: good.test:PORT$$",
			[]int{200},
			"good.test:PORT",
			[]string{dns, allow, "close http good.test"},
		},
		{
			"host without port", "good.test", "GET / HTTP/1.1$Host: GOOD.test.$$",
			[]int{200},
			"good.test",
			[]string{dns, allow, "close http good.test"},
		},
		{
			"two requests, one record", "good.test", "GET / HTTP/1.1$Host: good.test$$POST / HTTP/1.1$Host: good.test$Content-Length: 4$$body",
			[]int{200, 200},
			"good.testbody",
			[]string{dns, allow, "close http good.test"},
		},
		{
			"absolute form", "good.test", "GET http://good.test/ HTTP/1.1$Host: good.test$$",
			[]int{200},
			"good.test",
			[]string{dns, allow, "close http good.test"},
		},
		{
			"absolute form overrides Host", "good.test", "GET http://evil.test/ HTTP/1.1$Host: good.test$$",
			[]int{403},
			"the name is not good.test",
			[]string{dns, "decision deny http evil.test: the name is not good.test, which the address stands for"},
		},
		{
			"a second request for another host", "good.test", "GET / HTTP/1.1$Host: good.test$$GET / HTTP/1.1$Host: evil.test$$GET / HTTP/1.1$Host: good.test$$",
			[]int{200, 403},
			"reason: the name is not good.test",
			[]string{dns, allow, "decision deny http evil.test: the name is not good.test, which the address stands for", "close http good.test"},
		},
		{
			"a second request for another allowed host", "good.test", "GET / HTTP/1.1$Host: good.test$$GET / HTTP/1.1$Host: other.test$$",
			[]int{200, 403},
			"reason: the name is not good.test",
			[]string{dns, allow, "decision deny http other.test: the name is not good.test, which the address stands for", "close http good.test"},
		},
		{
			"an allowed host at an address of its own", "", "GET / HTTP/1.1$Host: good.test$$",
			[]int{200},
			"good.test",
			[]string{allow, "close http good.test"},
		},
		{
			"two allowed hosts at one address", "", "GET / HTTP/1.1$Host: good.test$$GET / HTTP/1.1$Host: other.test$$GET / HTTP/1.1$Host: good.test$$",
			[]int{200, 200, 200},
			"good.test",
			[]string{allow, "decision allow http other.test: a rule allows it", "close http other.test"},
		},
		{
			"a denied host", "", "GET / HTTP/1.1$Host: evil.test:PORT$$",
			[]int{403},
			`- {allow: "evil.test", protocol: http, ports: [PORT]}`,
			[]string{"decision deny http evil.test: no rule allows it"},
		},
		{
			"a bare address", "", "GET / HTTP/1.1$Host: 127.9.9.9:PORT$$",
			[]int{403},
			"no rule names this address",
			[]string{"decision deny http 127.9.9.9: no rule names this address"},
		},
		{
			"a host with a TLS rule", "tls.test", "GET / HTTP/1.1$Host: tls.test$$",
			[]int{403},
			"the rule allows tls only",
			[]string{"decision allow dns tls.test: a rule allows it", "decision deny http tls.test: the rule allows tls only"},
		},
		{
			"another port in Host", "good.test", "GET / HTTP/1.1$Host: good.test:1$$",
			[]int{403},
			"another port",
			[]string{dns, "decision deny http good.test: the Host header has another port than the connection"},
		},
		{
			"a port with zeros", "good.test", "GET / HTTP/1.1$Host: good.test:0080$$",
			[]int{403},
			"malformed port",
			[]string{dns, "decision deny http good.test: Host header: malformed port"},
		},
		{
			"user in the target", "good.test", "GET http://good.test@evil.test/ HTTP/1.1$Host: good.test$$",
			[]int{403},
			"with a user",
			[]string{dns, "decision deny http good.test: a request target with a user"},
		},
		{
			"https in the target", "good.test", "GET https://good.test/ HTTP/1.1$Host: good.test$$",
			[]int{403},
			"not http",
			[]string{dns, "decision deny http good.test: a request target that is not http"},
		},
		{
			"CONNECT", "good.test", "CONNECT evil.test:443 HTTP/1.1$Host: evil.test:443$$",
			[]int{403},
			"CONNECT is not needed",
			[]string{dns, "decision deny http good.test: CONNECT is not needed here: connect to the host itself"},
		},
		{
			"no Host", "good.test", "GET / HTTP/1.0$$",
			[]int{403},
			"without Host",
			[]string{dns, "decision deny http good.test: an HTTP request without Host"},
		},
		{
			"two Hosts", "good.test", "GET / HTTP/1.1$Host: good.test$Host: evil.test$$",
			[]int{400},
			"reason: malformed HTTP request: two Host fields",
			[]string{dns, "decision deny http good.test: malformed HTTP request: two Host fields"},
		},
		{
			"space before colon", "good.test", "GET / HTTP/1.1$Host : good.test$$",
			[]int{400},
			"reason: malformed HTTP request: the name of a field",
			[]string{dns, "decision deny http good.test: malformed HTTP request: the name of a field"},
		},
		{
			"two lengths", "good.test", "POST / HTTP/1.1$Host: good.test$Content-Length: 1$Content-Length: 2$$ab",
			[]int{400},
			"reason: malformed HTTP request: two Content-Length fields",
			[]string{dns, "decision deny http good.test: malformed HTTP request: two Content-Length fields"},
		},
		{
			"unknown coding", "good.test", "POST / HTTP/1.1$Host: good.test$Transfer-Encoding: chunKed, x$$",
			[]int{400},
			"reason: malformed HTTP request: a Transfer-Encoding other than chunked",
			[]string{dns, "decision deny http good.test: malformed HTTP request: a Transfer-Encoding other than chunked"},
		},
		{
			"HTTP/2 by prior knowledge", "good.test", "PRI * HTTP/2.0$$SM$$",
			[]int{403},
			"HTTP/2 without TLS",
			[]string{dns, "decision deny http good.test: HTTP/2 without TLS"},
		},
		{
			"upgrade to h2c", "good.test", "GET / HTTP/1.1$Host: good.test$Connection: Upgrade, HTTP2-Settings$Upgrade: h2c$HTTP2-Settings: AAMAAABkAAQAAP__$$",
			[]int{403},
			"other than websocket",
			[]string{dns, "decision deny http good.test: a change of protocol to other than websocket"},
		},
		{
			"two upgrades", "good.test", "GET / HTTP/1.1$Host: good.test$Connection: Upgrade$Upgrade: websocket$Upgrade: h2c$$",
			[]int{403},
			"other than websocket",
			[]string{dns, "decision deny http good.test: a change of protocol to other than websocket"},
		},
		{
			"NUL in Host", "good.test", "GET / HTTP/1.1$Host: good.test\x00.evil.test$$",
			[]int{400},
			"reason: malformed HTTP request: the value of a field",
			[]string{dns, "decision deny http good.test: malformed HTTP request: the value of a field"},
		},
		{
			"a name that ends in a number", "", "GET / HTTP/1.1$Host: 127.1$$",
			[]int{403},
			"ends in a number",
			[]string{"decision deny http 127.9.9.9: Host header: host name ends in a number, like an IP address, and no rule names this address"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLab(t, httpPolicy)
			sink := &webSink{}
			l.upstream(sink.serve)
			address := literal
			if test.looked != "" {
				address = l.synthetic(test.looked)
			}
			port := fmt.Sprint(l.port)
			text := strings.NewReplacer("$", "\r\n", "PORT", port).Replace(test.text)
			statuses, bodies := exchange(t, l.dial(address), text, len(test.statuses))
			if diff := cmp.Diff(test.statuses, statuses); diff != "" {
				t.Fatalf("statuses (-want +got):\n%s%q", diff, bodies)
			}
			if last := bodies[len(bodies)-1]; !strings.Contains(last, strings.ReplaceAll(test.says, "PORT", port)) {
				t.Errorf("the last answer is %q", last)
			}
			checkRecords(t, l.records(), test.records)
			if saw := sink.saw(); strings.Contains(saw, "evil") || saw != "" && test.statuses[0] != 200 {
				t.Errorf("the upstream saw %q", saw)
			}
		})
	}
}

// TestHTTPKeepsRequests: nothing is added, changed or taken but what is of the hop,
// and the framing is written anew.
func TestHTTPKeepsRequests(t *testing.T) {
	l := newLab(t, httpPolicy)
	sink := &webSink{}
	l.upstream(sink.serve)
	text := "POST //a/%2e%2e/b?x=1;y=2&z=%zz HTTP/1.1\r\nX-Forwarded-For: 1.2.3.4\r\nForwarded: for=x\r\n" +
		"Keep-Alive: 1\r\naccept: a\r\nConnection: keep-alive, X-Mine\r\nHost: GOOD.test.\r\nAccept:\t b \r\nx-mine: 1\r\n" +
		"Transfer-Encoding: CHUNKED\r\n\r\n2;ext=1\r\nbo\r\n002\r\ndy\r\n00\r\nX-End:  1\r\n\r\n"
	statuses, bodies := exchange(t, l.dial(l.synthetic("good.test")), text, 1)
	if len(statuses) != 1 || statuses[0] != 200 || bodies[0] != "good.testbody" {
		t.Fatalf("got %v %q", statuses, bodies)
	}
	want := "POST //a/%2e%2e/b?x=1;y=2&z=%zz HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: chunked\r\n" +
		"X-Forwarded-For: 1.2.3.4\r\nForwarded: for=x\r\naccept: a\r\nAccept: b\r\n\r\n4\r\nbody\r\n0\r\nX-End: 1\r\n\r\n"
	if diff := cmp.Diff(want, sink.saw()); diff != "" {
		t.Errorf("the upstream saw (-want +got):\n%s", diff)
	}
}

// TestWebSocket: after the change of protocol the bytes go to the upstream that
// was decided, and so does what looks like a request for another host.
func TestWebSocket(t *testing.T) {
	l := newLab(t, httpPolicy)
	sink := &webSink{}
	l.upstream(sink.serve)
	conn := l.dial(l.synthetic("good.test"))
	io.WriteString(conn, "GET /chat HTTP/1.1\r\nHost: good.test\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n")
	in := bufio.NewReader(conn)
	r, err := http.ReadResponse(in, nil)
	if err != nil || r.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got %v, %v", r, err)
	}
	const text = "GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n"
	io.WriteString(conn, text)
	got := make([]byte, len(text))
	if _, err := io.ReadFull(in, got); err != nil || string(got) != text {
		t.Errorf("got %q, %v", got, err)
	}
	conn.Close()
	checkRecords(t, l.records(), []string{
		"decision allow dns good.test: a rule allows it",
		"decision allow http good.test: a rule allows it",
		"close http good.test",
	})
}

// TestHTTPSlowAnswer: what is there of an answer is passed on, though its length
// says that more is to come.
func TestHTTPSlowAnswer(t *testing.T) {
	l := newLab(t, httpPolicy)
	arrived := make(chan struct{})
	l.upstream(func(c *net.TCPConn) {
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na")
		select {
		case <-arrived:
			io.WriteString(c, "b")
		case <-time.After(patience):
		}
	})
	conn := l.dial(l.synthetic("good.test"))
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: good.test\r\n\r\n")
	r, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 2)
	if _, err := io.ReadFull(r.Body, got[:1]); err != nil {
		t.Fatal("the first byte:", err)
	}
	close(arrived)
	if _, err := io.ReadFull(r.Body, got[1:]); err != nil || string(got) != "ab" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestHTTPUpstreamDown(t *testing.T) {
	l := newLab(t, httpPolicy)
	statuses, bodies := exchange(t, l.dial(l.synthetic("good.test")), "GET / HTTP/1.1\r\nHost: good.test\r\n\r\n", 1)
	if len(statuses) != 1 || statuses[0] != http.StatusBadGateway || !strings.Contains(bodies[0], "upstream unreachable") {
		t.Errorf("got %v %q", statuses, bodies)
	}
	checkRecords(t, l.records(), []string{
		"decision allow dns good.test: a rule allows it",
		"decision allow http good.test: a rule allows it",
		"close http good.test: up 0 down 0",
	})
}

// TestHTTPFailuresNameNoHost: why an allowed request failed is told without the
// addresses that the proxy itself has, and without those of its resolvers.
func TestHTTPFailuresNameNoHost(t *testing.T) {
	closed, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 53)})
	if err != nil {
		t.Fatal(err)
	}
	resolver := closed.LocalAddr().(*net.UDPAddr).AddrPort()
	closed.Close()
	l := newLab(t, `version: 1
network:
  rules:
    - {allow: resets.test, ports: [PORT], protocol: http, addresses: ["::1"]}
    - {allow: unresolved.test, ports: [PORT], protocol: http}
`, func(cfg *Config, _ *lab) { cfg.Resolver = []netip.AddrPort{resolver} })
	l.upstream(func(c *net.TCPConn) {
		c.Read(make([]byte, 1))
		abort(c)
	})
	for host, want := range map[string]string{
		"resets.test":     `reason: "connection reset by peer"`,
		"unresolved.test": `reason: "resolve: connection refused"`,
	} {
		conn := l.dial(l.synthetic(host))
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\n\r\n", host)
		got, err := io.ReadAll(conn)
		if !strings.Contains(string(got), want) {
			t.Errorf("%s: %v, want %s in\n%s", host, err, want, got)
		}
	}
}

func TestStartOfHTTP(t *testing.T) {
	for text, want := range map[string]ternary{
		"GET /": yes, "M-SEARCH *": yes, "GET": undecided, "": undecided, "SSH-2.0-x": no, "get /": no,
		" GET": no, "\x05\x01": no, "AAAAAAAAAAAAAAAAAAAAAAAAAAA": no, "G\r\n": no,
	} {
		if got := startOfHTTP([]byte(text)); got != want {
			t.Errorf("startOfHTTP(%q) = %v, want %v", text, got, want)
		}
	}
}

func TestSplitHostPort(t *testing.T) {
	for _, test := range []struct {
		in, host string
		port     uint16
		ok       bool
	}{
		{"a.test", "a.test", 0, true},
		{"a.test:80", "a.test", 80, true},
		{"[::1]", "::1", 0, true},
		{"[::1]:80", "::1", 80, true},
		{"a.test:", "", 0, false},
		{"a.test:0", "", 0, false},
		{"a.test:007", "", 0, false},
		{"a.test:65536", "", 0, false},
		{"a.test:+80", "", 0, false},
		{"a.test:80:80", "", 0, false},
		{"::1", "", 0, false},
		{"[[::1]]:80", "", 0, false},
		{"[::1]80", "", 0, false},
		{"[::1", "", 0, false},
		{"[a.test]", "", 0, false},
		{"[1.2.3.4]", "", 0, false},
		{":80", "", 80, true},
	} {
		host, port, err := splitHostPort(test.in)
		if host != test.host || port != test.port || (err == nil) != test.ok {
			t.Errorf("splitHostPort(%q) = %q, %d, %v", test.in, host, port, err)
		}
	}
}

func bufioReader(s string) *bufio.Reader { return bufio.NewReader(strings.NewReader(s)) }
