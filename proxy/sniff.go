package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"cofferdam.dev/cofferdam/proxy/policy"
)

// maxPeek bounds what is read of a connection before it is decided. A hello with
// post-quantum keys has about 2 KiB.
const maxPeek = 16 << 10

// recordTypeHandshake is the first byte of every TLS connection (RFC 8446, 5.1).
const recordTypeHandshake = 0x16

// peek looks at the beginning of what the agent sends, for as long as timeout.
// What was read stays in c.peeked.
func (c *conn) peek(timeout time.Duration) (policy.Protocol, hello) {
	c.tcp.SetReadDeadline(time.Now().Add(timeout))
	defer c.tcp.SetReadDeadline(time.Time{})
	p := peeker{from: c.tcp, data: c.peeked}
	defer func() { c.peeked = p.data }()
	return p.peek()
}

// take reads on until parse finds the end of what it looks for, and moves that
// from c.peeked to the caller. parse gets all that was read so far and returns the length of
// what it found, or 0 if it needs more. The caller sets the deadline.
func (c *conn) take(parse func([]byte) (int, error)) ([]byte, error) {
	buf := make([]byte, 4096)
	for {
		if len(c.peeked) > 0 {
			n, err := parse(c.peeked)
			if err != nil {
				return nil, err
			}
			if n > 0 {
				taken := c.peeked[:n:n]
				c.peeked = c.peeked[n:]
				return taken, nil
			}
		}
		if len(c.peeked) > maxPeek {
			return nil, fmt.Errorf("longer than %d bytes", maxPeek)
		}
		n, err := c.tcp.Read(buf)
		if c.peeked = append(c.peeked, buf[:n]...); n > 0 {
			continue
		}
		if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
			return nil, errors.New("incomplete when the time was up")
		}
		return nil, errors.New("incomplete")
	}
}

// peeker keeps all that it reads.
type peeker struct {
	from io.Reader
	data []byte
}

// peek reads until it is clear what the bytes are, or no more come. It returns
// TLS with the hello, HTTP, or TCP for anything else, silence too.
func (p *peeker) peek() (policy.Protocol, hello) {
	buf := make([]byte, 4096)
	for {
		if len(p.data) > 0 && p.data[0] == recordTypeHandshake {
			return policy.TLS, readHello(p)
		}
		switch startOfHTTP(p.data) {
		case yes:
			return policy.HTTP, hello{}
		case no:
			return policy.TCP, hello{}
		}
		n, err := p.from.Read(buf)
		if p.data = append(p.data, buf[:n]...); n == 0 && err != nil {
			return policy.TCP, hello{}
		}
	}
}

type ternary uint8

const (
	no ternary = iota
	yes
	undecided
)

// startOfHTTP reports whether the bytes begin like a request line: a method of
// upper-case letters and a space. The methods that are registered with IANA have
// at most 17 letters.
func startOfHTTP(b []byte) ternary {
	for i, c := range b {
		switch {
		case c == ' ' && i > 0:
			return yes
		case i >= 20 || (c < 'A' || c > 'Z') && c != '-':
			return no
		}
	}
	return undecided
}
