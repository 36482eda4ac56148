package proxy

import (
	"encoding/binary"
	"fmt"
)

const (
	recordTypeChangeCipher = 0x14 // in plain, as the others (RFC 8446, 5.1)
	recordTypeData         = 0x17
	recordTypeHeartbeat    = 0x18 // RFC 6520
	clientHello            = 1    // type of the message

	// maxPlain bounds what is looked at: the longest message in plain is a certificate of the client.
	// It is less than spliceAfter, from where on nobody looks.
	maxPlain = 128 << 10
)

// plainTLS looks for a hello in what a TLS client sends behind its first one, until
// that is encrypted. No client of today sends one that it was not asked for, but
// there were servers that begin anew with it, and with its name (the "step-up" of
// export ciphers). A nil one looks at nothing.
type plainTLS struct {
	due bool // one was asked for, and was read before

	seen                int
	record, message     []byte // headers, as far as they have come
	ofRecord, ofMessage int    // bytes that are to come
	skip                bool   // the record has no messages
	ended               bool
}

// look takes the next bytes, before they are sent. Its error is errSecondHello.
func (p *plainTLS) look(b []byte) error {
	for p != nil && !p.ended && len(b) > 0 {
		n := 1
		switch {
		case p.ofRecord == 0:
			p.record = append(p.record, b[0])
			if len(p.record) == recordHeader {
				p.begin()
			}
		case p.skip:
			n = min(len(b), p.ofRecord)
			p.ofRecord -= n
		case p.ofMessage > 0:
			n = min(len(b), p.ofRecord, p.ofMessage)
			p.ofRecord -= n
			p.ofMessage -= n
		default:
			p.ofRecord--
			p.message = append(p.message, b[0])
			hello := p.message[0] == clientHello
			if hello && !p.due {
				return errSecondHello
			}
			if len(p.message) == handshakeHeader {
				p.due = p.due && !hello
				p.ofMessage = int(binary.BigEndian.Uint32(p.message) & 0xffffff)
				p.message = p.message[:0]
			}
		}
		b = b[n:]
		if p.seen += n; p.seen > maxPlain {
			return fmt.Errorf("%w, or one that does not come in %d bytes", errSecondHello, maxPlain)
		}
	}
	return nil
}

// begin reads the header of a record.
func (p *plainTLS) begin() {
	kind := p.record[0]
	// The version says nothing: servers have to ignore it (RFC 8446, 5.1). At a type that
	// there is not they have to give up (5).
	p.ended = kind <= recordTypeChangeCipher || kind >= recordTypeData && kind != recordTypeHeartbeat
	p.skip = kind != recordTypeHandshake
	p.ofRecord = int(binary.BigEndian.Uint16(p.record[3:]))
	p.record = p.record[:0]
}
