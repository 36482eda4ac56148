package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Bounds of what precedes the key exchange (RFC 4253, 4.2).
const (
	maxSSHLine   = 255      // of an identification, CR LF included
	maxSSHBefore = 16 << 10 // of the lines that a server may send before its own
)

// errNotSSH is returned for an agent whose first line is no identification.
var errNotSSH = errors.New("the agent does not speak SSH")

// identify sees to it that both sides of an ssh rule speak SSH: each has to send
// its identification line before anything else passes. Either may begin.
//
// The agent's line is held until it is whole and right, and what follows it until
// the server's is: so a server that is none gets one line of at most 255 bytes,
// and an agent cannot have a raw connection from it. The server's bytes are
// passed on as they come, the lines that it may send before its own too, up to a
// bound. Nothing is waited for that a client would not wait for itself, but for
// one that sends its key exchange unasked; that arrives with the server's line.
//
// What was read of the agent and not sent on is left in c.peeked.
func (c *conn) identify(upstream *net.TCPConn, r *relay) error {
	deadline := time.Now().Add(c.s.timeouts.identify)
	c.tcp.SetDeadline(deadline)
	upstream.SetDeadline(deadline)
	var once sync.Once
	var failure error
	fail := func(err error) {
		once.Do(func() {
			failure = err
			c.tcp.SetDeadline(time.Unix(1, 0)) // the other direction has nothing to wait for
			upstream.SetDeadline(time.Unix(1, 0))
		})
	}
	var both sync.WaitGroup
	both.Go(func() {
		line, err := c.agentIdentity()
		if err != nil {
			fail(err)
			return
		}
		if err := r.send(upstream, line, &r.up, r.spendUp); err != nil {
			fail(err)
		}
	})
	both.Go(func() {
		if err := c.serverIdentity(upstream, r); err != nil {
			fail(err)
		}
	})
	both.Wait()
	if failure == nil {
		c.tcp.SetDeadline(time.Time{})
		upstream.SetDeadline(time.Time{})
	}
	return failure
}

// agentIdentity reads the agent's identification line and takes it from
// c.peeked.
func (c *conn) agentIdentity() ([]byte, error) {
	line, err := c.take(func(b []byte) (int, error) { return sshIdentity(b, "SSH-2.0-") })
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotSSH, err)
	}
	return line, nil
}

// serverIdentity passes on what the server sends until its identification line
// is whole.
func (c *conn) serverIdentity(upstream *net.TCPConn, r *relay) error {
	const problem = "the server does not speak SSH"
	var seen []byte
	buf := make([]byte, 4096)
	for {
		n, readErr := upstream.Read(buf)
		seen = append(seen, buf[:n]...)
		end, err := sshGreeting(seen)
		if err != nil {
			return fmt.Errorf("%s: %w", problem, err)
		}
		err = r.send(c.tcp, buf[:n], &r.down, r.spendDown)
		switch {
		case err != nil:
			return err
		case end > 0:
			return nil
		case errors.Is(readErr, io.EOF):
			return errors.New(problem + ": it ended before its identification")
		case readErr != nil:
			return fmt.Errorf("%s: %w", problem, readErr)
		}
	}
}

// sshGreeting returns the length of what a server sends up to the end of its
// identification line, or 0 if that is still to come. Other lines may precede it,
// but none that begins with "SSH-".
func sshGreeting(b []byte) (int, error) {
	for at := 0; at <= maxSSHBefore; {
		line := b[at:]
		if bytes.HasPrefix(line, []byte("SSH-")) {
			prefix := "SSH-2.0-"
			if len(line) > 4 && line[4] == '1' {
				prefix = "SSH-1.99-" // speaks 2.0 as well (RFC 4253, 5.1)
			}
			n, err := sshIdentity(line, prefix)
			if n > 0 {
				n += at
			}
			return n, err
		}
		end := bytes.IndexByte(line, '\n') + 1
		if end == 0 && len(b) <= maxSSHBefore {
			return 0, nil
		} else if end == 0 {
			break
		}
		at += end
	}
	return 0, fmt.Errorf("no identification in the first %d bytes", maxSSHBefore)
}

// sshIdentity returns the length of the identification line at the beginning of
// b, or 0 if it may still become one: the prefix, then printable characters, and
// LF with or without CR (RFC 4253, 5.1: old implementations omit it).
func sshIdentity(b []byte, prefix string) (int, error) {
	for i, c := range b {
		switch {
		case i < len(prefix):
			if c != prefix[i] {
				return 0, errors.New("no line of SSH-2.0")
			}
		case c == '\n':
			if end := bytes.TrimSuffix(b[:i], []byte{'\r'}); len(end) == len(prefix) {
				return 0, errors.New("no software version")
			}
			return i + 1, nil
		case i+1 >= maxSSHLine:
			return 0, fmt.Errorf("longer than %d bytes", maxSSHLine)
		case i > 0 && b[i-1] == '\r', c != '\r' && (c < ' ' || c > '~'):
			return 0, errors.New("other than printable characters")
		}
	}
	return 0, nil
}
