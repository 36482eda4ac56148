package proxy

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"

	"cofferdam.dev/cofferdam/proxy/policy"
)

// Replies of SOCKS5 (RFC 1928, 6).
const (
	socksGranted         = 0
	socksFailure         = 1 // general; also what is malformed
	socksDenied          = 2
	socksNetUnreachable  = 3
	socksHostUnreachable = 4 // also a name that does not resolve, and no answer in time
	socksRefused         = 5
	socksNoCommand       = 7
	socksNoAddressType   = 8
)

// serveSOCKS is the SOCKS5 proxy: CONNECT without authentication.
//
// The order is that of serveConnect: what name and port decide comes as the reply
// 2, and where a rule expects ssh or tcp the reply tells how the dial went. Where
// it expects TLS or HTTP the reply is success, and the rest is said inside.
func (c *conn) serveSOCKS(ctx context.Context) {
	c.via = viaSOCKS
	t, err := c.readSOCKS()
	if err != nil {
		q := c.question(policy.TCP, policy.Name{})
		q.problem = "SOCKS: " + err.Error()
		if e, ok := errors.AsType[*socksError](err); ok {
			c.front = socksFront{refusal: e.answer}
		}
		c.deny(q, c.s.decide(q))
		return
	}
	c.tunnelTo(ctx, socksFront{}, t)
}

// readSOCKS reads up to the request, and answers the greeting.
func (c *conn) readSOCKS() (t target, err error) {
	c.tcp.SetDeadline(time.Now().Add(c.s.timeouts.peek))
	defer c.tcp.SetDeadline(time.Time{})
	if _, err := c.take(socksGreeting); err != nil {
		return target{}, err
	}
	c.tcp.Write([]byte{5, 0}) // no authentication
	_, err = c.take(func(b []byte) (n int, err error) {
		t, n, err = socksRequest(b)
		return n, err
	})
	return t, err
}

// socksError is what is wrong with a message, and the answer to it.
type socksError struct {
	reason string
	answer []byte
}

func (e *socksError) Error() string { return e.reason }

// socksReply is a reply. The bound address, which it has to give, says nothing:
// there may be none yet, and it is not the agent's to know.
func socksReply(code byte) []byte { return []byte{5, code, 0, 1, 0, 0, 0, 0, 0, 0} }

func socksProblem(code byte, reason string) *socksError {
	return &socksError{reason, socksReply(code)}
}

// socksGreeting returns the length of a greeting (RFC 1928, 3), or 0 if it is not
// whole.
func socksGreeting(b []byte) (int, error) {
	switch {
	case len(b) == 0:
		return 0, nil
	case b[0] == 4:
		return 0, &socksError{"version 4, and only 5 is offered", []byte{0, 0x5b, 0, 0, 0, 0, 0, 0}}
	case b[0] != 5:
		return 0, errors.New("no greeting of version 5")
	case len(b) < 2 || len(b) < 2+int(b[1]):
		return 0, nil
	case bytes.IndexByte(b[2:2+int(b[1])], 0) < 0:
		return 0, &socksError{"no offer to do without authentication", []byte{5, 0xff}}
	}
	return 2 + int(b[1]), nil
}

// socksRequest reads a request (RFC 1928, 4) and returns its length, or 0 if it
// is not whole.
func socksRequest(b []byte) (t target, n int, err error) {
	if len(b) < 5 {
		return target{}, 0, nil
	}
	switch {
	case b[0] != 5 || b[2] != 0:
		return target{}, 0, socksProblem(socksFailure, "malformed request")
	case b[1] != 1:
		return target{}, 0, socksProblem(socksNoCommand, "another command than CONNECT")
	}
	at := 4 // where the address begins
	switch b[3] {
	case 1:
		n = at + 4
	case 3:
		at = 5
		n = at + int(b[4])
	case 4:
		n = at + 16
	default:
		return target{}, 0, socksProblem(socksNoAddressType, "unknown type of address")
	}
	if len(b) < n+2 {
		return target{}, 0, nil
	}
	host := string(b[at:n])
	if b[3] != 3 {
		addr, _ := netip.AddrFromSlice(b[at:n])
		host = addr.String()
	}
	if t.name, t.addr, err = parseHost(host); err != nil {
		return target{}, 0, socksProblem(socksFailure, err.Error())
	}
	if t.port = binary.BigEndian.Uint16(b[n:]); t.port == 0 {
		return target{}, 0, socksProblem(socksFailure, "no port")
	}
	return t, n + 2, nil
}

// socksFront answers a SOCKS5 request.
type socksFront struct{ refusal []byte } // nil if the request was understood

func (socksFront) granted() []byte { return socksReply(socksGranted) }

func (f socksFront) refused(question, policy.Decision) []byte {
	if f.refusal != nil {
		return f.refusal
	}
	return socksReply(socksDenied)
}

func (socksFront) failed(_ question, err error) []byte {
	code := byte(socksFailure)
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		code = socksRefused
	case errors.Is(err, syscall.ENETUNREACH):
		code = socksNetUnreachable
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, errResolve), errors.As(err, &timeout) && timeout.Timeout():
		code = socksHostUnreachable
	}
	return socksReply(code)
}
