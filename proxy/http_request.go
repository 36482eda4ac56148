package proxy

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"cofferdam.dev/cofferdam/proxy/policy"
)

// asked is what a request says about where it wants to go.
type asked struct {
	authority string // as it was sent: host, and port or not
	known     bool   // the rest is set
	target    target
	field     string // the Host field that is sent on
	problem   string // what is wrong with it
}

// ask makes the question of a request.
func (h *httpConn) ask(r *head) question {
	problem := h.aim(r)
	t := h.asked.target
	if problem != "" {
		t = target{}
	}
	q := h.about(t)
	if q.problem = problem; problem == "" && t.name.IsZero() && !h.forward && (t.addr != h.dest.Addr() || !h.looked.IsZero()) {
		// A bare address for a host must be the one that was dialled, which the
		// name behind a synthetic address is not.
		q.problem = "the Host header has another address than the connection"
	}
	return q
}

// host is what to call the host of the last question to the agent.
func (h *httpConn) host() string {
	if h.asked.problem != "" || !h.asked.known {
		return strconv.QuoteToASCII(h.asked.authority[:min(len(h.asked.authority), 255)])
	}
	return h.asked.target.String()
}

// about makes the question of a target; of the zero target it is about the
// connection.
func (h *httpConn) about(t target) question {
	q := h.question(policy.HTTP, t.name)
	if h.forward && t != (target{}) {
		q.Addr, q.Port = t.addr, t.port
	}
	return q
}

// aim reads where a request wants to go, or says what is wrong with it. An
// absolute target overrides the Host field (RFC 9112, 3.2.2).
func (h *httpConn) aim(r *head) (problem string) {
	authority, problem := h.split(r)
	if problem == "" {
		problem = r.changes()
	}
	if !h.asked.known || h.asked.authority != string(authority) {
		h.asked = asked{authority: string(authority)}
	}
	if problem == "" && !h.asked.known {
		h.asked.target, h.asked.field, h.asked.problem = h.parseAuthority(h.asked.authority)
		h.asked.known = true
	}
	if problem == "" {
		problem = h.asked.problem
	}
	return problem
}

// split cuts the request target in two: host and port, and what the upstream gets.
func (h *httpConn) split(r *head) (authority []byte, problem string) {
	switch {
	case string(r.method) == "CONNECT" && h.forward:
		return r.target, "CONNECT that is not the first request of its connection"
	case string(r.method) == "CONNECT":
		return r.target, "CONNECT is not needed here: connect to the host itself"
	}
	r.path = r.target
	absolute := false
	if r.target[0] != '/' && (string(r.target) != "*" || string(r.method) != "OPTIONS") {
		scheme, rest, ok := bytes.Cut(r.target, []byte("://"))
		switch {
		case ok && isFold(scheme, "https") && h.forward:
			return r.host, "a request target that is https: ask for a tunnel with CONNECT"
		case !ok || !isFold(scheme, "http"):
			return r.host, "a request target that is not http"
		}
		absolute = true
		i := bytes.IndexAny(rest, "/?")
		if i < 0 {
			i = len(rest)
		}
		authority, r.path = rest[:i], rest[i:]
	} else {
		authority = r.host
	}
	switch {
	case absolute && bytes.IndexByte(authority, '@') >= 0:
		return authority, "a request target with a user"
	case h.forward && (!absolute || len(authority) == 0):
		return authority, "a request target without a host, to a proxy"
	case absolute && len(authority) == 0:
		return authority, "a request target without a host"
	case len(authority) == 0:
		return authority, "an HTTP request without Host"
	}
	return authority, ""
}

// changes says what is wrong with a request to change the protocol: after it the
// bytes are not seen any more, and HTTP/2 would carry requests for other hosts.
func (h *head) changes() (problem string) {
	switch {
	case h.upgrades == 0:
		return ""
	case h.upgrades > 1 || !isFold(h.upgrade, "websocket"):
		return "a change of protocol to other than websocket"
	case h.framing == byChunks || h.length > 0:
		return "a change of protocol with a body"
	}
	return ""
}

// parseAuthority reads host and port, the latter or not.
func (h *httpConn) parseAuthority(authority string) (t target, field, problem string) {
	host, port, err := splitHostPort(authority)
	if err != nil {
		return t, "", "Host header: " + err.Error()
	}
	if port != 0 && port != h.port(port) {
		return t, "", "the Host header has another port than the connection"
	}
	name, addr, err := parseHost(host)
	if err != nil {
		return t, "", "Host header: " + err.Error()
	}
	if !name.IsZero() {
		host = name.String()
	}
	switch field = host; {
	case port != 0:
		field = net.JoinHostPort(host, strconv.Itoa(int(port)))
	case addr.Is6():
		field = "[" + host + "]"
	}
	return target{name, addr, h.port(port)}, field, ""
}

// port is where a request goes that says the given port, or zero.
func (h *httpConn) port(said uint16) uint16 {
	switch {
	case !h.forward:
		return h.dest.Port()
	case said == 0:
		return 80
	default:
		return said
	}
}

// splitHostPort splits the value of a Host header strictly (RFC 9110, 7.2). port
// is 0 if there is none.
func splitHostPort(s string) (host string, port uint16, err error) {
	host = s
	if rest, ok := strings.CutPrefix(s, "["); ok {
		inside, after, ok := strings.Cut(rest, "]")
		addr, err := netip.ParseAddr(inside)
		if !ok || err != nil || !addr.Is6() {
			return "", 0, errors.New("malformed address")
		}
		if after == "" {
			return inside, 0, nil
		}
		if host, s = inside, after; s[0] != ':' {
			return "", 0, errors.New("malformed address")
		}
	} else if i := strings.IndexByte(s, ':'); i >= 0 {
		host, s = s[:i], s[i:]
	} else {
		return host, 0, nil
	}
	n, err := strconv.ParseUint(s[1:], 10, 16)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != s[1:] {
		return "", 0, errors.New("malformed port")
	}
	return host, uint16(n), nil
}

// appendRequest writes the head of a request that was allowed for the upstream:
// in HTTP/1.1, with the host that was decided and with one framing. Only what is
// of this hop is left out.
func (h *head) appendRequest(out []byte, host string) []byte {
	out = append(out, h.method...)
	out = append(out, ' ')
	switch {
	case len(h.path) == 0 && string(h.method) == "OPTIONS":
		out = append(out, '*') // RFC 9112, 3.2.4
	case len(h.path) == 0 || h.path[0] == '?':
		out = append(out, '/')
	}
	out = append(out, h.path...)
	out = append(out, " HTTP/1.1\r\nHost: "...)
	out = append(out, host...)
	out = append(out, "\r\n"...)
	out = appendFraming(out, h.framing, h.length)
	out = h.appendFields(out)
	switch {
	case h.odd():
		out = append(out, "Connection: close\r\n"...)
	case h.wantsChange():
		out = append(out, "Connection: Upgrade\r\nUpgrade: websocket\r\n"...)
	case h.trailers:
		out = append(out, "Connection: TE\r\nTE: trailers\r\n"...)
	}
	return append(out, "\r\n"...)
}

// wantsChange reports whether the request asks for a change of protocol, which
// HTTP/1.0 cannot (RFC 9110, 7.8).
func (h *head) wantsChange() bool { return h.change && h.upgrades == 1 && h.minor > 0 }

// repeatable reports whether a request may be sent twice (RFC 9110, 9.2.2).
func (h *head) repeatable() bool { return h.safe() || isOneOf(h.method, "PUT", "DELETE") }

// odd reports whether there is a body where the method has no use for one. A server
// that takes no notice of it would take it for the next request, so it is told that
// there is none.
func (h *head) odd() bool { return h.safe() && (h.framing == byChunks || h.length > 0) }

// safe reports whether the method asks for nothing to be changed (9.2.1), and has
// no use for a body.
func (h *head) safe() bool { return isOneOf(h.method, "GET", "HEAD", "OPTIONS", "TRACE") }

func isOneOf(method []byte, names ...string) bool { return slices.Contains(names, string(method)) }
