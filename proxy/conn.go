package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"cofferdam.dev/cofferdam/proxy/policy"
	"cofferdam.dev/cofferdam/proxy/record"
)

// conn is one connection of the agent.
type conn struct {
	s      *Server
	tcp    *net.TCPConn
	id     uint64
	start  time.Time
	dest   netip.AddrPort // original destination
	looked policy.Name    // behind dest, if that is a synthetic address
	orphan bool           // dest is of the pool and stands for no name
	peeked []byte         // read, and not sent on yet
	hello  hello          // what the first bytes say, if they are TLS
	via    string         // how it was asked for, if not by connecting there
	front  front          // still to be answered, or nil
}

// serveConn carries one connection from accept to close.
func (s *Server) serveConn(ctx context.Context, tcp *net.TCPConn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Whatever it is waiting for, the end of the server ends the connection.
	stop := context.AfterFunc(ctx, func() { abort(tcp) })
	defer stop()
	defer tcp.Close()
	tcp.SetKeepAliveConfig(keepAliveProbes)

	dest, ok := tcp.LocalAddr().(*net.TCPAddr)
	if !ok {
		return // closed already
	}
	c := &conn{s: s, tcp: tcp, id: s.conns.Add(1), start: time.Now()}
	c.aim(dest.AddrPort())
	if peer := addrOf(tcp.RemoteAddr()); peer != s.cfg.Box {
		c.record(question{Request: policy.Request{Protocol: policy.TCP, Port: c.dest.Port()}},
			policy.Decision{Reason: "a connection from " + peer.String() + ", which is not the agent's address"}, netip.AddrPort{})
		c.reset()
		return
	}
	if c.dest.Port() == 53 {
		c.serveStream(ctx)
		return
	}
	if !c.serveFront(ctx) {
		c.serve(ctx)
	}
}

// serve looks at what the rules expect for the destination, and then at what the
// agent sends, where that can say more.
func (c *conn) serve(ctx context.Context) {
	d := c.s.decide(c.question(policy.Unknown, policy.Name{}))
	switch d.Expects {
	case policy.TCP, policy.SSH:
		// The server may speak first, and the bytes have no name to compare.
		c.tunnel(ctx, c.question(d.Expects, policy.Name{}))
	default:
		c.servePeeked(ctx, d)
	}
}

// servePeeked serves a connection whose first bytes say more: d is the decision
// without them. It is apart from serve for the size of its frame, which would keep
// the stack of every idle tunnel twice as large.
func (c *conn) servePeeked(ctx context.Context, d policy.Decision) {
	want := d.Expects
	timeout := c.s.timeouts.peek
	hopeless := want == policy.Unknown && (!c.looked.IsZero() || c.orphan || !c.s.policy.Load().Mentions(c.dest.Port()))
	if hopeless {
		timeout = c.s.timeouts.refuse // only to refuse it in its own language
	}
	if c.front != nil {
		if want != policy.Unknown {
			d = c.s.decide(c.question(want, policy.Name{}))
			hopeless = d.Verdict != policy.Allow
		}
		if hopeless {
			c.deny(c.question(want, policy.Name{}), d)
			return
		}
		c.grant() // what can still be denied needs the agent's words inside
	}
	var protocol policy.Protocol
	switch protocol, c.hello = c.peek(timeout); protocol {
	case policy.HTTP:
		c.serveHTTP(ctx, false)
	case policy.TLS:
		q := c.question(policy.TLS, c.hello.name)
		q.problem, q.alert, q.ech = c.hello.problem, c.hello.alert, c.hello.ech
		if c.hello.unnamed && c.looked.IsZero() && want == policy.TLS {
			q.problem = "" // clients send no name to an address; a rule pins this one
		}
		c.tunnel(ctx, q)
	default:
		c.tunnel(ctx, c.question(policy.TCP, policy.Name{}))
	}
}

// question asks about the connection: by the name on the wire, else by the name
// that was looked up, else by the bare address.
func (c *conn) question(protocol policy.Protocol, wire policy.Name) question {
	q := question{
		Request: policy.Request{Protocol: protocol, Name: wire, Port: c.dest.Port()},
		looked:  c.looked, orphan: c.orphan,
	}
	if q.Name.IsZero() {
		q.Name = c.looked
	}
	if q.Name.IsZero() {
		q.Addr = c.dest.Addr()
	}
	return q
}

// tunnel decides about the whole connection and relays it.
func (c *conn) tunnel(ctx context.Context, q question) {
	q.connection = true
	d, targets, failure := c.s.authorize(ctx, q)
	if err := c.record(q, d, first(targets)); err != nil {
		d = policy.Decision{Reason: err.Error()}
	}
	if d.Verdict != policy.Allow {
		c.refuse(q, d)
		return
	}
	q.budgets = d.Budgets
	var upstream *net.TCPConn
	if failure == nil {
		upstream, failure = c.s.dial(ctx, q, targets)
	}
	if failure != nil {
		c.close(ctx, q, way{}, 0, 0, failure)
		if late, ok := errors.AsType[*denied](failure); ok { // since it was allowed
			c.deny(q, late.d)
		} else {
			c.fail(q, failure)
		}
		return
	}
	defer upstream.Close()
	stop := context.AfterFunc(ctx, func() { abort(upstream) })
	defer stop()
	c.grant()
	r := relay{
		agent: c.tcp, upstream: upstream, idle: c.s.timeouts.idle, total: c.s.timeouts.total,
		splices: c.s.splices, buffers: &c.s.buffers,
		spendUp: c.s.budgets.up(d.Budgets), spendDown: c.s.budgets.down(d.Budgets),
	}
	to := wayOf(upstream, targets)
	if to.upstream.IsValid() {
		q.Addr = to.upstream.Addr()
	}
	var cut atomic.Pointer[revoked]
	release := c.s.watch(&allowed{
		question: func() (question, bool) { return q, true },
		changed:  func() {},
		end: func(err *revoked) {
			cut.Store(err)
			abort(c.tcp)
			abort(upstream)
		},
	})
	err := c.speak(q, upstream, &r)
	release()
	if reason := cut.Load(); reason != nil {
		err = reason
	}
	c.close(ctx, q, to, r.up.Load(), r.down.Load(), err)
}

// way is where a connection leads: to an upstream, or to the HTTP proxy of the
// site, which finds the upstream by itself. The zero way leads nowhere.
type way struct{ upstream, through netip.AddrPort }

// wayOf tells the way of a connection that was dialled for one of the targets.
func wayOf(c *net.TCPConn, targets []netip.AddrPort) way {
	at := addrPortOf(c.RemoteAddr())
	if slices.Contains(targets, at) {
		return way{upstream: at}
	}
	return way{through: at}
}

// speak carries an allowed connection: an ssh rule's once both sides have said
// that they speak SSH, TLS once its names are settled, any other at once.
func (c *conn) speak(q question, upstream *net.TCPConn, r *relay) (err error) {
	switch q.Protocol {
	case policy.SSH:
		err = c.identify(upstream, r)
	case policy.TLS:
		err = c.greet(upstream, r)
	}
	if err == nil {
		err = r.plain.look(c.peeked)
	}
	if err == nil {
		if err = r.run(c.peeked); !errors.Is(err, errSecondHello) {
			return err
		}
	}
	switch {
	case errors.Is(err, errNotSSH), errors.Is(err, errSecondHello):
		c.cut(q, upstream, err)
	default:
		abort(upstream)
		c.reset()
	}
	return err
}

// abort closes a connection so that its peer sees a failure, not an orderly end.
func abort(tcp *net.TCPConn) {
	tcp.SetLinger(0)
	tcp.Close()
}

// deny records a denial and tells the agent.
func (c *conn) deny(q question, d policy.Decision) {
	c.record(q, d, netip.AddrPort{})
	c.refuse(q, d)
}

func first(targets []netip.AddrPort) netip.AddrPort {
	if len(targets) == 0 {
		return netip.AddrPort{}
	}
	return targets[0]
}

func addrPortOf(a net.Addr) netip.AddrPort {
	if a, ok := a.(*net.TCPAddr); ok {
		return a.AddrPort()
	}
	return netip.AddrPort{}
}

// record writes the decision about a question. Only after that may the decision
// take effect. A denial has no effect that could wait: it may be counted first.
func (c *conn) record(q question, d policy.Decision, upstream netip.AddrPort) error {
	r := c.entry(record.Decision, q, upstream)
	r.Verdict, r.Rule, r.Reason = d.Verdict.String(), d.Rule, d.Reason
	if d.Verdict != policy.Allow {
		c.s.denials.add(r)
		return nil
	}
	return c.s.cfg.Records.Write(r)
}

// close writes the end of an allowed connection. reason is nil if both sides
// closed it in order.
func (c *conn) close(ctx context.Context, q question, to way, up, down int64, reason error) {
	r := c.entry(record.Close, q, to.upstream)
	if to.through.IsValid() {
		r.Through = to.through.String()
	}
	r.BytesUp, r.BytesDown, r.DurationMS = up, down, time.Since(c.start).Milliseconds()
	ours := errors.Is(reason, net.ErrClosed) || errors.Is(reason, context.Canceled)
	if ours && ctx.Err() != nil {
		reason, ours = errStopped, false
	}
	if reason != nil && !ours {
		r.Reason = reason.Error()
	}
	if over, ok := errors.AsType[*overBudget](reason); ok {
		r.Rule = over.rule
	}
	c.s.cfg.Records.Write(r)
}

func (c *conn) entry(kind string, q question, upstream netip.AddrPort) record.Record {
	r := record.Record{
		Kind: kind, Conn: c.id, Protocol: q.Protocol.String(), Name: q.Name.String(),
		Address: c.dest.Addr().String(), Port: q.Port, Via: c.via,
	}
	if q.Addr.IsValid() {
		r.Address = q.Addr.String() // no name at all: the address was asked for
	}
	if upstream.IsValid() {
		r.Upstream = upstream.String()
	}
	return r
}
