package proxy

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"time"

	"cofferdam.dev/cofferdam/proxy/policy"
)

// extensionECH is encrypted_client_hello (RFC 9849): the name that counts is
// inside, where only the server can read it. Browsers send a meaningless one
// (GREASE) that is made to look the same, beside the name that does count.
const extensionECH = 0xfe0d

// extensionsHiding are those that hide the name, the drafts that servers have
// spoken too: encrypted_server_name, and encrypted_client_hello before its RFC.
var extensionsHiding = []uint16{extensionECH, 0xffce, 0xff02, 0xff03, 0xfe08, 0xfe09, 0xfe0a, 0xfe0b, 0xfe0c}

// hello is what the first message of a TLS client says.
type hello struct {
	name    policy.Name // zero if there is none; with ech maybe not the one that counts
	problem string      // why it cannot be judged by its name; empty if it can
	unnamed bool        // it has no server name at all
	ech     bool        // it has an encrypted client hello
	alert   byte        // the answer to the problem
}

// readHello reads the rest of the hello that begins in p.data.
//
// The parser is that of crypto/tls, driven as a server that stops at the first
// message: it puts fragments and records together, and refuses repeated
// extensions and names. What it read stays in p.data to be sent on as it is.
func readHello(p *peeker) hello {
	in := &recordingConn{p: p}
	var info *tls.ClientHelloInfo
	stop := errors.New("hello is complete")
	err := tls.Server(in, &tls.Config{
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			info = h
			return nil, stop
		},
	}).Handshake()
	var timeout net.Error
	odd, isOdd := oddHello(p.data)
	malformed := hello{problem: "malformed TLS hello", alert: alertDecodeError}
	switch {
	case info != nil && !errors.Is(err, stop):
		return malformed
	case info != nil && isOdd:
		return odd
	case info != nil:
		return judgeHello(info)
	case in.full:
		return hello{problem: "TLS hello longer than 16 KiB", alert: alertDecodeError}
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return hello{problem: "incomplete TLS hello", alert: alertDecodeError}
	case isOdd:
		return odd
	default:
		return malformed
	}
}

func judgeHello(info *tls.ClientHelloInfo) hello {
	h := hello{ech: slices.ContainsFunc(info.Extensions, func(e uint16) bool { return slices.Contains(extensionsHiding, e) })}
	if info.ServerName == "" {
		h.problem, h.unnamed, h.alert = "TLS without server name", true, alertMissingExtension
		return h
	}
	var err error
	if h.name, err = policy.ParseWireName(info.ServerName); err != nil {
		h.problem, h.alert = "TLS server name: "+err.Error(), alertIllegalParameter
	}
	return h
}

// recordingConn reads what was peeked and then more, which it adds to what was
// peeked. What is written to it, alerts, goes nowhere.
type recordingConn struct {
	p    *peeker
	off  int  // bytes of p.data that were read again
	full bool // the cap was reached
}

func (r *recordingConn) Read(b []byte) (int, error) {
	if r.off < len(r.p.data) {
		n := copy(b, r.p.data[r.off:])
		r.off += n
		return n, nil
	}
	room := maxPeek - r.off
	if room <= 0 {
		r.full = true
		return 0, errors.New("hello is too long")
	}
	b = b[:min(len(b), room)]
	n, err := r.p.from.Read(b)
	r.p.data = append(r.p.data, b[:n]...)
	r.off += n
	return n, err
}

func (r *recordingConn) Write(b []byte) (int, error)      { return len(b), nil }
func (r *recordingConn) Close() error                     { return nil }
func (r *recordingConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (r *recordingConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (r *recordingConn) SetDeadline(time.Time) error      { return nil }
func (r *recordingConn) SetReadDeadline(time.Time) error  { return nil }
func (r *recordingConn) SetWriteDeadline(time.Time) error { return nil }
