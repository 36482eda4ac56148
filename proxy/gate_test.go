package proxy

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// frontPolicy allows names for one protocol; PROTOCOL stands for it.
const frontPolicy = `version: 1
network:
  rules:
    - {allow: good.test, ports: [PORT], protocol: PROTOCOL, addresses: ["::1"]}
    - {allow: other.test, ports: [PORT], protocol: PROTOCOL, addresses: ["::1"]}
    - {allow: elsewhere.test, ports: [1], protocol: PROTOCOL}
`

// serveProtocol is an upstream for each protocol of a rule.
func (l *lab) serveProtocol(protocol string) {
	switch protocol {
	case "tls":
		l.upstream(tlsUpstream)
	case "http":
		l.upstream((&webSink{}).serve)
	case "ssh":
		l.upstream(func(c *net.TCPConn) { io.WriteString(c, "SSH-2.0-server\r\n"); echo(c) })
	default:
		l.upstream(func(c *net.TCPConn) { io.WriteString(c, "banner\n"); echo(c) })
	}
}

// peerConn reads from in, which may have read ahead.
type peerConn struct {
	*net.TCPConn
	in *bufio.Reader
}

func (p peerConn) Read(b []byte) (int, error) { return p.in.Read(b) }

// connectTo asks the HTTP proxy for a tunnel. It returns the refusal's status and
// body, or the tunnel.
func connectTo(t *testing.T, l *lab, host string, port int) (peerConn, string) {
	t.Helper()
	conn := l.serveTo(netip.AddrPortFrom(testGate, forwardPort))
	authority := net.JoinHostPort(host, strconv.Itoa(port))
	fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: test\r\n\r\n", authority, authority)
	p := peerConn{conn, bufio.NewReader(conn)}
	r, err := http.ReadResponse(p.in, &http.Request{Method: http.MethodConnect})
	if err != nil {
		t.Fatal(err)
	}
	if r.StatusCode == http.StatusOK {
		return p, ""
	}
	body, _ := io.ReadAll(r.Body)
	return p, fmt.Sprintf("%d %s", r.StatusCode, body)
}

// socksTo asks the SOCKS proxy for a tunnel: for an address as one, for anything
// else as a name. It returns the reply's code, or the tunnel.
func socksTo(t *testing.T, l *lab, host string, port int) (peerConn, string) {
	t.Helper()
	conn := l.serveTo(netip.AddrPortFrom(testGate, socksPort))
	p := peerConn{conn, bufio.NewReader(conn)}
	conn.Write([]byte{5, 2, 2, 0})
	answer := make([]byte, 2)
	if _, err := io.ReadFull(p.in, answer); err != nil || answer[0] != 5 || answer[1] != 0 {
		t.Fatalf("got % x, %v", answer, err)
	}
	conn.Write(socksRequestFor(host, port))
	reply := make([]byte, 10)
	if _, err := io.ReadFull(p.in, reply); err != nil || reply[0] != 5 || reply[2] != 0 || reply[3] != 1 {
		t.Fatalf("got % x, %v", reply, err)
	}
	if reply[1] == socksGranted {
		return p, ""
	}
	return p, strconv.Itoa(int(reply[1]))
}

func socksRequestFor(host string, port int) []byte {
	b := []byte{5, 1, 0}
	if addr, err := netip.ParseAddr(host); err != nil {
		b = append(append(b, 3, byte(len(host))), host...)
	} else if addr.Is4() {
		b = append(append(b, 1), addr.AsSlice()...)
	} else {
		b = append(append(b, 4), addr.AsSlice()...)
	}
	return binary.BigEndian.AppendUint16(b, uint16(port))
}

// inside speaks a protocol in a tunnel and returns what came of it.
func inside(conn peerConn, says, arg string) string {
	switch says {
	case "tls":
		client := tls.Client(conn, &tls.Config{ServerName: arg, InsecureSkipVerify: true})
		if data, err := io.ReadAll(client); err != nil {
			return err.Error()
		} else {
			return string(data)
		}
	case "http":
		io.WriteString(conn, arg)
		var all []string
		for {
			r, err := http.ReadResponse(conn.in, nil)
			if err != nil {
				return strings.Join(all, "; ")
			}
			body, _ := io.ReadAll(r.Body)
			reason := string(body)
			if _, after, ok := strings.Cut(reason, "reason: "); ok {
				reason, _, _ = strings.Cut(after, "\n")
			}
			all = append(all, fmt.Sprintf("%d %s", r.StatusCode, reason))
			if r.Close || len(all) == strings.Count(arg, "\r\n\r\n") {
				conn.Close()
			}
		}
	case "server first":
		line, _ := conn.in.ReadString('\n')
		io.WriteString(conn, arg)
		conn.CloseWrite()
		rest, _ := io.ReadAll(conn.in)
		return line + string(rest)
	default:
		io.WriteString(conn, arg)
		conn.CloseWrite()
		data, _ := io.ReadAll(conn.in)
		return string(data)
	}
}

// TestFronts: what is asked for by CONNECT and by SOCKS5 is decided like a
// connection, before the answer as far as the name can tell, and by what is inside
// after it (H5, N5, T1). SOCKS5 and CONNECT agree in everything.
func TestFronts(t *testing.T) {
	const get, allow = "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", ": a rule allows it"
	for _, test := range []struct {
		name, protocol string
		host           string
		port           int // 0 for the lab's
		says, arg      string
		want           string   // from inside; "refused" before that
		records        []string // PORT and so on
	}{
		{"TLS", "tls", "good.test", 0, "tls", "good.test", "hello from good.test", []string{"decision allow tls good.test" + allow, "close tls good.test"}},
		{"in capitals and with a dot", "tls", "GOOD.test.", 0, "tls", "good.test", "hello from good.test", []string{"decision allow tls good.test" + allow, "close tls good.test"}},
		{"TLS for another allowed name", "tls", "good.test", 0, "tls", "other.test", "remote error: tls: access denied", []string{"decision deny tls other.test: the name is not good.test, which the address stands for"}},
		{"TLS for a denied name", "tls", "good.test", 0, "tls", "evil.test", "remote error: tls: access denied", []string{"decision deny tls evil.test: the name is not good.test, which the address stands for"}},
		{"TLS without a name", "tls", "good.test", 0, "tls", "", "remote error: tls: missing extension", []string{"decision deny tls good.test: TLS without server name"}},
		{"HTTP on a TLS rule", "tls", "good.test", 0, "http", fmt.Sprintf(get, "good.test"), "403 the rule allows tls only", []string{"decision deny http good.test: the rule allows tls only"}},
		{"SSH on a TLS rule", "tls", "good.test", 0, "ssh", "SSH-2.0-x\r\n", "", []string{"decision deny tcp good.test: the rule allows tls only"}},
		{"a denied name", "tls", "evil.test", 0, "", "", "refused", []string{"decision deny unknown evil.test: no rule allows it"}},
		{"a name allowed elsewhere", "tls", "elsewhere.test", 0, "", "", "refused", []string{"decision deny unknown elsewhere.test: no rule allows this port"}},
		{"port 53", "tls", "good.test", 53, "", "", "refused", []string{"decision deny unknown good.test: no rule allows this port"}},
		{"an address with an allowed name inside", "tls", literal, 0, "tls", "good.test", "hello from good.test", []string{"decision allow tls good.test" + allow, "close tls good.test"}},
		{"an address with a denied name inside", "tls", literal, 0, "tls", "evil.test", "remote error: tls: access denied", []string{"decision deny tls evil.test: no rule allows it"}},
		{"an address on a port of no rule", "tls", literal, 2, "", "", "refused", []string{"decision deny unknown " + literal + ": no rule names this address"}},
		{"an address that a rule pins", "tls", "::1", 0, "tls", "", "hello from ", []string{"decision allow tls ::1" + allow, "close tls ::1"}},
		{"a synthetic address", "tls", "good.test's", 0, "tls", "good.test", "hello from good.test", []string{"decision allow dns good.test" + allow, "decision allow tls good.test" + allow, "close tls good.test"}},
		{"another name at a synthetic address", "tls", "good.test's", 0, "tls", "other.test", "remote error: tls: access denied", []string{"decision allow dns good.test" + allow, "decision deny tls other.test: the name is not good.test, which the address stands for"}},
		{"a synthetic address of nobody", "tls", "127.64.3.3", 0, "", "", "refused", []string{"decision deny unknown 127.64.3.3: a synthetic address that stands for no name"}},
		{"the proxy itself", "tls", testGate.String(), forwardPort, "", "", "refused", []string{"decision deny unknown 10.200.0.1: no rule names this address"}},
		{"the other proxy itself", "tls", testGate.String(), socksPort, "", "", "refused", []string{"decision deny unknown 10.200.0.1: no rule names this address"}},
		{"HTTP", "http", "good.test", 0, "http", fmt.Sprintf(get+get, "good.test", "good.test"), "200 good.test; 200 good.test", []string{"decision allow http good.test" + allow, "close http good.test"}},
		{"HTTP for another host", "http", "good.test", 0, "http", fmt.Sprintf(get+get, "good.test", "other.test"), "200 good.test; 403 the name is not good.test, which the address stands for", []string{"decision allow http good.test" + allow, "decision deny http other.test: the name is not good.test, which the address stands for", "close http good.test"}},
		{"a tunnel in a tunnel", "http", "good.test", 0, "http", "CONNECT other.test:443 HTTP/1.1\r\nHost: other.test:443\r\n\r\n", "403 CONNECT is not needed here: connect to the host itself", []string{"decision deny http good.test: CONNECT is not needed here: connect to the host itself"}},
		{"TLS on an HTTP rule", "http", "good.test", 0, "tls", "good.test", "remote error: tls: access denied", []string{"decision deny tls good.test: the rule allows http only"}},
		{"SSH", "ssh", "good.test", 0, "ssh", "SSH-2.0-x\r\n", "SSH-2.0-server\r\ngot 11: SSH-2.0-x\r\n", []string{"decision allow ssh good.test" + allow, "close ssh good.test: up 11 down 35"}},
		{"SSH, server first", "ssh", "good.test", 0, "server first", "SSH-2.0-x\r\n", "SSH-2.0-server\r\ngot 11: SSH-2.0-x\r\n", []string{"decision allow ssh good.test" + allow, "close ssh good.test: up 11 down 35"}},
		{"SSH to a denied name", "ssh", "evil.test", 0, "", "", "refused", []string{"decision deny unknown evil.test: no rule allows it"}},
		{"TCP, server first", "tcp", "good.test", 0, "server first", "ping", "banner\ngot 4: ping", []string{"decision allow tcp good.test" + allow, "close tcp good.test: up 4 down 18"}},
		{"TCP to an address that a rule pins", "tcp", "::1", 0, "server first", "ping", "banner\ngot 4: ping", []string{"decision allow tcp ::1" + allow, "close tcp ::1: up 4 down 18"}},
		{"TCP to another address", "tcp", literal, 2, "", "", "refused", []string{"decision deny unknown " + literal + ": no rule names this address"}},
	} {
		for _, front := range []struct {
			via, refusal string
			ask          func(*testing.T, *lab, string, int) (peerConn, string)
		}{{viaConnect, "403", connectTo}, {viaSOCKS, "2", socksTo}} {
			t.Run(front.via+"/"+test.name, func(t *testing.T) {
				l := newLab(t, strings.ReplaceAll(frontPolicy, "PROTOCOL", test.protocol))
				l.serveProtocol(test.protocol)
				host, port := test.host, test.port
				if name, ok := strings.CutSuffix(host, "'s"); ok {
					host = l.synthetic(name)
				}
				if port == 0 {
					port = l.port
				}
				conn, refusal := front.ask(t, l, host, port)
				got := "refused"
				if refusal == "" {
					got = inside(conn, test.says, test.arg)
				} else if !strings.HasPrefix(refusal, front.refusal) {
					t.Errorf("refused with %q", refusal)
				}
				conn.Close()
				if got != test.want {
					t.Errorf("got %q, want %q", got, test.want)
				}
				checkRecords(t, l.records(), test.records)
				for _, r := range readRecords(t, l.log) {
					if (r.Protocol != "" && r.Protocol != "dns") != (r.Via == front.via) || r.Port != 0 && int(r.Port) != port {
						t.Errorf("record %+v", r)
					}
				}
			})
		}
	}
}

// TestFrontFails: where the answer comes after the dial it tells how that went.
func TestFrontFails(t *testing.T) {
	const unresolved = `    - {allow: unresolved.test, ports: [PORT], protocol: PROTOCOL}
`
	for _, test := range []struct{ protocol, host, connect, socks string }{
		{"tcp", "good.test", `502 cofferdam: upstream unreachable`, "5"},
		{"ssh", "good.test", `502 cofferdam: upstream unreachable`, "5"},
		{"tcp", "unresolved.test", `502 cofferdam: upstream unreachable`, "4"},
		{"tls", "good.test", "remote error: tls: internal error", "remote error: tls: internal error"},
	} {
		for via, ask := range map[string]func(*testing.T, *lab, string, int) (peerConn, string){viaConnect: connectTo, viaSOCKS: socksTo} {
			t.Run(via+"/"+test.protocol+" "+test.host, func(t *testing.T) {
				l := newLab(t, strings.ReplaceAll(frontPolicy+unresolved, "PROTOCOL", test.protocol), func(cfg *Config, l *lab) {
					cfg.Resolver = []netip.AddrPort{netip.AddrPortFrom(netip.IPv6Loopback(), uint16(l.port))} // nobody listens
				})
				conn, got := ask(t, l, test.host, l.port)
				if got == "" {
					got = inside(conn, "tls", test.host)
				}
				want := map[string]string{viaConnect: test.connect, viaSOCKS: test.socks}[via]
				if !strings.HasPrefix(got, want) {
					t.Errorf("got %q, want %q", got, want)
				}
				l.stop()
				var kinds []string
				for _, r := range readRecords(t, l.log) {
					if r.Protocol == test.protocol {
						kinds = append(kinds, r.Kind+" "+r.Verdict)
					}
				}
				if diff := cmp.Diff([]string{"decision allow", "close "}, kinds); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

// TestNoGate: without an address of its own the proxy offers none.
func TestNoGate(t *testing.T) {
	l := newLab(t, strings.ReplaceAll(frontPolicy, "PROTOCOL", "tls"), func(cfg *Config, _ *lab) { cfg.Gate = netip.Addr{} })
	for _, port := range []uint16{forwardPort, socksPort} {
		conn := l.serveTo(netip.AddrPortFrom(testGate, port))
		io.WriteString(conn, "CONNECT good.test:1 HTTP/1.1\r\n\r\n")
		if data, _ := io.ReadAll(conn); !strings.Contains(string(data), "CONNECT is not needed here") {
			t.Errorf("port %d: got %q", port, data)
		}
	}
}

// TestFrontsOff: with a policy that denies everything so do the two ports.
func TestFrontsOff(t *testing.T) {
	l := newLab(t, "")
	if _, refusal := connectTo(t, l, "good.test", 443); !strings.HasPrefix(refusal, "403") || !strings.Contains(refusal, "no policy allows anything") {
		t.Errorf("CONNECT: %q", refusal)
	}
	if _, refusal := socksTo(t, l, "good.test", 443); refusal != "2" {
		t.Errorf("SOCKS5: %q", refusal)
	}
}
