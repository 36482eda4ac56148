package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"cofferdam.dev/cofferdam/proxy/policy"
	"cofferdam.dev/cofferdam/proxy/record"
)

const tlsPolicy = `version: 1
network:
  rules:
    - {allow: good.test, ports: [PORT], addresses: ["::1"]}
    - {allow: other.test, ports: [PORT], addresses: ["::1"]}
    - {allow: elsewhere.test, ports: [1]}
`

// certificate is self-signed, for any name.
var certificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

// tlsUpstream answers with the server name that it was asked for.
func tlsUpstream(conn *net.TCPConn) { tlsUpstreamWith(conn, &tls.Config{}) }

func tlsUpstreamWith(conn *net.TCPConn, cfg *tls.Config) {
	cfg.Certificates = []tls.Certificate{certificate()}
	server := tls.Server(conn, cfg)
	if server.Handshake() == nil {
		fmt.Fprintf(server, "hello from %s", server.ConnectionState().ServerName)
		server.Close()
	}
}

// askTLS makes a TLS connection with a server name, and returns what the
// upstream says or the error.
func (l *lab) askTLS(address, serverName string, change func(*tls.Config)) (string, error) {
	cfg := &tls.Config{ServerName: serverName, InsecureSkipVerify: true}
	if change != nil {
		change(cfg)
	}
	client := tls.Client(l.dial(address), cfg)
	defer client.Close()
	data, err := io.ReadAll(client)
	return string(data), err
}

func TestTLS(t *testing.T) {
	const noRule = "decision deny tls evil.test: no rule allows it"
	ech := func(c *tls.Config) {
		c.MinVersion = tls.VersionTLS13
		c.EncryptedClientHelloConfigList = echConfigs(t)
	}
	for _, test := range []struct {
		name    string
		address func(*lab) string
		sni     string
		change  func(*tls.Config)
		want    string // from the upstream; empty for an alert
		records []string
	}{
		{
			"the name that was looked up", func(l *lab) string { return l.synthetic("good.test") }, "good.test", nil, "hello from good.test",
			[]string{"decision allow dns good.test: a rule allows it", "decision allow tls good.test: a rule allows it", "close tls good.test"},
		},
		{
			"the same in capitals", func(l *lab) string { return l.synthetic("good.test") }, "GOOD.test", nil, "hello from GOOD.test",
			[]string{"decision allow dns good.test: a rule allows it", "decision allow tls good.test: a rule allows it", "close tls good.test"},
		},
		{
			"another allowed name than looked up", func(l *lab) string { return l.synthetic("good.test") }, "other.test", nil, "",
			[]string{"decision allow dns good.test: a rule allows it", "decision deny tls other.test: the name is not good.test, which the address stands for"},
		},
		{
			"a denied name at an allowed one's address", func(l *lab) string { return l.synthetic("good.test") }, "evil.test", nil, "",
			[]string{"decision allow dns good.test: a rule allows it", "decision deny tls evil.test: the name is not good.test, which the address stands for"},
		},
		{
			"no server name", func(l *lab) string { return l.synthetic("good.test") }, "", nil, "",
			[]string{"decision allow dns good.test: a rule allows it", "decision deny tls good.test: TLS without server name"},
		},
		{
			"encrypted client hello", func(l *lab) string { return l.synthetic("good.test") }, "good.test", ech, "",
			[]string{"decision allow dns good.test: a rule allows it", "decision deny tls public.test: TLS with an encrypted client hello (ECH), and the name is not good.test, which the address stands for"},
		},
		{
			"an allowed name at an address of its own", func(*lab) string { return literal }, "good.test", nil, "hello from good.test",
			[]string{"decision allow tls good.test: a rule allows it", "close tls good.test"},
		},
		{"a denied name at an address of its own", func(*lab) string { return literal }, "evil.test", nil, "", []string{noRule}},
		{
			"no name at all", func(*lab) string { return literal }, "", nil, "",
			[]string{"decision deny tls " + literal + ": TLS without server name, and no rule names this address"},
		},
		{
			"a synthetic address that nobody has", func(*lab) string { return "127.64.3.3" }, "good.test", nil, "",
			[]string{"decision deny tls good.test: a synthetic address that stands for no name"},
		},
		{
			"a name allowed on another port", func(l *lab) string { return l.synthetic("elsewhere.test") }, "elsewhere.test", nil, "",
			[]string{"decision allow dns elsewhere.test: a rule allows it", "decision deny tls elsewhere.test: no rule allows this port"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLab(t, tlsPolicy)
			reached := make(chan struct{}, 1)
			l.upstream(func(c *net.TCPConn) { reached <- struct{}{}; tlsUpstream(c) })
			got, err := l.askTLS(test.address(l), test.sni, test.change)
			if got != test.want {
				t.Errorf("got %q, %v", got, err)
			}
			if test.want == "" {
				alert := "access denied"
				if test.sni == "" {
					alert = "missing extension"
				}
				if !strings.HasSuffix(fmt.Sprint(err), alert) {
					t.Errorf("error is %v, want the alert %s", err, alert)
				}
				if len(reached) > 0 {
					t.Error("the upstream was reached")
				}
			}
			checkRecords(t, l.records(), test.records)
		})
	}
}

// checkRecords compares records; a wanted close without counts takes any.
func checkRecords(t *testing.T, got, want []string) {
	t.Helper()
	for i := range got {
		if i < len(want) && strings.HasPrefix(want[i], "close") && !strings.Contains(want[i], ": up") {
			got[i], _, _ = strings.Cut(got[i], ": up")
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
}

// TestAcceptFails: without its listener a server ends, also when goroutines wait
// for its next connection. More of those ended at once than may wait.
func TestAcceptFails(t *testing.T) {
	l := newLab(t, "")
	l.stop()
	listener, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	l.server.cfg.TCP, l.server.open = listener, make(chan struct{}, cap(l.server.open))
	ended := make(chan error, 1)
	go func() { ended <- l.server.accept(t.Context()) }()
	for range 3 {
		var conns []net.Conn
		for range 2 * maxWaiting {
			conn, err := net.Dial("tcp4", listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, conn)
		}
		for _, conn := range conns {
			conn.SetReadDeadline(time.Now().Add(patience))
			if _, err := conn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("not served")
			}
			conn.Close()
		}
	}
	listener.Close()
	select {
	case err := <-ended:
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v", err)
		}
	case <-time.After(patience):
		t.Fatal("accept does not end")
	}
	if n := len(l.server.open); n > 1 { // one was taken for the connection that did not come
		t.Errorf("%d connections are open", n)
	}
}

// TestDeniedNameWithAddress: what no rule allows has no address, so the flow of a denied
// name begins at an address that was mapped under another policy.
func TestDeniedNameWithAddress(t *testing.T) {
	l := newLab(t, tlsPolicy)
	name, _ := policy.ParseName("evil.test")
	addr, err := l.server.names.address(name)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := l.askTLS(addr.String(), "evil.test", nil); err == nil {
		t.Errorf("TLS: got %q", got)
	}
	conn := l.dial(addr.String())
	io.WriteString(conn, "GET /x HTTP/1.1\r\nHost: evil.test\r\n\r\n")
	answer, _ := io.ReadAll(conn)
	if !strings.HasPrefix(string(answer), "HTTP/1.1 403 Forbidden\r\n") || !strings.Contains(string(answer), "no rule allows it") {
		t.Errorf("HTTP: got %q", answer)
	}
	silent := l.dial(addr.String())
	if !ended(t, silent) {
		t.Error("a silent client gets bytes")
	}
	checkRecords(t, l.records(), []string{
		"decision deny tls evil.test: no rule allows it",
		"decision deny http evil.test: no rule allows it",
		"decision deny tcp evil.test: no rule allows it",
	})
}

func TestOtherProtocolsOnTLSRule(t *testing.T) {
	for _, test := range []struct{ name, sends, record string }{
		{"ssh", "SSH-2.0-OpenSSH_9.6\r\n", "decision deny tcp good.test: the rule allows tls only"},
		{"socks", "\x05\x01\x00", "decision deny tcp good.test: the rule allows tls only"},
		{"a broken hello", "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", "decision deny tls good.test: malformed TLS hello"},
		{"http", "GET / HTTP/1.1\r\nHost: good.test\r\n\r\n", "decision deny http good.test: the rule allows tls only"},
		{"http/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "decision deny http good.test: the rule allows tls only"},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLab(t, tlsPolicy)
			l.upstream(func(*net.TCPConn) { t.Error("the upstream was reached") })
			conn := l.dial(l.synthetic("good.test"))
			io.WriteString(conn, test.sends)
			io.Copy(io.Discard, conn)
			checkRecords(t, l.records(), []string{"decision allow dns good.test: a rule allows it", test.record})
		})
	}
}

// TestFragmentedHello sends the hello in records of one byte and segments of
// their own (T3).
func TestFragmentedHello(t *testing.T) {
	l := newLab(t, tlsPolicy)
	l.upstream(tlsUpstream)
	raw := l.dial(l.synthetic("good.test"))
	client := tls.Client(&fragmenter{Conn: raw}, &tls.Config{ServerName: "good.test", InsecureSkipVerify: true})
	got, err := io.ReadAll(client)
	if string(got) != "hello from good.test" {
		t.Errorf("got %q, %v", got, err)
	}
}

// fragmenter cuts the first TLS record into records of 100 bytes.
type fragmenter struct {
	net.Conn
	done bool
}

func (f *fragmenter) Write(b []byte) (int, error) {
	if f.done {
		return f.Conn.Write(b)
	}
	f.done = true
	for rest := b[5:]; len(rest) > 0; {
		n := min(100, len(rest))
		if _, err := f.Conn.Write(append([]byte{b[0], b[1], b[2], 0, byte(n)}, rest[:n]...)); err != nil {
			return 0, err
		}
		rest = rest[n:]
	}
	return len(b), nil
}

const tcpPolicy = `version: 1
network:
  rules:
    - {allow: raw.test, ports: [PORT], protocol: tcp, addresses: ["::1"]}
`

// TestHalfClose sends, closes its half, and only then gets the answer; and the
// server's bytes may come first.
func TestHalfClose(t *testing.T) {
	l := newLab(t, tcpPolicy)
	l.upstream(func(c *net.TCPConn) { io.WriteString(c, "banner\n"); echo(c) })
	conn := l.dial(l.synthetic("raw.test"))
	in := bufio.NewReader(conn)
	if line, err := in.ReadString('\n'); line != "banner\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	io.WriteString(conn, "body")
	conn.CloseWrite()
	if got, err := io.ReadAll(in); string(got) != "got 4: body" {
		t.Errorf("got %q, %v", got, err)
	}
	checkRecords(t, l.records(), []string{
		"decision allow dns raw.test: a rule allows it",
		"decision allow tcp raw.test: a rule allows it",
		"close tcp raw.test: up 4 down 18",
	})
}

// TestBulk moves enough to be spliced, both ways at once.
func TestBulk(t *testing.T) {
	l := newLab(t, tcpPolicy)
	const size = 8 << 20
	l.upstream(func(c *net.TCPConn) { io.Copy(c, c) })
	conn := l.dial(l.synthetic("raw.test"))
	data := make([]byte, size)
	rand.Read(data)
	go func() {
		conn.Write(data)
		conn.CloseWrite()
	}()
	got, err := io.ReadAll(conn)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("got %d bytes, %v", len(got), err)
	}
	checkRecords(t, l.records(), []string{
		"decision allow dns raw.test: a rule allows it",
		"decision allow tcp raw.test: a rule allows it",
		fmt.Sprintf("close tcp raw.test: up %d down %d", size, size),
	})
	if len(l.server.splices) != 0 {
		t.Error("splices are still counted")
	}
}

// TestBackPressure: an upstream that does not read holds the agent up, with no
// more than the kernel's buffers between them, and loses nothing.
func TestBackPressure(t *testing.T) {
	l := newLab(t, tcpPolicy)
	read := make(chan struct{})
	got := make(chan int64)
	l.upstream(func(c *net.TCPConn) {
		<-read
		n, _ := io.Copy(io.Discard, c)
		got <- n
	})
	conn := l.dial(l.synthetic("raw.test"))
	conn.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
	n, err := conn.Write(make([]byte, 128<<20))
	if e, ok := err.(net.Error); !ok || !e.Timeout() {
		t.Errorf("the agent is not held up: %d bytes, %v", n, err)
	}
	close(read)
	conn.CloseWrite()
	if arrived := <-got; arrived != int64(n) {
		t.Errorf("%d of %d bytes arrive", arrived, n)
	}
	checkRecords(t, l.records()[2:], []string{fmt.Sprintf("close tcp raw.test: up %d down 0", n)})
}

func TestIdleEnds(t *testing.T) {
	l := newLab(t, tcpPolicy, func(_ *Config, l *lab) { l.idle = 50 * time.Millisecond })
	l.upstream(func(c *net.TCPConn) { io.Copy(io.Discard, c) })
	if !ended(t, l.dial(l.synthetic("raw.test"))) {
		t.Error("got bytes")
	}
	l.stop()
	all := readRecords(t, l.log)
	for _, r := range all {
		if r.Kind == record.Close && r.Reason == errIdle.Error() {
			return
		}
	}
	t.Errorf("no record of it: %v", all)
}

// TestBareAddress: a connection to an address that a rule pins is relayed there.
func TestBareAddress(t *testing.T) {
	for _, test := range []struct{ protocol, sends, want string }{
		{"tcp", "ping", "got 4: ping"},
		{"tcp", "SSH-2.0-x", "got 9: SSH-2.0-x"},
		{"http", "GET / HTTP/1.0\r\nHost: [::1]:PORT\r\n\r\n", "HTTP/1.0 204 No Content"},
		{"http", "GET / HTTP/1.0\r\nHost: [::2]:PORT\r\n\r\n", "HTTP/1.0 403 Forbidden"},
		{"http", "GET / HTTP/1.0\r\nHost: x.test\r\n\r\n", "HTTP/1.0 204 No Content"},
		{"http", "GET / HTTP/1.0\r\nHost: evil.test\r\n\r\n", "HTTP/1.0 403 Forbidden"},
		{"tls", "ping", ""},
	} {
		t.Run(test.protocol+" "+test.want, func(t *testing.T) {
			l := newLab(t, strings.ReplaceAll(`version: 1
network:
  rules:
    - {allow: x.test, ports: [PORT], protocol: PROTOCOL, addresses: ["::1"]}
`, "PROTOCOL", test.protocol))
			if test.protocol == "http" {
				l.upstream(func(c *net.TCPConn) {
					bufio.NewReader(c).ReadString('\n')
					io.WriteString(c, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
				})
			} else {
				l.upstream(echo)
			}
			conn := l.serveTo(netip.AddrPortFrom(netip.IPv6Loopback(), uint16(l.port)))
			io.WriteString(conn, strings.ReplaceAll(test.sends, "PORT", fmt.Sprint(l.port)))
			if test.protocol != "http" { // net/http takes the end of a half for the end of interest
				conn.CloseWrite()
			}
			if got, err := io.ReadAll(conn); !strings.HasPrefix(string(got), test.want) || (test.want == "") != (len(got) == 0) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func TestUpstreamDown(t *testing.T) {
	l := newLab(t, tcpPolicy+`    - {allow: good.test, ports: [1], addresses: ["::1"]}
`)
	if !l.refused(l.synthetic("raw.test")) {
		t.Error("got bytes")
	}
	l.stop()
	var reasons []string
	for _, r := range readRecords(t, l.log) {
		if r.Protocol == "tcp" {
			reasons = append(reasons, r.Kind+" "+r.Verdict)
			if r.Kind == record.Close && !strings.Contains(r.Reason, "refused") {
				t.Errorf("close says %q", r.Reason)
			}
		}
	}
	if diff := cmp.Diff([]string{"decision allow", "close "}, reasons); diff != "" {
		t.Error(diff)
	}
}

func TestForeignPeer(t *testing.T) {
	l := newLab(t, tcpPolicy, func(cfg *Config, _ *lab) { cfg.Box = netip.MustParseAddr("10.200.0.2") })
	if !l.refused(literal) {
		t.Error("got bytes")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if addrs, err := l.resolver().LookupHost(ctx, "raw.test."); err == nil {
		t.Errorf("DNS answers a stranger with %v", addrs)
	}
	got := l.records()
	if len(got) != 2 || !strings.Contains(got[0], "not the agent's address") || !strings.Contains(got[1], "not the agent's address") {
		t.Errorf("records %q", got)
	}
}

// TestLogFull is I7: what cannot be recorded is refused.
func TestLogFull(t *testing.T) {
	l := newLab(t, tlsPolicy, withLogLimit(3000))
	l.upstream(tlsUpstream)
	allowed, refused := 0, 0
	for range 20 {
		if got, err := l.askTLS(literal, "good.test", nil); got != "" {
			allowed++
		} else if refused++; err == nil {
			t.Error("refused without an alert")
		}
	}
	if allowed < 2 || refused < 2 {
		t.Errorf("%d allowed, %d refused", allowed, refused)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if addrs, err := l.resolver().LookupHost(ctx, "good.test."); err == nil {
		t.Errorf("DNS still answers: %v", addrs)
	}
	l.stop()
	said, size := 0, 0
	for _, r := range readRecords(t, l.log) {
		if strings.Contains(r.Reason, "reached its limit") {
			said++
		}
		size++
	}
	if said != 1 {
		t.Errorf("the log says %d times that it is full, in %d records", said, size)
	}
}

// TestMaxConns: at the limit further connections wait, and are served later.
func TestMaxConns(t *testing.T) {
	l := newLab(t, tcpPolicy, func(cfg *Config, _ *lab) { cfg.MaxConns = 1 })
	l.upstream(func(c *net.TCPConn) { io.WriteString(c, "hi"); echo(c) })
	address := l.synthetic("raw.test")
	first, second := l.dial(address), l.dial(address)
	two := make([]byte, 2)
	if _, err := io.ReadFull(first, two); err != nil {
		t.Fatal(err)
	}
	second.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if n, _ := second.Read(two); n != 0 {
		t.Error("the second connection is served beside the first")
	}
	first.Close()
	second.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(second, two); err != nil {
		t.Errorf("the second connection is not served: %v", err)
	}
}

// echConfigs is a config list that a client accepts (RFC 9849, 4).
func echConfigs(t *testing.T) []byte {
	t.Helper()
	key := make([]byte, 32)
	key[0] = 9
	body := append([]byte{1, 0, 0x20, 0, 32}, key...)         // config id, X25519, key
	body = append(body, 0, 4, 0, 1, 0, 1, 0)                  // HKDF-SHA256, AES-128-GCM, max name
	body = append(append(body, 11), "public.test\x00\x00"...) // public name, no extensions
	config := append([]byte{0xfe, 0x0d, 0, byte(len(body))}, body...)
	return append([]byte{0, byte(len(config))}, config...)
}
