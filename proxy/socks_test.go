package proxy

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"cofferdam.dev/cofferdam/proxy/policy"
)

// TestSOCKSMessages: what is not a CONNECT without authentication to a name or an
// address is refused with the code that the protocol has for it.
func TestSOCKSMessages(t *testing.T) {
	name := func(s string) string { return "\x05\x01\x00\x03" + string(rune(len(s))) + s + "\x01\xbb" }
	const begin = "\x05\x01\x00"
	for _, test := range []struct{ name, sends, answer, reason string }{
		// The control: a good request for a name that is denied.
		{"denied", begin + name("evil.test"), "\x05\x00" + replied(2), "no rule allows it"},

		{"version 4", "\x04\x01\x01\xbb\x01\x02\x03\x04\x00", "\x00\x5b\x00\x00\x00\x00\x00\x00", "SOCKS: version 4, and only 5 is offered"},
		{"HTTP", "GET / HTTP/1.1\r\n\r\n", "", "SOCKS: no greeting of version 5"},
		{"TLS", "\x16\x03\x01", "", "SOCKS: no greeting of version 5"},
		{"passwords only", "\x05\x01\x02", "\x05\xff", "SOCKS: no offer to do without authentication"},
		{"no method", "\x05\x00", "\x05\xff", "SOCKS: no offer to do without authentication"},
		{"BIND", begin + "\x05\x02\x00\x01\x01\x02\x03\x04\x01\xbb", "\x05\x00" + replied(7), "SOCKS: another command than CONNECT"},
		{"UDP ASSOCIATE", begin + "\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00", "\x05\x00" + replied(7), "SOCKS: another command than CONNECT"},
		{"RESOLVE", begin + "\x05\xf0\x00\x03\x01a\x00\x00", "\x05\x00" + replied(7), "SOCKS: another command than CONNECT"},
		{"another version", begin + "\x04\x01\x00\x01\x01\x02\x03\x04\x01\xbb", "\x05\x00" + replied(1), "SOCKS: malformed request"},
		{"reserved", begin + "\x05\x01\x01\x01\x01\x02\x03\x04\x01\xbb", "\x05\x00" + replied(1), "SOCKS: malformed request"},
		{"type of address", begin + "\x05\x01\x00\x02\x01\x02\x03\x04\x01\xbb", "\x05\x00" + replied(8), "SOCKS: unknown type of address"},
		{"port 0", begin + "\x05\x01\x00\x01\x01\x02\x03\x04\x00\x00", "\x05\x00" + replied(1), "SOCKS: no port"},
		{"half a greeting", "\x05", "", "SOCKS: incomplete"},
		{"half a request", begin + "\x05\x01\x00\x03\x09good", "\x05\x00", "SOCKS: incomplete"},

		{"no name", begin + name(""), "\x05\x00" + replied(1), "SOCKS: empty host name"},
		{"a NUL", begin + name("good.test\x00.evil.test"), "\x05\x00" + replied(1), "SOCKS: host name has other bytes than letters, digits, hyphens, underscores and dots"},
		{"a port in the name", begin + name("good.test:80"), "\x05\x00" + replied(1), "SOCKS: host name has other bytes than letters, digits, hyphens, underscores and dots"},
		{"a number", begin + name("2130706433"), "\x05\x00" + replied(1), "SOCKS: host name ends in a number, like an IP address"},
		{"hexadecimal", begin + name("0x7f.1"), "\x05\x00" + replied(1), "SOCKS: host name ends in a number, like an IP address"},
		{"brackets", begin + name("[::1]"), "\x05\x00" + replied(1), "SOCKS: is an IP address, not a host name"},
		{"a zone", begin + name("fe80::1%lo"), "\x05\x00" + replied(1), "SOCKS: address in an unusual form"},
		{"a mapped address as text", begin + name("::ffff:127.0.0.1"), "\x05\x00" + replied(1), "SOCKS: address in an unusual form"},
		{"a mapped address", begin + "\x05\x01\x00\x04" + strings.Repeat("\x00", 10) + "\xff\xff\x7f\x00\x00\x01\x01\xbb", "\x05\x00" + replied(1), "SOCKS: address in an unusual form"},
		{"an address as text", begin + name("127.0.0.1"), "\x05\x00" + replied(2), "no rule names this address"},
	} {
		for _, say := range []func(io.Writer, string){
			func(w io.Writer, s string) { io.WriteString(w, s) },
			func(w io.Writer, s string) {
				for i := range len(s) {
					io.WriteString(w, s[i:i+1])
				}
			},
		} {
			t.Run(test.name, func(t *testing.T) {
				l := newLab(t, tlsPolicy)
				conn := l.serveTo(netip.AddrPortFrom(testGate, socksPort))
				say(conn, test.sends)
				conn.CloseWrite()
				if got, _ := io.ReadAll(conn); string(got) != test.answer {
					t.Errorf("got % x, want % x", got, test.answer)
				}
				conn.Close()
				records := l.records()
				if len(records) != 1 || !strings.Contains(records[0], " deny ") || !strings.Contains(records[0], ": "+test.reason) {
					t.Errorf("records %q", records)
				}
			})
		}
	}
}

func replied(code byte) string { return string(socksReply(code)) }

func TestSOCKSFailures(t *testing.T) {
	for _, test := range []struct {
		err  error
		code byte
	}{
		{fmt.Errorf("dial: %w", syscall.ECONNREFUSED), socksRefused},
		{fmt.Errorf("dial: %w", syscall.ENETUNREACH), socksNetUnreachable},
		{fmt.Errorf("dial: %w", syscall.EHOSTUNREACH), socksHostUnreachable},
		{fmt.Errorf("dial: %w", os.ErrDeadlineExceeded), socksHostUnreachable},
		{fmt.Errorf("%w: no such host", errResolve), socksHostUnreachable},
		{errors.New("dial: no address"), socksFailure},
	} {
		if got := (socksFront{}).failed(question{}, test.err); got[1] != test.code {
			t.Errorf("%v: reply %d, want %d", test.err, got[1], test.code)
		}
	}
	if got := (socksFront{}).refused(question{}, policy.Decision{}); got[1] != socksDenied {
		t.Errorf("a denial is reply %d", got[1])
	}
}
