package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"cofferdam.dev/cofferdam/proxy/policy"
)

// httpConn serves one connection that speaks HTTP/1. Every request of it is
// decided by the host that it names. A denied one is answered and ends the
// connection.
//
// One goroutine carries a request from its head to the end of its answer, and the
// next one after that. A second one runs only while a body is sent that was not
// all there with its head (http_exchange.go), or while an upstream takes its time
// (http_lull.go).
type httpConn struct {
	*conn
	forward bool        // a proxy's port: the target of each request says where to, the connection does not
	stopped func() bool // the server has
	stale   atomic.Bool // the policy has changed since anything was allowed

	agent   stream
	lull    lull
	moved   activity // bytes to and from upstreams
	unwatch func()
	began   time.Time
	asked   asked // the last request's host, which is likely the next one's

	allowed  map[target]bool
	resolved map[target][]netip.AddrPort // for the first dial after a decision
	last     question                    // the last one that was allowed
	to       way                         // of the last upstream
	idle     []*httpUpstream             // the last one that was used at the end
	recorded bool                        // a decision

	mu      sync.Mutex // guards the rest
	serving question
	busy    bool  // with serving
	failure error // the first one that was not an orderly end
	ended   bool  // by the proxy: nothing may be opened any more
	current *httpUpstream
	undial  context.CancelFunc // ends a dial; nil if there is none
}

// denied is the error of a request whose upstream turned out to be denied.
type denied struct{ d policy.Decision }

func (e *denied) Error() string { return e.d.Reason }

const (
	maxRequestHead   = bufferSize
	maxResponseHead  = 64 << 10
	maxHostsRecorded = 256 // distinct hosts of one connection
	maxIdleUpstreams = 2   // of one connection
)

// serveHTTP serves the requests of the connection until it ends.
func (c *conn) serveHTTP(ctx context.Context, forward bool) {
	h := &httpConn{
		conn: c, forward: forward, began: time.Now(),
		stopped:  func() bool { return ctx.Err() != nil },
		agent:    stream{buffers: &c.s.buffers, side: forAgent},
		allowed:  make(map[target]bool),
		resolved: make(map[target][]netip.AddrPort),
	}
	h.agent.lull = &h.lull
	h.lull.moved = &h.moved
	h.lull.agent, h.lull.keep, h.lull.gone = c.tcp, c.s.timeouts.keep, func() { h.end(errAgentGone) }
	if err := h.agent.open(c.tcp); err != nil {
		return
	}
	h.agent.buf = c.s.buffers.Get()
	h.agent.w = copy(h.agent.buf, c.peeked)
	c.peeked = nil
	h.unwatch = h.moved.watch(c.s.timeouts.idle, c.s.timeouts.total, h.end)
	release := c.s.watch(&allowed{question: h.now, end: func(r *revoked) { h.end(r) }, changed: func() { h.stale.Store(true) }})
	stop := context.AfterFunc(ctx, func() { h.end(net.ErrClosed) })
	for h.serveNext(ctx) {
	}
	stop()
	release()
	h.unwatch()
	h.lull.stop()
	h.agent.release()
	h.drop()
	h.finish(ctx)
}

// now is the request that is being answered, if there is one.
func (h *httpConn) now() (question, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.serving, h.busy
}

// end ends the connection, and what is open to upstreams, for a reason that did
// not come from them.
func (h *httpConn) end(reason error) {
	h.fail(reason)
	h.mu.Lock()
	h.ended = true
	current, undial := h.current, h.undial
	h.mu.Unlock()
	h.reset()
	if current != nil {
		abort(current.tcp)
	}
	if undial != nil {
		undial()
	}
}

// renew forgets what an earlier policy has allowed: upstreams that are connected,
// of which the new one may name others, and the hosts that have a record.
func (h *httpConn) renew() {
	h.drop()
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

// hasEnded reports whether end was called.
func (h *httpConn) hasEnded() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ended
}

// finish writes the closing record of what was allowed, or the denial of a
// connection that never sent a request that could be read.
func (h *httpConn) finish(ctx context.Context) {
	h.mu.Lock()
	failure := h.failure
	h.mu.Unlock()
	switch {
	case !h.recorded:
		q := h.question(policy.HTTP, policy.Name{})
		q.problem = "malformed HTTP request"
		h.record(q, h.s.decide(q), netip.AddrPort{})
	case h.last.Protocol == policy.HTTP: // something was allowed
		if failure == nil && h.stopped() {
			failure = net.ErrClosed
		}
		h.close(ctx, h.last, h.to, h.moved.up.Load(), h.moved.down.Load(), failure)
	}
}

// serveNext serves one request, and reports whether the next one may follow.
func (h *httpConn) serveNext(ctx context.Context) bool {
	n, err := h.awaitHead()
	if err != nil {
		return h.hopeless(err)
	}
	x := exchanges.Get().(*httpExchange)
	defer exchanges.Put(x)
	x.h, x.length = h, n
	defer x.clear()
	if err := x.request.parseRequest(h.agent.unread()[:n]); err != nil {
		return h.hopeless(err)
	}
	return x.serve(ctx)
}

// awaitHead waits for a head and returns its length. Both that it begins and that it
// ends then has its time.
func (h *httpConn) awaitHead() (n int, err error) {
	line, late := 0, false
	for {
		if n, err = headLength(h.agent.unread(), &line); n > 0 || err != nil {
			break
		}
		if !late && len(h.agent.unread()) > 0 {
			late = true
			h.agent.lull = nil
			h.tcp.SetReadDeadline(time.Now().Add(h.s.timeouts.head))
		}
		if err = h.agent.fill(maxRequestHead); err != nil {
			break
		}
	}
	if late {
		h.agent.lull = &h.lull
		h.tcp.SetReadDeadline(time.Time{})
	}
	if errors.Is(err, io.EOF) && len(h.agent.unread()) > 0 {
		err = malformed("it ends within its head")
	}
	return n, err
}

// hopeless ends a connection whose next request cannot be read. It returns false.
func (h *httpConn) hopeless(err error) bool {
	q := h.question(policy.HTTP, policy.Name{})
	host := target{q.Name, q.Addr, q.Port}.String()
	if errors.Is(err, errHTTP2) {
		q.problem = err.Error()
		d := h.s.decide(q)
		h.record(q, d, netip.AddrPort{})
		h.recorded = true
		h.lastWords(deniedBy(q, host, d).response(""))
	} else if fault, ok := errors.AsType[malformed](err); ok {
		h.lastWords(h.malformed(q, host, fault).response(""))
	}
	return false // else nothing was asked
}

// malformed denies a request that could not be read, like any other that nobody
// could decide about.
func (h *httpConn) malformed(q question, host string, fault error) refusal {
	q.problem, q.connection, q.request = "malformed HTTP request: "+fault.Error(), false, false
	d := h.s.decide(q)
	h.record(q, d, netip.AddrPort{})
	h.recorded = true
	r := deniedBy(q, host, d)
	r.Error = isMalformed
	return r
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
	ctx, done := h.dialling(ctx)
	defer done()
	d, targets, _ := h.s.authorize(ctx, q) // what failed to resolve fails to be dialled
	if err := h.record(q, d, first(targets)); err != nil {
		d = policy.Decision{Reason: err.Error()}
	}
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

// nowServing says what the connection is used for. A change of the policy that
// denies it ends it.
func (h *httpConn) nowServing(q question, busy bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.serving, h.busy = q, busy
}

// forbidden is the refusal of a request. Where a budget denied it, and waiting
// helps, it says how long.
func (h *httpConn) forbidden(q question, host string, d policy.Decision) refusal {
	r := deniedBy(q, host, d)
	if d.Budgets != (policy.Budgets{}) {
		r.wait = h.s.budgets.wait(d.Budgets, q.connection, q.request)
	}
	return r
}
