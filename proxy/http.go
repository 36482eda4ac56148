package proxy

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"cofferdam.dev/cofferdam/proxy/policy"
)

// httpConn serves one connection that speaks HTTP/1. Every request of it is
// decided by the host that it names. A denied one is answered and ends the
// connection.
//
// Requests are parsed and written anew, so that the upstream sees one reading of
// them, whatever the agent sent: one Host, one framing. An absolute request
// target overrides the Host header, as RFC 9112, 3.2.2 demands.
type httpConn struct {
	*conn
	forward bool // a proxy's port: the target of each request says where to, the connection does not
	proxy   *httputil.ReverseProxy
	stopped func() bool // the server has
	stale   atomic.Bool // the policy has changed since the transport was made

	transport *http.Transport // of the request that is being served
	moved     activity        // bytes to and from upstreams

	switched atomic.Bool // to a protocol without answers: only a reset tells of a failure

	// The server calls ServeHTTP for one request at a time, but dials in
	// goroutines of its transport.
	mu       sync.Mutex // guards the rest
	allowed  map[target]bool
	resolved map[target][]netip.AddrPort // for the first dial after a decision
	last     question                    // the last one that was allowed
	serving  *question                   // the one that is being answered; nil: none
	upstream netip.AddrPort
	conns    []*countedConn // to upstreams, open or not
	recorded bool           // a decision
	failure  error          // the first one that was not an orderly end
}

// denied is the error of a request whose upstream turned out to be denied.
type denied struct{ d policy.Decision }

func (e *denied) Error() string { return e.d.Reason }

const (
	headerTimeout    = 10 * time.Second
	keepAlive        = 2 * time.Minute
	maxRequestHead   = 32 << 10
	maxResponseHead  = 64 << 10
	maxHostsRecorded = 256 // distinct hosts of one connection

	// flushInterval bounds how long bytes of an answer of known length wait for
	// more, so that a short one is one write. Those of other answers, event
	// streams among them, never wait (see ReverseProxy).
	flushInterval = 2 * time.Millisecond
)

// serveHTTP serves the requests of the connection until it ends.
func (c *conn) serveHTTP(ctx context.Context, forward bool) {
	h := &httpConn{
		conn:     c,
		forward:  forward,
		stopped:  func() bool { return ctx.Err() != nil },
		allowed:  make(map[target]bool),
		resolved: make(map[target][]netip.AddrPort),
	}
	h.transport = h.newTransport()
	quiet := log.New(io.Discard, "", 0) // what is worth knowing is recorded
	h.proxy = &httputil.ReverseProxy{
		Rewrite:   h.rewrite,
		Transport: h.transport,
		ModifyResponse: func(r *http.Response) error {
			h.switched.Store(r.StatusCode == http.StatusSwitchingProtocols)
			return nil
		},
		FlushInterval: flushInterval,
		ErrorHandler:  h.unreachable,
		ErrorLog:      quiet,
		BufferPool:    &c.s.buffers,
	}
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       keepAlive,
		MaxHeaderBytes:    maxRequestHead,
		Protocols:         http1(),
		ErrorLog:          quiet,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	one := &oneListener{addr: c.tcp.LocalAddr(), done: make(chan struct{})}
	one.conn = &closingConn{peekedConn: &peekedConn{TCPConn: c.tcp, peeked: c.peeked}, done: one.done}
	stop := h.moved.watch(c.s.timeouts.idle, c.s.timeouts.total, func(reason error) {
		h.fail(reason)
		c.reset()
	})
	release := c.s.watch(&allowed{question: h.current, end: h.revoke, changed: func() { h.stale.Store(true) }})
	server.Serve(one) // returns when the connection is closed, hijacked or not
	release()
	stop()
	h.transport.CloseIdleConnections()
	h.finish(ctx)
}

func (h *httpConn) newTransport() *http.Transport {
	return &http.Transport{
		DialContext:            h.dialUpstream,
		DisableCompression:     true,
		MaxIdleConns:           2,
		IdleConnTimeout:        keepAlive,
		MaxResponseHeaderBytes: maxResponseHead,
		Protocols:              http1(),
	}
}

// current is the request that is being answered, if there is one.
func (h *httpConn) current() (question, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.serving == nil {
		return question{}, false
	}
	return *h.serving, true
}

// revoke ends the connection because a new policy denies what it is used for.
func (h *httpConn) revoke(reason *revoked) {
	h.fail(reason)
	h.reset()
}

// renew forgets what an earlier policy has allowed: upstreams that are connected,
// of which the new one may name others, and the hosts that have a record.
func (h *httpConn) renew() {
	h.transport.CloseIdleConnections()
	h.transport = h.newTransport()
	h.proxy.Transport = h.transport
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.allowed)
	clear(h.resolved)
}

// The reasons of a response that does not end in order.
var (
	errAgentGone = errors.New("the agent went away")
	errBrokenOff = errors.New("the response broke off")
)

// fail notes why the connection does not end in order: the first cause, or that
// a budget was crossed. What was closed on purpose is no cause.
func (h *httpConn) fail(err error) {
	if errors.Is(err, net.ErrClosed) || h.stopped() {
		return
	}
	_, over := errors.AsType[*overBudget](err)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failure == nil || over {
		h.failure = err
	}
}

// upstreamFailed notes what ended the connection to an upstream.
func (h *httpConn) upstreamFailed(err error) {
	h.fail(err)
	if h.switched.Load() && !errors.Is(err, net.ErrClosed) {
		h.reset()
	}
}

// crossed returns the budget that was crossed, if one was.
func (h *httpConn) crossed() (*overBudget, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return errors.AsType[*overBudget](h.failure)
}

func http1() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	return p
}

// finish writes the closing record of what was allowed, or the denial of a
// connection that never sent a request that could be read.
func (h *httpConn) finish(ctx context.Context) {
	h.mu.Lock()
	conns := h.conns
	h.mu.Unlock()
	for _, upstream := range conns {
		upstream.settle()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case !h.recorded:
		q := h.question(policy.HTTP, policy.Name{})
		q.problem = "malformed HTTP request"
		h.record(q, h.s.decide(q), netip.AddrPort{})
	case h.last.Protocol == policy.HTTP: // something was allowed
		if h.failure == nil && h.stopped() {
			h.failure = net.ErrClosed
		}
		h.close(ctx, h.last, h.upstream, h.moved.up.Load(), h.moved.down.Load(), h.failure)
	}
}

// ServeHTTP decides about one request and passes it on.
func (h *httpConn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.stale.Swap(false) {
		h.renew()
	}
	q, host := h.ask(r)
	q.request, q.connection = true, !h.knows(target{q.Name, q.Addr, q.Port})
	if d := h.authorizeRequest(r.Context(), q); d.Verdict != policy.Allow {
		h.forbidden(q, host, d).write(w, r)
		return
	}
	// An answer that breaks off must not look like one that is whole: HTTP/1.0
	// knows its end only by the end of the connection.
	defer func() {
		if e := recover(); e != nil {
			if r.Context().Err() != nil {
				h.fail(errAgentGone)
			}
			h.fail(errBrokenOff)
			h.reset()
			panic(e)
		}
	}()
	h.nowServing(&q)
	defer h.nowServing(nil)
	if h.stale.Load() { // since it was allowed
		if d := h.again(q); d.Verdict != policy.Allow {
			h.record(q, d, netip.AddrPort{})
			h.forbidden(q, host, d).write(w, r)
			return
		}
	}
	h.proxy.ServeHTTP(w, r)
}

func (h *httpConn) nowServing(q *question) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.serving = q
}

// again decides about a request that was counted before.
func (h *httpConn) again(q question) policy.Decision {
	q.connection, q.request = false, false
	return h.s.decide(q)
}

// ask makes the question of a request, and what to call its host to the agent.
func (h *httpConn) ask(r *http.Request) (q question, host string) {
	t, problem := h.target(r)
	q = h.about(t)
	if q.problem = problem; problem != "" {
		return q, strconv.QuoteToASCII(r.Host[:min(len(r.Host), 255)])
	}
	if t.name.IsZero() && !h.forward && (t.addr != h.dest.Addr() || !h.looked.IsZero()) {
		// A bare address for a host must be the one that was dialled, which the
		// name behind a synthetic address is not.
		q.problem = "the Host header has another address than the connection"
	}
	return q, t.String()
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

// target reads where a request wants to go, or says what is wrong with it.
func (h *httpConn) target(r *http.Request) (t target, problem string) {
	switch u := r.URL; {
	case r.ProtoMajor != 1: // net/http lets the preface of HTTP/2 through
		return t, "HTTP/2 without TLS"
	case r.Method == http.MethodConnect && h.forward:
		return t, "CONNECT that is not the first request of its connection"
	case r.Method == http.MethodConnect:
		return t, "CONNECT is not needed here: connect to the host itself"
	case u.Scheme == "https" && h.forward:
		return t, "a request target that is https: ask for a tunnel with CONNECT"
	case u.Scheme != "" && u.Scheme != "http", u.Opaque != "":
		return t, "a request target that is not http"
	case u.User != nil:
		return t, "a request target with a user"
	case u.Host == "" && h.forward:
		return t, "a request target without a host, to a proxy"
	case r.Host == "":
		return t, "an HTTP request without Host"
	}
	if p := upgrade(r.Header); p != "" {
		return t, p
	}
	host, port, err := splitHostPort(r.Host)
	if err != nil {
		return t, "Host header: " + err.Error()
	}
	if port != 0 && port != h.port(port) {
		return t, "the Host header has another port than the connection"
	}
	name, addr, err := parseHost(host)
	if err != nil {
		return t, "Host header: " + err.Error()
	}
	return target{name, addr, h.port(port)}, ""
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

// upgrade says what is wrong with a request to change the protocol: after it the
// bytes are not seen any more, and HTTP/2 would carry requests for other hosts.
func upgrade(header http.Header) string {
	values := header.Values("Upgrade")
	if len(values) == 0 || len(values) == 1 && strings.EqualFold(values[0], "websocket") {
		return ""
	}
	return "a change of protocol to other than websocket"
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

// knows reports whether a request for the target was allowed before.
func (h *httpConn) knows(t target) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.allowed[t]
}

// authorizeRequest decides about a request. The first for a host is resolved and
// recorded; of the later ones only denials are, or a busy connection would fill
// the log.
func (h *httpConn) authorizeRequest(ctx context.Context, q question) policy.Decision {
	t := target{q.Name, q.Addr, q.Port}
	if !q.connection {
		d := h.s.decide(q)
		if d.Verdict != policy.Allow {
			h.record(q, d, netip.AddrPort{})
		}
		return d
	}
	d, targets, _ := h.s.authorize(ctx, q) // what failed to resolve fails to be dialled
	if err := h.record(q, d, first(targets)); err != nil {
		d = policy.Decision{Reason: err.Error()}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.recorded = true
	if d.Verdict == policy.Allow {
		if len(h.allowed) < maxHostsRecorded {
			h.allowed[t] = true
		}
		h.last = q
		if len(targets) > 0 {
			clear(h.resolved) // of an earlier request that needed no new connection
			h.resolved[t] = targets
		}
	}
	return d
}

// rewrite addresses a request that was allowed. Only hop-by-hop fields are
// dropped: what ReverseProxy takes away for its own use comes back.
func (h *httpConn) rewrite(p *httputil.ProxyRequest) {
	host, port, _ := splitHostPort(p.In.Host)
	if name, err := policy.ParseWireName(host); err == nil {
		host = name.String()
	}
	p.Out.URL.Scheme = "http"
	p.Out.URL.Host = net.JoinHostPort(host, strconv.Itoa(int(h.port(port))))
	p.Out.URL.RawQuery = p.In.URL.RawQuery
	p.Out.URL.ForceQuery = p.In.URL.ForceQuery
	if port != 0 {
		p.Out.Host = net.JoinHostPort(host, strconv.Itoa(int(port)))
	} else if p.Out.Host = host; strings.Contains(host, ":") {
		p.Out.Host = "[" + host + "]"
	}
	for _, field := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if values, ok := p.In.Header[field]; ok {
			p.Out.Header[field] = values
		}
	}
}

// dialUpstream connects the transport to the host that rewrite wrote. It decides
// by that text alone, whatever request it is for; dial does so again.
func (h *httpConn) dialUpstream(ctx context.Context, _, address string) (net.Conn, error) {
	t, err := parseTarget(address)
	if err != nil {
		return nil, err
	}
	q := h.about(t)
	h.mu.Lock()
	targets := h.resolved[target{q.Name, q.Addr, q.Port}]
	delete(h.resolved, target{q.Name, q.Addr, q.Port})
	h.mu.Unlock()
	var d policy.Decision
	if len(targets) == 0 {
		q.connection = true
		if d, targets, err = h.s.authorize(ctx, q); err != nil {
			return nil, err
		}
	} else {
		d = h.s.decide(q) // for its budget; the connection is counted
	}
	if d.Verdict != policy.Allow {
		return nil, &denied{d}
	}
	conn, err := h.s.dial(ctx, q, targets)
	if err != nil {
		return nil, err
	}
	counted := &countedConn{
		TCPConn: conn, moved: &h.moved, failed: h.upstreamFailed,
		spendUp: h.s.budgets.up(d.Budget), spendDown: h.s.budgets.down(d.Budget),
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.upstream = addrPortOf(conn.RemoteAddr())
	h.conns = append(slices.DeleteFunc(h.conns, (*countedConn).settled), counted)
	return counted, nil
}

// forbidden is the refusal of a request. Where a budget denied it, and waiting
// helps, it says how long.
func (h *httpConn) forbidden(q question, host string, d policy.Decision) refusal {
	r := deniedBy(q, host, d)
	if d.Budget != nil {
		r.wait = h.s.budgets.wait(d.Budget, q.connection, q.request)
	}
	return r
}

// unreachable answers a request whose upstream could not be reached, or turned
// out to be denied after all.
func (h *httpConn) unreachable(w http.ResponseWriter, r *http.Request, err error) {
	q, host := h.ask(r)
	if e, ok := errors.AsType[*denied](err); ok {
		q.connection = true
		h.record(q, e.d, netip.AddrPort{})
		h.forbidden(q, host, e.d).write(w, r)
		return
	}
	if over, ok := h.crossed(); ok {
		refused := deniedBy(q, host, policy.Decision{Reason: over.Error(), Rule: over.rule})
		refused.wait = over.wait
		refused.write(w, r)
		return
	}
	if r.Context().Err() != nil {
		err = errAgentGone
	}
	h.fail(err)
	unreachable(host, cause(err)).write(w, r) // not the address that this host has
}
