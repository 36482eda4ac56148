package proxy

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"slices"
	"testing"
)

// retryRecord is the record of a ServerHello that asks for another hello.
func retryRecord() []byte {
	message := append([]byte{serverHello, 0, 0, 38, 3, 3}, helloRetryRequest...)
	message = append(message, 0, 0x13, 0x01, 0) // no session, a cipher suite, no compression; extensions are nobody's business here
	return append([]byte{recordTypeHandshake, 3, 3, 0, byte(len(message))}, message...)
}

// TestSecondHello: a server that asks for another hello gets one only if that has
// the name that was decided about, whatever the agent sends before it, and
// whether it waits for the server or not.
func TestSecondHello(t *testing.T) {
	good, evil, none := craftHello(sni("good.test")), craftHello(sni("evil.test")), craftHello()
	cipher := []byte{20, 3, 3, 0, 1, 1}
	early := append([]byte{23, 3, 3, 0, 5}, "early"...)
	key := []byte{recordTypeHandshake, 3, 3, 0, 5, 16, 0, 0, 1, 1}
	ordinary := slices.Concat([]byte{recordTypeHandshake, 3, 3, 0, 44, serverHello, 0, 0, 40, 3, 3}, bytes.Repeat([]byte{7}, 38))
	for _, test := range []struct {
		name         string
		answer, then []byte
		passes       bool
	}{
		{"the same name", retryRecord(), good, true},
		{"the same name after a change of cipher", retryRecord(), slices.Concat(cipher, good), true},
		{"the same name after early data", retryRecord(), slices.Concat(early, cipher, early, good), true},
		{"another name", retryRecord(), evil, false},
		{"another name after early data", retryRecord(), slices.Concat(early, cipher, evil), false},
		{"no name", retryRecord(), none, false},
		{"ECH", retryRecord(), craftHello(sni("good.test"), greaseECH()), false},
		{"no hello", retryRecord(), []byte("\x16\x03\x01\x00\x04\x02\x00\x00\x00"), false},
		{"something else", retryRecord(), []byte("GET / HTTP/1.1\r\n\r\n"), false},
		{"another name, to an answer in pieces", []byte("\x16\x03\x03\x00\x01\x02\x16\x03\x03\x00\x01\x00"), evil, false},
		{"another name, to an ordinary answer", ordinary, evil, false},
		{"a key, to an ordinary answer", ordinary, key, true},
	} {
		for _, waits := range []bool{true, false} {
			name := test.name
			if !waits {
				name += ", unasked"
			}
			t.Run(name, func(t *testing.T) {
				l := newLab(t, tlsPolicy)
				reached := make(chan []byte, 1)
				l.upstream(func(c *net.TCPConn) {
					first := make([]byte, len(good))
					if _, err := io.ReadFull(c, first); err != nil {
						t.Error(err)
					}
					c.Write(test.answer)
					rest, _ := io.ReadAll(c)
					reached <- append(first, rest...)
				})
				conn := l.dial(l.synthetic("good.test"))
				conn.Write(good)
				if !waits {
					conn.Write(test.then)
				}
				if _, err := io.ReadFull(conn, make([]byte, len(test.answer))); err != nil {
					t.Fatal(err)
				}
				if waits {
					conn.Write(test.then)
				}
				conn.CloseWrite()
				got, _ := io.ReadAll(conn)
				data := <-reached
				passed := bytes.Equal(data, slices.Concat(good, test.then))
				if passed != test.passes {
					t.Errorf("% x arrives", data)
				}
				alert := []byte{21, 3, 3, 0, 2, 2, alertIllegalParameter}
				relayed := bytes.Equal(test.answer, ordinary) && len(got) == 0 // an alert could come within what the server sends
				if !test.passes && (bytes.Contains(data, []byte("evil")) || !bytes.Equal(got, alert) && !relayed) {
					t.Errorf("% x arrives, the agent gets % x", data, got)
				}
				denials := 0
				for _, r := range l.records() {
					if r == "decision deny tls good.test: "+errSecondHello.Error() || bytes.HasPrefix([]byte(r), []byte("decision deny tls good.test: "+errSecondHello.Error()+": ")) {
						denials++
					}
				}
				if (denials == 0) != test.passes {
					t.Errorf("%d denials", denials)
				}
			})
		}
	}
}

// TestRetriedHandshake: a handshake with a second hello works.
func TestRetriedHandshake(t *testing.T) {
	l := newLab(t, tlsPolicy)
	l.upstream(func(c *net.TCPConn) { tlsUpstreamWith(c, &tls.Config{CurvePreferences: []tls.CurveID{tls.CurveP256}}) })
	c := tls.Client(l.dial(l.synthetic("good.test")), &tls.Config{
		ServerName: "good.test", InsecureSkipVerify: true, CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP256},
	})
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	if !c.ConnectionState().HelloRetryRequest {
		t.Error("the server has not asked for another hello: this shows nothing")
	}
	if got, err := io.ReadAll(c); string(got) != "hello from good.test" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}
