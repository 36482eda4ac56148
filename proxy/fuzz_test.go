package proxy

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"

	"cofferdam.dev/cofferdam/proxy/policy"
)

// helloBytes is the hello of Go's client.
func helloBytes(t testing.TB, cfg *tls.Config) []byte {
	t.Helper()
	agent, proxy := net.Pipe()
	defer proxy.Close()
	go func() {
		tls.Client(agent, cfg).Handshake()
		agent.Close()
	}()
	buf := make([]byte, 1<<16)
	n, err := proxy.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

// FuzzPeek: whatever is sent, nothing that was read is lost, no more is read
// than the cap, and a name is found only where it stands in the bytes.
func FuzzPeek(f *testing.F) {
	f.Add(helloBytes(f, &tls.Config{ServerName: "good.test"}))
	f.Add(helloBytes(f, &tls.Config{ServerName: "good.test", MaxVersion: tls.VersionTLS12}))
	f.Add(helloBytes(f, &tls.Config{InsecureSkipVerify: true}))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: good.test\r\n\r\n"))
	f.Add([]byte("SSH-2.0-x\r\n"))
	f.Add([]byte{0x16, 3, 1, 0, 0})
	f.Add(bytes.Repeat([]byte{0x16, 3, 1, 0, 1, 1}, 4000))
	f.Add(craftHello(sni("good.test"), greaseECH()))
	f.Add(craftHello(sni("good.test", "evil.test")))
	f.Add(craftHello(sni("")))
	f.Fuzz(func(t *testing.T, data []byte) {
		p := peeker{from: iotest.OneByteReader(bytes.NewReader(data))}
		protocol, h := p.peek()
		if len(p.data) > maxPeek || !bytes.HasPrefix(data, p.data) {
			t.Fatalf("peeked %d of %d bytes", len(p.data), len(data))
		}
		// The same bytes in one segment are the same. What is wrong with them may be said at greater length: more of them is there.
		p = peeker{from: bytes.NewReader(data)}
		again, h2 := p.peek()
		if again != protocol || h2.name != h.name || h2.ech != h.ech || (h2.problem == "") != (h.problem == "") || !bytes.HasPrefix(data, p.data) {
			t.Fatalf("in one segment %s %+v, else %s %+v", again, h2, protocol, h)
		}
		switch {
		case protocol != policy.TLS && h != (hello{}):
			t.Fatalf("%s with %+v", protocol, h)
		case protocol == policy.TLS && (h.name.IsZero() == (h.problem == "")):
			t.Fatalf("hello %+v", h)
		}
		if name := h.name.String(); name != "" && len(data) < 2000 {
			// A record header may cut the name in two: look for its first letter.
			if !bytes.Contains(bytes.ToLower(data), []byte(name[:1])) {
				t.Fatalf("the name %s is not in %x", name, data)
			}
		}
	})
}

// FuzzTarget: of a request that is accepted, the host that is decided is the one
// that is written upstream.
func FuzzTarget(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: good.test\r\n\r\n", "GET http://a@b/ HTTP/1.1\r\nHost: good.test:80\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: good.test.\r\nUpgrade: h2c\r\n\r\n",
		"CONNECT good.test:80 HTTP/1.1\r\n\r\n", "GET http://good.test:8080/ HTTP/1.1\r\nHost: x\r\n\r\n", "GET http://[::1]/ HTTP/1.1\r\nHost: x\r\n\r\n", "GET http:x HTTP/1.1\r\nHost: x\r\n\r\n", "GET //evil.test/ HTTP/1.1\r\nHost: good.test\r\n\r\n",
	} {
		f.Add(s)
	}
	dest := netip.MustParseAddrPort("127.9.9.9:80")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parsedRequest(text)
		if err != nil {
			return
		}
		// As a proxy, the target that is decided is the one that is dialled.
		f := &httpConn{conn: &conn{dest: dest}, forward: true}
		if q := f.ask(r); q.problem == "" && (f.asked.target != target{q.Name, q.Addr, q.Port}) {
			t.Fatalf("%q is decided as %+v and dialled as %s", text, q.Request, f.asked.target)
		}
		h := &httpConn{conn: &conn{dest: dest}}
		q := h.ask(r)
		if strings.ContainsAny(h.host(), "\r\n\x00\x1b") {
			t.Fatalf("host %q", h.host())
		}
		if q.problem != "" {
			return
		}
		if q.Name.IsZero() && q.Addr != dest.Addr() {
			t.Fatalf("address %s", q.Addr)
		}
		wire := string(r.appendRequest(nil, h.asked.field))
		again, err := http.ReadRequest(bufioReader(wire))
		if err != nil {
			t.Fatalf("%q is sent as %q: %v", text, wire, err)
		}
		host, _, err := splitHostPort(again.Host)
		if err != nil {
			t.Fatalf("%q is sent as %q: %v", text, wire, err)
		}
		if name, addr, err := parseHost(host); err != nil || name != q.Name || q.Name.IsZero() && addr != q.Addr {
			t.Fatalf("%q is sent as %q: %s, %v", text, wire, again.Host, err)
		}
	})
}

// FuzzConnect: a head that is accepted says one thing, to this parser and to that
// of net/http, and is found wherever the bytes are cut.
func FuzzConnect(f *testing.F) {
	for _, s := range []string{
		"CONNECT good.test:443 HTTP/1.1\r\nHost: good.test:443\r\n\r\nrest", "CONNECT [::1]:1 HTTP/1.0\r\n\r\n",
		"CONNECT GOOD.test.:65535 HTTP/1.1\r\nhost:good.test\r\nAccept: a\r\naccept: b\r\n\r\n", "CONNECT a:1 HTTP/1.1\n\n",
		"CONNECT a:1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "CONNECT 0x7f.1:1 HTTP/1.1\r\nX: a\r b\r\n\r\n", "\r\n\r\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data string) {
		n, err := headEnd([]byte(data))
		if n > len(data) || n > 0 && (err != nil || !strings.HasSuffix(data[:n], "\r\n")) {
			t.Fatalf("head of %d bytes in %q, %v", n, data, err)
		}
		for cut := range min(n, 600) {
			if early, err := headEnd([]byte(data[:cut])); early != 0 || err != nil {
				t.Fatalf("head of %d bytes in %q, %v", early, data[:cut], err)
			}
		}
		r, err := parseConnect(data[:n])
		if err != nil {
			return
		}
		again, err := parseTarget(r.target.String())
		if err != nil || again != r.target || r.target.port == 0 || r.target.name.IsZero() != r.target.addr.IsValid() {
			t.Fatalf("%q is %v, and then %v, %v", data, r.target, again, err)
		}
		if strings.ContainsAny(r.accept, "\r\n\x00") {
			t.Fatalf("accept %q", r.accept)
		}
		other, err := http.ReadRequest(bufioReader(data[:n]))
		if err != nil {
			return // it is stricter in places that do not matter here
		}
		if o, err := parseTarget(other.Host); err != nil || o != r.target || other.ContentLength != 0 || len(other.TransferEncoding) > 0 {
			t.Fatalf("%q is %s here and %s to net/http (%v)", data, r.target, other.Host, err)
		}
	})
}

// FuzzSOCKS: messages have an end wherever they are cut, and a target that is
// accepted says one thing.
func FuzzSOCKS(f *testing.F) {
	for _, s := range []string{"\x05\x01\x00", "\x05\x02\x02\x00rest", "\x04\x01\x01\xbb\x01\x02\x03\x04\x00", "\x05\x00", "GET"} {
		f.Add([]byte(s))
	}
	for _, host := range []string{"good.test", "1.2.3.4", "2600::1", "", "[::1]", "::ffff:1.2.3.4", "fe80::1%lo", "0x7f.1"} {
		f.Add(append(socksRequestFor(host, 443), "rest"...))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		whole, err := socksGreeting(data)
		if whole > len(data) || whole > 0 && err != nil {
			t.Fatalf("greeting of %d bytes in %x, %v", whole, data, err)
		}
		for cut := range whole {
			if n, err := socksGreeting(data[:cut]); n != 0 || err != nil {
				t.Fatalf("greeting of %d bytes in %x, %v", n, data[:cut], err)
			}
		}
		to, whole, err := socksRequest(data)
		if whole > len(data) || whole > 0 && err != nil {
			t.Fatalf("request of %d bytes in %x, %v", whole, data, err)
		}
		for cut := range whole {
			if _, n, err := socksRequest(data[:cut]); n != 0 || err != nil {
				t.Fatalf("request of %d bytes in %x, %v", n, data[:cut], err)
			}
		}
		if e, ok := errors.AsType[*socksError](err); err != nil && (!ok || len(e.answer) == 0 || e.answer[1] == socksGranted) {
			t.Fatalf("%x: %v with %x", data, err, e.answer)
		}
		if whole == 0 {
			return
		}
		again, err := parseTarget(to.String())
		if err != nil || again != to || to.port == 0 || to.name.IsZero() != to.addr.IsValid() {
			t.Fatalf("%x is %v, and then %v, %v", data, to, again, err)
		}
	})
}

// BenchmarkPeekTLS is the cost of reading a hello.
func BenchmarkPeekTLS(b *testing.B) {
	data := helloBytes(b, &tls.Config{ServerName: "good.test"})
	b.ReportAllocs()
	for b.Loop() {
		p := peeker{from: bytes.NewReader(data)}
		if _, h := p.peek(); h.name.String() != "good.test" {
			b.Fatal(h.problem)
		}
	}
}
