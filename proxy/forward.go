package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"cofferdam.dev/cofferdam/proxy/policy"
)

// serveForward is the HTTP proxy. The first request says what the connection is:
// CONNECT makes it a tunnel, anything else must be in absolute form and is
// decided request by request, each by its own target.
func (c *conn) serveForward(ctx context.Context) {
	protocol, _ := c.peek(c.s.timeouts.peek)
	switch {
	case protocol != policy.HTTP:
		q := c.question(protocol, policy.Name{})
		q.problem = "no HTTP request to the HTTP proxy"
		c.deny(q, c.s.decide(q))
	case bytes.HasPrefix(c.peeked, []byte("CONNECT ")):
		c.via = viaConnect
		c.serveConnect(ctx)
	default:
		c.via = viaAbsolute
		c.serveHTTP(ctx, true)
	}
}

// serveConnect serves a tunnel (RFC 9110, 9.3.6).
//
// What can be decided by name and port alone is, before the answer: a denial is a
// 403, and where a rule expects ssh or tcp an upstream that is down is a 502. Where
// it expects TLS or HTTP the client speaks only after a 200, so the rest is said
// inside the tunnel, by a TLS alert or an HTTP answer. Bytes that the client sends
// behind the head without waiting are the first ones of the tunnel.
func (c *conn) serveConnect(ctx context.Context) {
	c.tcp.SetReadDeadline(time.Now().Add(c.s.timeouts.peek))
	head, err := c.take(headEnd)
	c.tcp.SetReadDeadline(time.Time{})
	var r connectRequest
	if err == nil {
		r, err = parseConnect(string(head))
	}
	if err != nil {
		c.front = connectFront{host: strconv.QuoteToASCII(r.authority), accept: r.accept, malformed: true}
		q := c.question(policy.HTTP, policy.Name{})
		q.problem = "CONNECT: " + err.Error()
		c.deny(q, c.s.decide(q))
		return
	}
	c.tunnelTo(ctx, connectFront{host: r.target.String(), accept: r.accept}, r.target)
}

// connectFront answers a CONNECT.
type connectFront struct {
	host, accept string
	malformed    bool
}

func (connectFront) granted() []byte { return []byte("HTTP/1.1 200 Connection established\r\n\r\n") }

func (f connectFront) refused(q question, d policy.Decision) []byte {
	r := deniedBy(q, f.host, d)
	if f.malformed {
		r.Error = isMalformed
	}
	return r.response(f.accept)
}

func (f connectFront) failed(_ question, err error) []byte {
	return unreachable(f.host, err).response(f.accept)
}

// connectRequest is the head of a CONNECT request, as far as it matters.
type connectRequest struct {
	authority string // as it was sent
	target    target
	accept    string
}

// headEnd returns the length of the head of a request with the empty line that
// ends it, or 0 if that is still to come. Lines end in CR LF and nothing else.
func headEnd(b []byte) (int, error) {
	line := 0 // its beginning
	for {
		i := bytes.IndexByte(b[line:], '\n')
		switch {
		case i < 0:
			return 0, nil
		case i == 0 || b[line+i-1] != '\r':
			return 0, errors.New("a line that does not end in CR LF")
		case i == 1:
			return line + 2, nil
		}
		line += i + 1
	}
}

// parseConnect reads a whole head. It takes one reading of what RFC 9112 allows
// and none of what it tolerates: the target is host and port, both given (3.2.3);
// Host, if there is one, says the same; there is no body and nothing that
// announces one.
func parseConnect(head string) (r connectRequest, err error) {
	line, fields, _ := strings.Cut(head, "\r\n")
	words := strings.Split(line, " ")
	if len(words) != 3 || words[0] != "CONNECT" || words[2] != "HTTP/1.1" && words[2] != "HTTP/1.0" {
		return r, errors.New("malformed request line")
	}
	r.authority = words[1][:min(len(words[1]), 255)]
	if r.target, err = parseTarget(words[1]); err != nil {
		return r, err
	}
	hosts := 0
	for field := range strings.SplitSeq(strings.TrimSuffix(fields, "\r\n\r\n"), "\r\n") {
		if field == "" {
			continue // there is no field at all
		}
		name, value, ok := strings.Cut(field, ":")
		value = strings.Trim(value, " \t")
		if !ok || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return r, errors.New("malformed header")
		}
		switch strings.ToLower(name) {
		case "content-length", "transfer-encoding":
			return r, fmt.Errorf("with %s", name)
		case "accept":
			r.accept += "," + value
		case "host":
			if hosts++; hosts > 1 {
				return r, errors.New("two Host headers")
			}
			if err := r.target.agrees(value); err != nil {
				return r, fmt.Errorf("header Host: %w", err)
			}
		}
	}
	return r, nil
}

// agrees says what is wrong with a Host header beside the target. It may omit the
// port, as some clients do.
func (t target) agrees(value string) error {
	host, port, err := splitHostPort(value)
	if err != nil {
		return err
	}
	name, addr, err := parseHost(host)
	switch {
	case err != nil:
		return err
	case name != t.name || addr != t.addr || port != 0 && port != t.port:
		return errors.New("another host than the target")
	}
	return nil
}
