package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

const (
	recordHeader      = 5                   // type, version, length (RFC 8446, 5.1)
	maxRecord         = 1<<14 + 256         // 5.2
	handshakeHeader   = 4                   // type, length (4)
	serverHello       = 2                   // type of the message
	serverHelloRandom = handshakeHeader + 2 // after the version (4.1.3)
)

// helloRetryRequest is the random of a ServerHello that asks for another hello
// (RFC 8446, 4.1.3).
var helloRetryRequest = []byte{
	0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
	0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
}

// errSecondHello is returned for a second hello that is not like the first.
var errSecondHello = errors.New("a second TLS hello that differs from the first")

// greet carries a TLS connection to the point from where on nobody can read its
// names. A server may answer the hello that was decided about by asking for
// another one, and servers exist that take the name from that. So nothing of the
// agent but its first hello passes until the server has answered; if it asks, the
// second hello is read like the first, and must have the same name. Any other is
// refused by the relay, as long as it can be read.
func (c *conn) greet(upstream *net.TCPConn, r *relay) error {
	deadline := time.Now().Add(c.s.timeouts.identify)
	c.tcp.SetDeadline(deadline)
	upstream.SetDeadline(deadline)
	first, err := c.take(firstMessage)
	if err != nil {
		return fmt.Errorf("TLS hello: %w", err)
	}
	if err := r.send(upstream, first, &r.up, r.spendUp); err != nil {
		return err
	}
	stop := c.hold(upstream, r)
	retry, err := c.firstAnswer(upstream, r)
	stop()
	if err != nil {
		return err
	}
	c.tcp.SetDeadline(deadline)
	r.plain = &plainTLS{}
	if retry {
		if err := c.secondHello(upstream, r); err != nil {
			return err
		}
		r.plain.due = true
	}
	c.tcp.SetDeadline(time.Time{})
	upstream.SetDeadline(time.Time{})
	return nil
}

// hold reads what the agent sends on into c.peeked, as far as there is room, until
// stop is called. If the agent has nothing more to say the upstream learns that
// at once: no second hello can come.
func (c *conn) hold(upstream *net.TCPConn, r *relay) (stop func()) {
	done := make(chan struct{})
	go func() { // ends at stop
		defer close(done)
		buf := make([]byte, 4096)
		for len(c.peeked) < maxPeek {
			n, err := c.tcp.Read(buf)
			c.peeked = append(c.peeked, buf[:n]...)
			if errors.Is(err, io.EOF) && len(c.peeked) == 0 {
				r.upEnded = upstream.CloseWrite() == nil
			}
			if err != nil {
				return
			}
		}
	}()
	return func() {
		c.tcp.SetReadDeadline(time.Unix(1, 0))
		<-done
	}
}

// firstMessage returns the length of the records that hold the first handshake
// message, 0 if they are still to come. No other message may follow in the last
// of them.
func firstMessage(b []byte) (int, error) {
	var message []byte
	for at := 0; ; {
		n, err := recordLength(b[at:])
		if n == 0 || err != nil {
			return 0, err
		}
		if b[at] != recordTypeHandshake {
			return 0, errors.New("another record within it")
		}
		message = append(message, b[at+recordHeader:at+n]...)
		at += n
		if len(message) < handshakeHeader {
			continue
		}
		switch length := handshakeHeader + int(binary.BigEndian.Uint32(message)&0xffffff); {
		case len(message) == length:
			return at, nil
		case len(message) > length:
			return 0, errors.New("another message behind it")
		}
	}
}

// recordLength returns the length of the record at the beginning of b with its
// header, 0 if it is not whole.
func recordLength(b []byte) (int, error) {
	if len(b) < recordHeader {
		return 0, nil
	}
	n := int(binary.BigEndian.Uint16(b[3:]))
	if n == 0 || n > maxRecord {
		return 0, fmt.Errorf("a record of %d bytes", n)
	}
	if len(b) < recordHeader+n {
		return 0, nil
	}
	return recordHeader + n, nil
}

// firstAnswer passes on what the server sends until it is clear whether it asks
// for another hello.
func (c *conn) firstAnswer(upstream *net.TCPConn, r *relay) (retry bool, err error) {
	var seen []byte
	buf := make([]byte, 4096)
	for {
		n, readErr := upstream.Read(buf)
		seen = append(seen, buf[:n]...)
		if err := r.send(c.tcp, buf[:n], &r.down, r.spendDown); err != nil {
			return false, err
		}
		switch asksAgain(seen) {
		case yes:
			return true, nil
		case no:
			return false, nil
		}
		if readErr != nil {
			return false, readErr
		}
	}
}

// asksAgain reports whether what a server sent begins with a HelloRetryRequest. A
// beginning that is cut in pieces too small to tell is taken for one.
func asksAgain(b []byte) ternary {
	if len(b) < recordHeader {
		return undecided
	}
	message := b[recordHeader:]
	length := int(binary.BigEndian.Uint16(b[3:]))
	switch {
	case b[0] != recordTypeHandshake:
		return no // an alert
	case length < serverHelloRandom+len(helloRetryRequest):
		return yes
	case len(message) < serverHelloRandom+len(helloRetryRequest):
		return undecided
	case message[0] == serverHello && !bytes.Equal(message[serverHelloRandom:][:len(helloRetryRequest)], helloRetryRequest):
		return no
	default:
		return yes
	}
}

// secondHello passes the agent's records on up to its next hello, which it reads
// and leaves in c.peeked. Before it may come early data that the server skips,
// and a change of cipher that means nothing (RFC 8446, 4.2.10 and D.4).
func (c *conn) secondHello(upstream *net.TCPConn, r *relay) error {
	errHello := errors.New("a hello")
	for {
		record, err := c.take(func(b []byte) (int, error) {
			if b[0] == recordTypeHandshake {
				return 0, errHello
			}
			return recordLength(b)
		})
		if errors.Is(err, errHello) {
			break
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errSecondHello, err)
		}
		if err := r.send(upstream, record, &r.up, r.spendUp); err != nil {
			return err
		}
	}
	_, second := c.peek(c.s.timeouts.peek)
	if second.name != c.hello.name || second.unnamed != c.hello.unnamed || second.ech != c.hello.ech || second.problem != c.hello.problem {
		return errSecondHello
	}
	return nil
}

// cut ends a connection whose agent breaks the rule's protocol: with a denial of
// its own, made like any other.
func (c *conn) cut(q question, upstream *net.TCPConn, problem error) {
	abort(upstream)
	q.problem, q.alert, q.connection = problem.Error(), alertIllegalParameter, false // counted
	c.deny(q, c.s.decide(q))
}
