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
// that looks the same.
const extensionECH = 0xfe0d

// hello is what the first message of a TLS client says.
type hello struct {
	name    policy.Name // zero if there is none
	problem string      // why it cannot be judged by its name; empty if it can
	unnamed bool        // it has no server name at all
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
	switch {
	case info != nil && !errors.Is(err, stop):
		return hello{problem: "malformed TLS hello"}
	case info != nil:
		return judgeHello(info)
	case in.full:
		return hello{problem: "TLS hello longer than 16 KiB"}
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return hello{problem: "incomplete TLS hello"}
	default:
		return hello{problem: "malformed TLS hello"}
	}
}

func judgeHello(info *tls.ClientHelloInfo) hello {
	if slices.Contains(info.Extensions, extensionECH) {
		return hello{problem: "TLS with an encrypted client hello (ECH)"}
	}
	if info.ServerName == "" {
		return hello{problem: "TLS without server name", unnamed: true}
	}
	name, err := policy.ParseWireName(info.ServerName)
	if err != nil {
		return hello{problem: "TLS server name: " + err.Error()}
	}
	return hello{name: name}
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
