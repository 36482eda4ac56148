package proxy

import (
	"errors"
	"testing"
)

// TestPlainTLS finds a hello wherever it stands behind the first one, in whatever pieces it comes, and none where nobody would look for one.
func TestPlainTLS(t *testing.T) {
	hello := craftHello(sni("evil.test"))
	handshake := func(b ...byte) []byte { return append([]byte{recordTypeHandshake, 3, 3, 0, byte(len(b))}, b...) }
	join := func(all ...[]byte) (b []byte) {
		for _, one := range all {
			b = append(b, one...)
		}
		return b
	}
	key, certificate := handshake(16, 0, 0, 2, 1, 1), handshake(11, 0, 0, 1, clientHello)
	change, data := []byte{recordTypeChangeCipher, 3, 3, 0, 1, 1}, []byte{recordTypeData, 3, 3, 0, 2, 1, 1}
	for _, test := range []struct {
		name  string
		due   bool
		bytes []byte
		bad   bool
	}{
		{"a hello", false, hello, true},
		{"one that is due", true, hello, false},
		{"one more than is due", true, join(hello, hello), true},
		{"behind a certificate", false, join(certificate, hello), true},
		{"behind another message in its record", false, handshake(16, 0, 0, 1, 9, clientHello), true},
		{"behind a message in two records", false, join(handshake(16, 0), handshake(0, 1), handshake(9), hello), true},
		{"behind a warning", false, join([]byte{0x15, 3, 3, 0, 2, 1, 90}, hello), true},
		{"behind an empty record", false, join(handshake(), hello), true},
		{"of another version", false, join([]byte{0x15, 0, 9, 0, 2, 1, 90}, []byte{recordTypeHandshake, 9}, hello[2:]), true},
		{"behind a heartbeat", false, join([]byte{recordTypeHeartbeat, 3, 3, 0, 1, 1}, hello), true},
		{"a key", false, join(certificate, key, change, hello), false},
		{"early data", false, join(data, hello), false},
		{"no TLS", false, append([]byte("GET / HTTP/1.1\r\n\r\n"), hello...), false},
	} {
		for _, size := range []int{1, 2, 3, 7, len(test.bytes)} {
			p := &plainTLS{due: test.due}
			var err error
			for b := test.bytes; len(b) > 0 && err == nil; b = b[min(size, len(b)):] {
				err = p.look(b[:min(size, len(b))])
			}
			if errors.Is(err, errSecondHello) != test.bad {
				t.Errorf("%s, in pieces of %d bytes: got %v", test.name, size, err)
			}
		}
	}

	endless := append([]byte{recordTypeHandshake, 3, 3, 0x40, 0, 11, 0xff, 0xff, 0xff}, make([]byte, 0x3ffc)...)
	p, sent := &plainTLS{}, 0
	for err := error(nil); err == nil; sent += len(endless) {
		if sent > spliceAfter {
			t.Fatal("plain messages without an end are not refused before they are spliced")
		}
		err = p.look(endless)
	}
}
