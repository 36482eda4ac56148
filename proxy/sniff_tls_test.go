package proxy

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
)

// extension is one of a hello.
type extension struct {
	kind    uint16
	content []byte
}

func prefixed16(b []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
}

// sni is the extension that gives names.
func sni(names ...string) extension {
	var list []byte
	for _, name := range names {
		list = append(append(list, 0), prefixed16([]byte(name))...)
	}
	return extension{extensionServerName, prefixed16(list)}
}

// greaseECH is what browsers send: of the outer type, with random contents.
func greaseECH() extension {
	content := []byte{0, 0, 1, 0, 1, 77, 0, 32}                 // outer, HKDF-SHA256, AES-128-GCM, config id, key
	content = append(content, bytes.Repeat([]byte{9}, 32)...)   // X25519
	content = append(content, prefixed16(make([]byte, 144))...) // payload
	return extension{extensionECH, content}
}

// craftHello builds a hello in a record (RFC 8446, 4.1.2).
func craftHello(extensions ...extension) []byte {
	extensions = append(extensions, extension{43, []byte{2, 3, 4}}, extension{10, []byte{0, 2, 0, 29}}) // TLS 1.3, X25519
	var list []byte
	for _, e := range extensions {
		list = append(binary.BigEndian.AppendUint16(list, e.kind), prefixed16(e.content)...)
	}
	body := append([]byte{3, 3}, make([]byte, 32)...)
	body = append(body, 0)             // session
	body = append(body, 0, 2, 0x13, 1) // TLS_AES_128_GCM_SHA256
	body = append(body, 1, 0)          // no compression
	body = append(body, prefixed16(list)...)
	message := append([]byte{1, 0}, prefixed16(body)...)
	return append([]byte{recordTypeHandshake, 3, 1}, prefixed16(message)...)
}

const echPolicy = `version: 1
network:
  rules:
    - {allow: good.test, ports: [PORT], addresses: ["::1"]}
    - {allow: browser.test, ports: [PORT], ech: true, addresses: ["::1"]}
`

// TestHellos: what a hello says about its name is judged by each fault of its own,
// and answered with the alert that TLS has for it. What is passed on is what was
// sent (T2, T4, T8).
func TestHellos(t *testing.T) {
	const access, illegal, decode, missing = alertAccessDenied, alertIllegalParameter, alertDecodeError, alertMissingExtension
	for _, test := range []struct {
		name, looked string
		sends        []byte
		alert        byte   // 0 if it is allowed, or reset
		record       string // of the connection
	}{
		{"a name", "good.test", craftHello(sni("good.test")), 0, "decision allow tls good.test: a rule allows it"},
		{"in capitals", "good.test", craftHello(sni("Good.TEST")), 0, "decision allow tls good.test: a rule allows it"},
		{"another name", "good.test", craftHello(sni("evil.test")), access, "decision deny tls evil.test: the name is not good.test, which the address stands for"},
		{"no name", "good.test", craftHello(), missing, "decision deny tls good.test: TLS without server name"},
		{"no extensions", "good.test", []byte("\x16\x03\x01\x00\x2d\x01\x00\x00\x29\x03\x03" + strings.Repeat("\x00", 32) + "\x00\x00\x02\x13\x01\x01\x00"), missing, "decision deny tls good.test: TLS without server name"},
		{"two names", "good.test", craftHello(sni("good.test", "evil.test")), illegal, "decision deny tls good.test: TLS with two server names"},
		{"a name of another type", "good.test", craftHello(extension{extensionServerName, prefixed16(append(append([]byte{1}, prefixed16([]byte("evil.test"))...), sni("good.test").content[2:]...))}), illegal, "decision deny tls good.test: TLS server name of another type"},
		{"the same name twice", "good.test", craftHello(sni("good.test", "good.test")), illegal, "decision deny tls good.test: TLS with two server names"},
		{"two extensions", "good.test", craftHello(sni("good.test"), sni("evil.test")), illegal, "decision deny tls good.test: TLS hello with a repeated extension"},
		{"another extension twice", "good.test", craftHello(sni("good.test"), extension{23, nil}, extension{23, nil}), illegal, "decision deny tls good.test: TLS hello with a repeated extension"},
		{"an empty name", "good.test", craftHello(sni("")), decode, "decision deny tls good.test: TLS with an empty server name"},
		{"an empty list", "good.test", craftHello(sni()), decode, "decision deny tls good.test: TLS with an empty server name"},
		{"an empty extension", "good.test", craftHello(extension{extensionServerName, nil}), decode, "decision deny tls good.test: TLS with an empty server name"},
		{"a dot at the end", "good.test", craftHello(sni("good.test.")), illegal, "decision deny tls good.test: TLS server name with a dot at its end"},
		{"an IPv4 address", "good.test", craftHello(sni("127.0.0.1")), illegal, "decision deny tls good.test: TLS server name: is an IP address, not a host name"},
		{"an IPv6 address", "good.test", craftHello(sni("::1")), illegal, "decision deny tls good.test: TLS server name: is an IP address, not a host name"},
		{"a number", "good.test", craftHello(sni("2130706433")), illegal, "decision deny tls good.test: TLS server name: host name ends in a number, like an IP address"},
		{"a NUL", "good.test", craftHello(sni("good.test\x00.evil.test")), illegal, "decision deny tls good.test: TLS server name: host name has other bytes than letters, digits, hyphens, underscores and dots"},
		{"a name cut short", "good.test", craftHello(extension{extensionServerName, []byte{0, 12, 0, 0, 99, 'g'}}), decode, "decision deny tls good.test: malformed TLS hello"},
		{"another message", "good.test", []byte("\x16\x03\x01\x00\x04\x02\x00\x00\x00"), decode, "decision deny tls good.test: malformed TLS hello"},
		{"too long", "good.test", bytes.Repeat([]byte("\x16\x03\x01\x40\x00\x01\x00\xff\xff"+strings.Repeat("\x00", 1<<14-4)), 2), decode, "decision deny tls good.test: TLS hello longer than 16 KiB"},
		{"ECH", "good.test", craftHello(sni("good.test"), greaseECH()), access, "decision deny tls good.test: TLS with an encrypted client hello (ECH)"},
		{"ECH of a draft", "good.test", craftHello(sni("good.test"), extension{0xfe0a, greaseECH().content}), access, "decision deny tls good.test: TLS with an encrypted client hello (ECH)"},
		{"an encrypted server name", "good.test", craftHello(sni("good.test"), extension{0xffce, make([]byte, 40)}), access, "decision deny tls good.test: TLS with an encrypted client hello (ECH)"},
		{"a name of another type last", "good.test", craftHello(extension{extensionServerName, []byte("\x00\x18\x00\x00\x09good.test\x01\x00\x09evil.test")}), illegal, "decision deny tls good.test: TLS server name of another type"},
		{"ECH without outer name", "good.test", craftHello(greaseECH()), missing, "decision deny tls good.test: TLS with an encrypted client hello (ECH)"},
		{"ECH by rule", "browser.test", craftHello(sni("browser.test"), greaseECH()), 0, "decision allow tls browser.test: a rule allows it"},
		{"ECH by rule, another outer name", "browser.test", craftHello(sni("good.test"), greaseECH()), access, "decision deny tls good.test: TLS with an encrypted client hello (ECH), and the name is not browser.test, which the address stands for"},
		{"ECH by rule, no outer name", "browser.test", craftHello(greaseECH()), missing, "decision deny tls browser.test: TLS without server name"},
		{"ECH by no rule", "", craftHello(sni("evil.test"), greaseECH()), access, "decision deny tls evil.test: TLS with an encrypted client hello (ECH), and no rule allows it"},
		{"ECH at a literal, by rule", "", craftHello(sni("browser.test"), greaseECH()), 0, "decision allow tls browser.test: a rule allows it"},
		{"a resolver's name", "", craftHello(sni("dns.google")), access, "decision deny tls dns.google: no rule allows it"},
		{"a resolver's address", "", craftHello(), missing, "decision deny tls " + literal + ": TLS without server name, and no rule names this address"},
		{"SSH at a TLS rule", "good.test", []byte("SSH-2.0-x\r\n"), 0, "decision deny tcp good.test: the rule allows tls only"},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLab(t, echPolicy)
			reached := make(chan []byte, 1)
			l.upstream(func(c *net.TCPConn) {
				data, _ := io.ReadAll(c)
				reached <- data
			})
			address, records := literal, []string{test.record}
			if test.looked != "" {
				address = l.synthetic(test.looked)
				records = []string{"decision allow dns " + test.looked + ": a rule allows it", test.record}
			}
			allowed := strings.Contains(test.record, " allow ")
			conn := l.dial(address)
			conn.Write(test.sends)
			if allowed {
				conn.CloseWrite()
				name, _, _ := strings.Cut(strings.TrimPrefix(test.record, "decision allow tls "), ":")
				records = append(records, "close tls "+name)
				if data := <-reached; !bytes.Equal(data, test.sends) {
					t.Errorf("% x arrives as % x", test.sends, data)
				}
			}
			got, _ := io.ReadAll(conn)
			if test.alert != 0 && !bytes.Equal(got, []byte{21, 3, 3, 0, 2, 2, test.alert}) || test.alert == 0 && len(got) > 0 {
				t.Errorf("got % x, want the alert %d", got, test.alert)
			}
			conn.Close()
			checkRecords(t, l.records(), records)
			if len(reached) > 0 {
				t.Error("the upstream was reached")
			}
		})
	}
}

// TestHelloVersions: whatever version a client of crypto/tls speaks, its name is
// read.
func TestHelloVersions(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
		p := peeker{from: bytes.NewReader(helloBytes(t, &tls.Config{ServerName: "good.test", MinVersion: version, MaxVersion: version}))}
		if _, h := p.peek(); h.name.String() != "good.test" || h.problem != "" {
			t.Errorf("%s: %+v", tls.VersionName(version), h)
		}
	}
}
