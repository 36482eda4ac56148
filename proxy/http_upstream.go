package proxy

import (
	"context"
	"net"
	"net/netip"

	"cofferdam.dev/cofferdam/proxy/policy"
)

// httpUpstream is a connection to a server, for requests to one target. It belongs
// to one connection of the agent: what a server sends without being asked cannot
// answer anybody else.
type httpUpstream struct {
	stream
	to   target
	addr netip.Addr // which it has; zero if the HTTP proxy of the site found it
	used bool       // for a request before
}

// upstreamFor returns a connection to where a request goes that was allowed: one
// that served a request before, if it is still good, or a new one.
func (h *httpConn) upstreamFor(ctx context.Context, q question) (*httpUpstream, error) {
	t := target{q.Name, q.Addr, q.Port}
	for i, u := range h.idle {
		if u.to != t {
			continue
		}
		h.idle = append(h.idle[:i], h.idle[i+1:]...)
		if !u.quiet() {
			u.close()
			break
		}
		if err := h.use(u); err != nil {
			return nil, err
		}
		return u, nil
	}
	tcp, budgets, err := h.dialUpstream(ctx, t)
	if err != nil {
		return nil, err
	}
	u := &httpUpstream{to: t, addr: h.to.upstream.Addr()}
	u.buffers, u.lull, u.side = &h.s.buffers, &h.lull, forUpstream
	u.account = &account{&h.moved, h.s.budgets.up(budgets), h.s.budgets.down(budgets)}
	if err := u.open(tcp); err != nil {
		tcp.Close()
		return nil, err
	}
	if err := h.use(u); err != nil {
		return nil, err
	}
	return u, nil
}

// use makes the end of the connection that of an upstream's too. From here on the
// policy must allow the address that it has, not only the name; a change that came
// too early to know is made up for.
func (h *httpConn) use(u *httpUpstream) error {
	h.mu.Lock()
	if h.ended {
		h.mu.Unlock()
		u.close()
		return net.ErrClosed
	}
	h.current = u
	if u.addr.IsValid() {
		h.serving.Addr = u.addr
	}
	q := h.serving
	h.mu.Unlock()
	if h.stale.Load() {
		if d := h.s.still(q); d.Verdict != policy.Allow {
			h.let(u, false)
			return &denied{d}
		}
	}
	return nil
}

// let gives an upstream back that is good for another request, or closes it.
func (h *httpConn) let(u *httpUpstream, good bool) {
	h.mu.Lock()
	h.current = nil
	h.mu.Unlock()
	if !good {
		u.close()
		return
	}
	u.used = true
	if len(h.idle) == maxIdleUpstreams {
		h.idle[0].close()
		h.idle = append(h.idle[:0], h.idle[1:]...)
	}
	h.idle = append(h.idle, u)
}

// drop closes the upstreams that are not in use.
func (h *httpConn) drop() {
	for _, u := range h.idle {
		u.close()
	}
	clear(h.idle)
	h.idle = h.idle[:0]
}

func (u *httpUpstream) close() {
	u.release()
	u.tcp.Close()
}

// dialUpstream decides about a target and connects to it; dial decides again.
func (h *httpConn) dialUpstream(ctx context.Context, t target) (*net.TCPConn, policy.Budgets, error) {
	ctx, done := h.dialling(ctx)
	defer done()
	q := h.about(t)
	targets := h.resolved[t]
	delete(h.resolved, t)
	var d policy.Decision
	if len(targets) == 0 {
		q.connection = true
		var err error
		if d, targets, err = h.s.authorize(ctx, q); err != nil {
			return nil, policy.Budgets{}, err
		}
	} else {
		d = h.s.decide(q) // for its budgets; the connection is counted
	}
	if d.Verdict != policy.Allow {
		return nil, policy.Budgets{}, &denied{d}
	}
	tcp, err := h.s.dial(ctx, q, targets)
	if err == nil {
		h.to = wayOf(tcp, targets)
	}
	return tcp, d.Budgets, err
}

// dialling is a context that ends with the connection, for what may take long
// before there is an upstream.
func (h *httpConn) dialling(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	h.mu.Lock()
	h.undial = cancel
	if h.ended {
		cancel()
	}
	h.mu.Unlock()
	h.lull.begin(forUpstream)
	return ctx, func() {
		h.lull.over()
		h.mu.Lock()
		h.undial = nil
		h.mu.Unlock()
		cancel()
	}
}
