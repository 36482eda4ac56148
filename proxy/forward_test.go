package proxy

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestConnectHead: one reading of a head is taken, all others are malformed (H2,
// H3, N3, N5, N6).
func TestConnectHead(t *testing.T) {
	for _, test := range []struct{ head, want string }{ // $ stands for CR LF
		{"CONNECT good.test:443 HTTP/1.1$Host: good.test:443$$", "good.test:443"},
		{"CONNECT good.test:443 HTTP/1.0$$", "good.test:443"},
		{"CONNECT Good.TEST.:443 HTTP/1.1$HOST:\tgood.test$Proxy-Connection: keep-alive$$", "good.test:443"},
		{"CONNECT 1.2.3.4:443 HTTP/1.1$Host: 1.2.3.4:443$$", "1.2.3.4:443"},
		{"CONNECT [2600::1]:443 HTTP/1.1$Host: [2600:0::1]$$", "[2600::1]:443"},

		{"CONNECT good.test HTTP/1.1$$", "no port"},
		{"CONNECT good.test: HTTP/1.1$$", "malformed port"},
		{"CONNECT good.test:0 HTTP/1.1$$", "malformed port"},
		{"CONNECT good.test:0443 HTTP/1.1$$", "malformed port"},
		{"CONNECT good.test:65979 HTTP/1.1$$", "malformed port"},
		{"CONNECT good.test:443x HTTP/1.1$$", "malformed port"},
		{"CONNECT good.test:443:443 HTTP/1.1$$", "malformed port"},
		{"CONNECT :443 HTTP/1.1$$", "empty host name"},
		{"CONNECT / HTTP/1.1$Host: good.test:443$$", "no port"},
		{"CONNECT https://good.test/ HTTP/1.1$$", "malformed port"},
		{"CONNECT good.test:443/ HTTP/1.1$$", "malformed port"},
		{"CONNECT a@good.test:443 HTTP/1.1$$", "host name has other bytes than letters, digits, hyphens, underscores and dots"},
		{"CONNECT good.test%00:443 HTTP/1.1$$", "host name has other bytes than letters, digits, hyphens, underscores and dots"},
		{"CONNECT good.test\x00.evil.test:443 HTTP/1.1$$", "host name has other bytes than letters, digits, hyphens, underscores and dots"},
		{"CONNECT good\u3002test:443 HTTP/1.1$$", "host name has other bytes than letters, digits, hyphens, underscores and dots"},
		{"CONNECT 0x7f.1:443 HTTP/1.1$$", "host name ends in a number, like an IP address"},
		{"CONNECT 2130706433:443 HTTP/1.1$$", "host name ends in a number, like an IP address"},
		{"CONNECT 0177.0.0.1:443 HTTP/1.1$$", "host name ends in a number, like an IP address"},
		{"CONNECT 1.2.3.4.:443 HTTP/1.1$$", "is an IP address, not a host name"},
		{"CONNECT [::ffff:1.2.3.4]:443 HTTP/1.1$$", "address in an unusual form"},
		{"CONNECT [fe80::1%25lo]:443 HTTP/1.1$$", "address in an unusual form"},
		{"CONNECT [1.2.3.4]:443 HTTP/1.1$$", "malformed address"},
		{"CONNECT [[::1]]:443 HTTP/1.1$$", "malformed address"},
		{"CONNECT ::1:443 HTTP/1.1$$", "malformed port"},

		{"CONNECT  good.test:443 HTTP/1.1$$", "malformed request line"},
		{"CONNECT good.test:443  HTTP/1.1$$", "malformed request line"},
		{"CONNECT good.test:443 HTTP/1.1 $$", "malformed request line"},
		{"CONNECT good.test:443\tHTTP/1.1$$", "malformed request line"},
		{"CONNECT good.test:443 HTTP/2.0$$", "malformed request line"},
		{"CONNECT good.test:443$$", "malformed request line"},
		{"CONNECT good.test:443 HTTP/1.1\n\n", "a line that does not end in CR LF"},
		{"CONNECT good.test:443 HTTP/1.1$Host: good.test:443\n$$", "a line that does not end in CR LF"},
		{"CONNECT good.test:443 HTTP/1.1$X: a\rHost: evil.test$$", "malformed header"},
		{"CONNECT good.test:443 HTTP/1.1$Host : good.test:443$$", "malformed header"},
		{"CONNECT good.test:443 HTTP/1.1$ Host: good.test:443$$", "malformed header"},
		{"CONNECT good.test:443 HTTP/1.1$X: 1$ folded$$", "malformed header"},
		{"CONNECT good.test:443 HTTP/1.1$X$$", "malformed header"},
		{"CONNECT good.test:443 HTTP/1.1$: x$$", "malformed header"},
		{"CONNECT good.test:443 HTTP/1.1$X: a\x00b$$", "malformed header"},
		{"CONNECT good.test:443 HTTP/1.1$Host: evil.test:443$$", "header Host: another host than the target"},
		{"CONNECT good.test:443 HTTP/1.1$Host: good.test:80$$", "header Host: another host than the target"},
		{"CONNECT good.test:443 HTTP/1.1$Host:$$", "header Host: empty host name"},
		{"CONNECT good.test:443 HTTP/1.1$Host: good.test:443$Host: good.test:443$$", "two Host headers"},
		{"CONNECT 1.2.3.4:443 HTTP/1.1$Host: good.test:443$$", "header Host: another host than the target"},
		{"CONNECT good.test:443 HTTP/1.1$Content-Length: 0$$", "with Content-Length"},
		{"CONNECT good.test:443 HTTP/1.1$transfer-encoding: chunked$$", "with transfer-encoding"},
	} {
		head := strings.ReplaceAll(test.head, "$", "\r\n")
		got := ""
		n, err := headEnd([]byte(head))
		if err == nil {
			var r connectRequest
			if r, err = parseConnect(head[:n]); err == nil {
				got = r.target.String()
			}
		}
		if err != nil {
			got = err.Error()
		}
		if got != test.want || err == nil && n != len(head) {
			t.Errorf("%q: got %q (%d bytes), want %q", test.head, got, n, test.want)
		}
	}
}

// TestConnectMalformed: it is answered and recorded, in text and in JSON, and a
// head that has no end is not read for ever.
func TestConnectMalformed(t *testing.T) {
	for _, test := range []struct{ name, sends, reason string }{
		{"smuggling", "CONNECT good.test:443 HTTP/1.1\r\nAccept: application/json\r\nContent-Length: 5\r\n\r\n", "with Content-Length"},
		{"a long head", "CONNECT good.test:443 HTTP/1.1\r\nX: " + strings.Repeat("x", 30<<10), "longer than 16384 bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLab(t, strings.ReplaceAll(frontPolicy, "PROTOCOL", "tls"))
			conn := l.serveTo(netip.AddrPortFrom(testGate, forwardPort))
			io.WriteString(conn, test.sends)
			r, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(r.Body)
			if r.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), "CONNECT: "+test.reason) {
				t.Errorf("got %d %s", r.StatusCode, body)
			}
			var fields refusal
			if err := json.Unmarshal(body, &fields); strings.Contains(test.sends, "json") && (err != nil || fields.Error != isMalformed || fields.Host != `"good.test:443"`) {
				t.Errorf("JSON %s: %v", body, err)
			}
			conn.Close()
			checkRecords(t, l.records(), []string{"decision deny http 10.200.0.1: CONNECT: " + test.reason + ", and no rule names this address"})
		})
	}
}

// TestConnectRefusal: a denied tunnel is refused like a denied request.
func TestConnectRefusal(t *testing.T) {
	l := newLab(t, strings.ReplaceAll(frontPolicy, "PROTOCOL", "tls"))
	_, got := connectTo(t, l, "evil.test", 443)
	want := "403 cofferdam: access denied\n\nhost:   evil.test:443\nreason: no rule allows it\n\n" +
		"This was decided outside the sandbox, and nothing inside can change it.\n" +
		"A person can add a rule to the sandbox's policy:\n\n  - {allow: \"evil.test\"}\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestConnectEarly: what is sent behind the head belongs to the tunnel, in one
// segment or byte by byte, and is judged like what comes after the answer.
func TestConnectEarly(t *testing.T) {
	for _, test := range []struct{ name, sni, want string }{
		{"the same name", "good.test", "200 and it is sent on"},
		{"another name", "other.test", "200 and an alert"},
	} {
		for _, whole := range []bool{true, false} {
			t.Run(fmt.Sprint(test.name, " whole ", whole), func(t *testing.T) {
				l := newLab(t, strings.ReplaceAll(frontPolicy, "PROTOCOL", "tls"))
				l.upstream(echo)
				conn := l.serveTo(netip.AddrPortFrom(testGate, forwardPort))
				text := fmt.Sprintf("CONNECT good.test:%d HTTP/1.1\r\n\r\n%s", l.port, helloBytes(t, &tls.Config{ServerName: test.sni}))
				if whole {
					io.WriteString(conn, text)
				} else {
					sayBytes(conn, text)
				}
				conn.CloseWrite()
				data, err := io.ReadAll(conn)
				rest, granted := strings.CutPrefix(string(data), "HTTP/1.1 200 Connection established\r\n\r\n")
				got := "refused"
				switch {
				case granted && strings.HasPrefix(rest, "got "):
					got = "200 and it is sent on"
				case granted && rest == string([]byte{21, 3, 3, 0, 2, 2, alertAccessDenied}):
					got = "200 and an alert"
				}
				if got != test.want {
					t.Errorf("%s: %q, %v", got, data, err)
				}
			})
		}
	}
}

// TestForward: absolute-form requests to the HTTP proxy are decided one by one, by
// their own host and port.
func TestForward(t *testing.T) {
	const allow = ": a rule allows it"
	const to = "decision deny http 10.200.0.1: %s, and no rule names this address"
	for _, test := range []struct {
		name, text string // $ stands for CR LF
		want       []string
		records    []string
	}{
		{"a host", "GET http://good.test:PORT/a?b HTTP/1.1$Host: good.test:PORT$$", []string{"200 good.test:PORT"}, []string{"decision allow http good.test" + allow, "close http good.test"}},
		{
			"several hosts", "GET http://good.test:PORT/ HTTP/1.1$Host: x$$POST http://other.test:PORT/ HTTP/1.1$Host: x$Content-Length: 2$$hiGET http://GOOD.test.:PORT/ HTTP/1.1$Host: x$$",
			[]string{"200 good.test:PORT", "200 other.test:PORThi", "200 good.test:PORT"},
			[]string{"decision allow http good.test" + allow, "decision allow http other.test" + allow, "close http other.test"},
		},
		{
			"a denied host after an allowed one", "GET http://good.test:PORT/ HTTP/1.1$Host: x$$GET http://evil.test:PORT/ HTTP/1.1$Host: good.test:PORT$$GET http://good.test:PORT/ HTTP/1.1$Host: x$$",
			[]string{"200 good.test:PORT", "403 no rule allows it"},
			[]string{"decision allow http good.test" + allow, "decision deny http evil.test: no rule allows it", "close http good.test"},
		},
		{
			"another port of an allowed host", "GET http://good.test:PORT/ HTTP/1.1$Host: x$$GET http://good.test/ HTTP/1.1$Host: good.test:PORT$$",
			[]string{"200 good.test:PORT", "403 no rule allows this port"},
			[]string{"decision allow http good.test" + allow, "decision deny http good.test: no rule allows this port", "close http good.test"},
		},
		{"an address", "GET http://127.0.0.1:PORT/ HTTP/1.1$Host: good.test:PORT$$", []string{"403 no rule names this address"}, []string{"decision deny http 127.0.0.1: no rule names this address"}},
		{"an address that a rule pins", "GET http://[::1]:PORT/ HTTP/1.1$Host: x$$", []string{"200 [::1]:PORT"}, []string{"decision allow http ::1" + allow, "close http ::1"}},
		{"an address as a number", "GET http://2130706433:PORT/ HTTP/1.1$Host: good.test:PORT$$", []string{"403 Host header: host name ends in a number, like an IP address, and no rule names this address"}, []string{fmt.Sprintf(to, "Host header: host name ends in a number, like an IP address")}},
		{"a mapped address", "GET http://[::ffff:127.0.0.1]:PORT/ HTTP/1.1$Host: good.test:PORT$$", []string{"403 Host header: address in an unusual form, and no rule names this address"}, []string{fmt.Sprintf(to, "Host header: address in an unusual form")}},
		{"the proxy itself", "GET http://10.200.0.1:3128/ HTTP/1.1$Host: good.test:PORT$$", []string{"403 no rule names this address"}, []string{"decision deny http 10.200.0.1: no rule names this address"}},
		{"https", "GET https://good.test:PORT/ HTTP/1.1$Host: good.test:PORT$$", []string{"403 a request target that is https: ask for a tunnel with CONNECT, and no rule names this address"}, []string{fmt.Sprintf(to, "a request target that is https: ask for a tunnel with CONNECT")}},
		{"ftp", "GET ftp://good.test:PORT/ HTTP/1.1$Host: good.test:PORT$$", []string{"403 a request target that is not http, and no rule names this address"}, []string{fmt.Sprintf(to, "a request target that is not http")}},
		{"no absolute target", "GET / HTTP/1.1$Host: good.test:PORT$$", []string{"403 a request target without a host, to a proxy, and no rule names this address"}, []string{fmt.Sprintf(to, "a request target without a host, to a proxy")}},
		{"an empty host", "GET http:///x HTTP/1.1$Host: good.test:PORT$$", []string{"403 a request target without a host, to a proxy, and no rule names this address"}, []string{fmt.Sprintf(to, "a request target without a host, to a proxy")}},
		{"a user", "GET http://good.test@evil.test:PORT/ HTTP/1.1$Host: good.test:PORT$$", []string{"403 a request target with a user, and no rule names this address"}, []string{fmt.Sprintf(to, "a request target with a user")}},
		{
			"a tunnel after a request", "GET http://good.test:PORT/ HTTP/1.1$Host: x$$CONNECT good.test:PORT HTTP/1.1$Host: good.test:PORT$$",
			[]string{"200 good.test:PORT", "403 CONNECT that is not the first request of its connection, and no rule names this address"},
			[]string{"decision allow http good.test" + allow, fmt.Sprintf(to, "CONNECT that is not the first request of its connection"), "close http good.test"},
		},
		{"two lengths", "POST http://good.test:PORT/ HTTP/1.1$Host: good.test$Content-Length: 1$Content-Length: 2$$ab", []string{"400 malformed HTTP request: two Content-Length fields, and no rule names this address"}, []string{fmt.Sprintf(to, "malformed HTTP request: two Content-Length fields")}},
		{"HTTP/2", "PRI * HTTP/2.0$$SM$$", []string{"403 HTTP/2 without TLS, and no rule names this address"}, []string{fmt.Sprintf(to, "HTTP/2 without TLS")}},
		{"no HTTP", "\x05\x01\x00", nil, []string{"decision deny tcp 10.200.0.1: no HTTP request to the HTTP proxy, and no rule names this address"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLab(t, strings.ReplaceAll(frontPolicy, "PROTOCOL", "http"))
			sink := &webSink{}
			l.upstream(sink.serve)
			port := fmt.Sprint(l.port)
			conn := l.serveTo(netip.AddrPortFrom(testGate, forwardPort))
			got := inside(peerConn{conn, bufio.NewReader(conn)}, "http", strings.NewReplacer("$", "\r\n", "PORT", port).Replace(test.text))
			conn.Close()
			if diff := cmp.Diff(strings.Join(test.want, "; "), strings.ReplaceAll(got, port, "PORT")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			checkRecords(t, l.records(), test.records)
			if saw := sink.saw(); strings.Contains(saw, "evil") || len(test.want) == 1 && !strings.HasPrefix(test.want[0], "200") && saw != "" {
				t.Errorf("the upstream saw %q", saw)
			}
		})
	}
}

// TestForwardClient uses the ports as a program does that was told to.
func TestForwardClient(t *testing.T) {
	l := newLab(t, strings.ReplaceAll(frontPolicy, "PROTOCOL", "http"))
	sink := &webSink{}
	l.upstream(sink.serve)
	conn := l.serveTo(netip.AddrPortFrom(testGate, forwardPort))
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://good.test:%d/", l.port), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Proxy-Authorization", "Basic c2VjcmV0")
	r.Header.Set("Proxy-Connection", "keep-alive")
	if err := r.WriteProxy(conn); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), r)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("got %v, %v", answer, err)
	}
	answer.Body.Close()
	if saw := sink.saw(); strings.Contains(saw, "Proxy-") || !strings.HasPrefix(saw, "GET / HTTP/1.1\r\n") {
		t.Errorf("the upstream saw %q", saw)
	}
}
