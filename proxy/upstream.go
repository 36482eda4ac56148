package proxy

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"cofferdam.dev/cofferdam/proxy/policy"
)

// maxProxyHead bounds the head of an HTTP proxy's answer in bytes.
const maxProxyHead = 16 << 10

// through connects to what a question is about through the upstream proxy: to
// q.Addr if it is valid, which a rule pins then, else to q.Name. The HTTP proxy is
// the administrator's word: the policy says nothing about its address, which may
// be private. What it is told is decided once more right before. The connection
// that comes back holds the tunnel's bytes from the first one on.
func (s *Server) through(ctx context.Context, q question) (*net.TCPConn, error) {
	conn, err := s.dialProxy(ctx)
	if err != nil {
		return nil, err
	}
	// The end of ctx, which has a deadline, ends the wait for the answer too.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	err = s.requestTunnel(conn, q)
	if !stop() {
		err = context.Cause(ctx)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = os.ErrDeadlineExceeded
	}
	if err != nil {
		conn.Close()
		return nil, cause(err)
	}
	return conn, nil
}

// dialProxy connects to the upstream proxy itself.
func (s *Server) dialProxy(ctx context.Context) (*net.TCPConn, error) {
	p := s.cfg.Proxy
	var addrs []netip.Addr
	if addr, err := netip.ParseAddr(p.Host); err == nil {
		addrs = []netip.Addr{addr}
	} else {
		name, err := policy.ParseWireName(p.Host)
		if err != nil {
			return nil, err
		}
		if addrs, err = s.lookup(ctx, name); err != nil {
			return nil, err
		}
	}
	return race(ctx, s.timeouts.stagger, addrs[:min(len(addrs), maxTargets)], func(ctx context.Context, addr netip.Addr) (*net.TCPConn, error) {
		return s.connect(ctx, netip.AddrPortFrom(addr, p.Port), func(string) error { return nil })
	}, func(c *net.TCPConn) { c.Close() })
}

// requestTunnel decides, asks for a tunnel, and reads the answer to its last byte
// (RFC 9110, 9.3.6).
func (s *Server) requestTunnel(conn *net.TCPConn, q question) error {
	if d := s.decide(q); d.Verdict != policy.Allow {
		return &denied{d}
	}
	host := q.Name.String()
	if q.Addr.IsValid() {
		host = q.Addr.String()
	}
	target := net.JoinHostPort(host, strconv.Itoa(int(q.Port)))
	head := "CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\n"
	secret := string(s.cfg.Proxy.Credentials)
	if secret != "" {
		head += "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(secret)) + "\r\n"
	}
	if _, err := io.WriteString(conn, head+"\r\n"); err != nil {
		return err
	}
	status, err := readTunnelHead(conn)
	switch {
	case err != nil:
		return err
	case status/100 == 2:
		return nil
	case status == http.StatusProxyAuthRequired && secret == "":
		return errors.New("it wants credentials (407)")
	case status == http.StatusProxyAuthRequired:
		return errors.New("it does not accept the credentials (407)")
	}
	// Not in its own words, which may be anything.
	return errors.New(strings.TrimSpace(fmt.Sprintf("it answers %d %s", status, http.StatusText(status))))
}

var (
	errNotHTTP  = errors.New("it does not answer in HTTP/1")
	errLongHead = errors.New("the head of its answer is too long")
	errShort    = errors.New("it closed the connection instead of answering")
)

// readTunnelHead reads the head of an answer to CONNECT and not one byte more:
// what follows belongs to the tunnel, whose server may speak first. A head is
// short and comes once per connection, so that it may be read byte by byte.
func readTunnelHead(r io.Reader) (status int, err error) {
	left := maxProxyHead
	line, err := readLine(r, &left)
	if err != nil {
		return 0, err
	}
	if status, err = parseStatusLine(line); err != nil {
		return 0, err
	}
	for {
		switch line, err = readLine(r, &left); {
		case err != nil:
			return 0, err
		case line == "":
			return status, nil
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return 0, errNotHTTP
		}
	}
}

// parseStatusLine reads HTTP/1.x SP 3DIGIT, and a reason or nothing after it
// (RFC 9112, 4).
func parseStatusLine(line string) (status int, err error) {
	rest, ok := strings.CutPrefix(line, "HTTP/1.1 ")
	if !ok {
		rest, ok = strings.CutPrefix(line, "HTTP/1.0 ")
	}
	code, reason, _ := strings.Cut(rest, " ")
	n, err := strconv.ParseUint(code, 10, 16)
	if !ok || err != nil || len(code) != 3 || n < 100 || n > 599 || !httpguts.ValidHeaderFieldValue(reason) {
		return 0, errNotHTTP
	}
	return int(n), nil
}

// readLine reads a line that ends in CR LF, without them, out of a budget of
// bytes. A line feed alone is no end of a line, but an error.
func readLine(r io.Reader, left *int) (string, error) {
	var line []byte
	var b [1]byte
	for ; *left > 0; *left-- {
		if _, err := io.ReadFull(r, b[:]); errors.Is(err, io.EOF) {
			return "", errShort
		} else if err != nil {
			return "", err
		}
		if b[0] != '\n' {
			line = append(line, b[0])
			continue
		}
		*left--
		text, ok := strings.CutSuffix(string(line), "\r")
		if !ok {
			return "", errNotHTTP
		}
		return text, nil
	}
	return "", errLongHead
}
