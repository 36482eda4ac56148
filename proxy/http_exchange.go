package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"cofferdam.dev/cofferdam/proxy/policy"
)

// httpExchange is one request and its answer. Exchanges are lent: who waits for a
// request holds none.
type httpExchange struct {
	h        *httpConn
	request  head
	response head
	q        question
	upload   upload
	out      []byte // what is written next

	// What is needed of the request once its bytes are gone.
	minor              byte
	persists           bool
	isHead, repeatable bool
	changes            bool // the protocol
	odd                bool // a body where there is no use for one
	length             int  // of its head
	began              bool // some of the answer was read
	unsent             bool // some of the request never was
	answered           int  // the length of the answer's head
}

var exchanges = sync.Pool{New: func() any { return new(httpExchange) }}

const (
	maxKept     = 64 << 10 // of the bytes of an exchange that is given back
	maxInterims = 64       // answers before the answer
)

// clear forgets all but the memory.
func (x *httpExchange) clear() {
	request, response, out, sending := x.request, x.response, x.out, x.upload.out
	if cap(out) > maxKept || cap(sending) > maxKept {
		out, sending = nil, nil
	}
	*x = httpExchange{request: request, response: response, out: out[:0]}
	x.upload.out = sending[:0]
}

// The ways in which an upstream does not answer.
var (
	errNoAnswer = errors.New("it closed the connection instead of answering")
	errChange   = malformed("a change of protocol that nobody asked for")
	errInterims = malformed("too many interim answers")
)

// serve decides about a request and passes it on. It reports whether the next one
// may follow.
func (x *httpExchange) serve(ctx context.Context) bool {
	h, r := x.h, &x.request
	x.minor, x.persists, x.changes = r.minor, r.persists(), r.wantsChange()
	x.isHead, x.repeatable = string(r.method) == "HEAD", r.repeatable()
	x.odd = r.odd()
	if h.stale.Swap(false) {
		h.renew()
	}
	q := h.ask(r)
	q.request, q.connection = true, !h.allowed[target{q.Name, q.Addr, q.Port}]
	x.q = q
	d := h.authorizeRequest(ctx, q)
	if d.Verdict != policy.Allow {
		return x.refuse(h.forbidden(q, h.host(), d))
	}
	q.budgets = d.Budgets
	h.nowServing(q, true)
	defer h.nowServing(question{}, false)
	if h.stale.Load() { // since it was allowed
		if d := h.s.still(q); d.Verdict != policy.Allow {
			h.record(q, d, netip.AddrPort{})
			return x.refuse(h.forbidden(q, h.host(), d))
		}
	}
	x.out = r.appendRequest(x.out[:0], h.asked.field)
	h.agent.use(x.length)
	if err := x.takeBody(); err != nil {
		return x.fails(err)
	}
	more := x.pass(ctx)
	h.lull.settle()
	return more
}

// takeBody adds to the head what has come of the body.
func (x *httpExchange) takeBody() error {
	framing := x.request.framing
	x.upload.body = body{framing: framing, left: x.request.length}
	d := &x.upload.body
	content, used, err := d.decode(x.h.agent.unread())
	if err != nil {
		return &badRequest{err}
	}
	x.out = appendContent(x.out, framing, content)
	if d.whole() {
		x.out = appendEnd(x.out, framing, d.chunks.fields)
		x.upload.read.Store(true)
	}
	x.h.agent.use(used)
	return nil
}

// pass sends the request and passes its answer on. A connection that served a
// request before may have been closed just now: then the request is sent once
// more, if nothing was read of an answer, it may be repeated, and all of it is
// still here. What leaves twice is decided twice, and counted.
func (x *httpExchange) pass(ctx context.Context) (more bool) {
	for {
		u, err := x.h.upstreamFor(ctx, x.q)
		if err != nil {
			return x.fails(err)
		}
		if err = x.ask(u); err == nil {
			more, good := x.answer(u)
			x.h.let(u, good)
			return more
		}
		x.h.let(u, false)
		if !u.used || x.began || !x.repeatable || x.upload.used || crosses(err) {
			return x.fails(err)
		}
		x.q.connection = false // another one is counted when it is made
		if d := x.h.s.decide(x.q); d.Verdict != policy.Allow {
			return x.fails(&denied{d})
		}
	}
}

// ask sends the request, as far as it is there, and reads the head of the answer.
// The rest of the body is sent meanwhile: the answer need not wait for it.
func (x *httpExchange) ask(u *httpUpstream) error {
	sent := u.write(x.out)
	if crosses(sent) {
		return sent
	}
	if sent == nil && !x.upload.read.Load() {
		x.upload.start(x.h, u)
	}
	// A server may answer what it does not want to read, and close: that is its
	// answer still.
	err := x.readHead(u)
	if err == nil {
		x.unsent = sent != nil
		return nil
	}
	if failed := x.upload.stop(x.h, u); failed != nil {
		return failed
	}
	if sent != nil {
		return sent
	}
	return err
}

// readHead reads the head of the answer, and passes on those that come before it
// (RFC 9110, 15.2).
func (x *httpExchange) readHead(u *httpUpstream) error {
	for range maxInterims {
		n, err := u.readHead(&x.response)
		x.began = x.began || len(u.unread()) > 0
		if err != nil {
			return err
		}
		r := &x.response
		switch {
		case r.status == 101 && (!x.changes || r.upgrades != 1 || !isFold(r.upgrade, "websocket") || !r.change):
			return errChange
		case r.status >= 200 || r.status == 101:
			x.answered = n
			return nil
		case x.minor > 0: // HTTP/1.0 knows none
			interim := append(r.appendFields(r.appendStatus(nil, x.minor)), "\r\n"...)
			if err := x.h.agent.write(interim); err != nil {
				x.h.end(errAgentGone)
				return err
			}
		}
		u.use(n)
	}
	return errInterims
}

// readHead reads the head of an answer and returns its length.
func (u *httpUpstream) readHead(r *head) (n int, err error) {
	for line := 0; ; {
		if n, err = headLength(u.unread(), &line); n > 0 || err != nil {
			break
		}
		if err = u.fill(maxResponseHead); err != nil {
			break
		}
	}
	if errors.Is(err, io.EOF) {
		err = errNoAnswer
	}
	if err != nil {
		return 0, err
	}
	return n, r.parseResponse(u.unread()[:n])
}

// appendStatus writes the first line of an answer in the agent's version.
func (h *head) appendStatus(out []byte, minor byte) []byte {
	out = append(out, "HTTP/1."...)
	out = append(out, '0'+minor, ' ')
	out = strconv.AppendInt(out, int64(h.status), 10)
	out = append(out, ' ')
	out = append(out, h.reason...)
	return append(out, "\r\n"...)
}

// answer passes the answer on, whose head was read. It reports whether the agent
// may send another request, and whether the upstream is good for one.
func (x *httpExchange) answer(u *httpUpstream) (more, good bool) {
	r := &x.response
	if r.status == 101 {
		x.tunnel(u)
		return false, false
	}
	in, out := x.framings()
	// What the agent still has to send of its request cannot be told from a next
	// one, once it knows the answer.
	more = x.persists && x.upload.read.Load() && out != byClose
	x.out = r.appendFields(r.appendStatus(x.out[:0], x.minor))
	switch {
	case out != noBody:
		x.out = appendFraming(x.out, out, r.length)
	case r.lengths > 0 && r.status != 204:
		x.out = appendFraming(x.out, byLength, r.length) // of what a GET would get
	}
	switch {
	case !more:
		x.out = append(x.out, "Connection: close\r\n"...)
	case x.minor == 0:
		x.out = append(x.out, "Connection: keep-alive\r\n"...)
	}
	x.out = append(x.out, "\r\n"...)
	good = r.persists() && in != byClose && !x.odd
	u.use(x.answered)
	if err := x.copyBody(u, body{framing: in, left: r.length}, out); err != nil {
		if failed := x.upload.stop(x.h, u); failed != nil {
			err = failed
		}
		x.breaks(err)
		return false, false
	}
	if err := x.upload.stop(x.h, u); err != nil {
		x.h.fail(err)
		more = false
	}
	good = good && !x.unsent && !x.upload.broken && len(u.unread()) == 0
	if !more {
		x.h.lull.settle()
		x.h.leave()
	}
	return more, good
}

// framings returns how the end of the answer's body is told by the upstream, and
// how to the agent (RFC 9112, 6.3).
func (x *httpExchange) framings() (in, out framing) {
	r := &x.response
	switch in, out = r.framing, r.framing; {
	case x.isHead || r.status == 204 || r.status == 304:
		return noBody, noBody
	case in == noBody:
		in, out = byClose, byChunks
	}
	if out == byChunks && x.minor == 0 {
		out = byClose
	}
	return in, out
}

// copyBody passes on what x.out holds, and the body behind it. What comes is sent
// at once: an answer may be a stream of events.
func (x *httpExchange) copyBody(u *httpUpstream, d body, out framing) error {
	for first := true; ; first = false {
		ended := false
		if !first {
			if n, err := x.h.splice(x.h.tcp, &u.stream, &d, out, u.account.spendDown, &x.h.moved.down); err != nil {
				return err
			} else if n > 0 {
				continue
			}
			err := u.fill(0)
			if ended = errors.Is(err, io.EOF) && d.framing == byClose; !ended && err != nil {
				return err
			}
		}
		content, used, err := d.decode(u.unread())
		if err != nil {
			return fmt.Errorf("the response is malformed: %w", err)
		}
		if ended = ended || d.whole(); ended && x.upload.read.Load() {
			x.h.nowServing(question{}, false) // who has the whole answer finds nothing going on
		}
		if err := x.h.agent.send(&x.out, out, content, ended, d.chunks.fields); err != nil {
			return errAgentGone
		}
		u.use(used)
		if ended {
			return nil
		}
	}
}

// send writes what is in *out and content behind it, in one piece unless that is
// long.
func (s *stream) send(out *[]byte, f framing, content []byte, ended bool, trailer []byte) error {
	if f != byChunks && (len(*out) == 0 || len(*out)+len(content) > bufferSize) {
		if len(*out) > 0 {
			if err := s.write(*out); err != nil {
				return err
			}
			*out = (*out)[:0]
		}
		if len(content) == 0 {
			return nil
		}
		return s.write(content)
	}
	*out = appendContent(*out, f, content)
	if ended {
		*out = appendEnd(*out, f, trailer)
	}
	if len(*out) == 0 {
		return nil
	}
	err := s.write(*out)
	*out = (*out)[:0]
	return err
}

// fails ends a request that has no answer.
func (x *httpExchange) fails(err error) bool {
	h := x.h
	if bad, ok := errors.AsType[*badRequest](err); ok {
		return x.refuse(h.malformed(x.q, h.host(), bad.error))
	}
	if e, ok := errors.AsType[*denied](err); ok {
		x.q.connection = true
		h.record(x.q, e.d, netip.AddrPort{})
		return x.refuse(h.forbidden(x.q, h.host(), e.d))
	}
	if h.hasEnded() {
		return false
	}
	if bad, ok := errors.AsType[malformed](err); ok {
		err = fmt.Errorf("the response is malformed: %w", bad)
	}
	h.fail(err)
	if over, ok := errors.AsType[*overBudget](err); ok {
		r := deniedBy(x.q, h.host(), policy.Decision{Reason: over.Error(), Rule: over.rule})
		r.wait = over.wait
		return x.refuse(r)
	}
	return x.refuse(unreachable(h.host(), cause(err))) // not the address that this host has
}

// breaks ends an answer that has begun. It must not look like one that is whole:
// HTTP/1.0 knows its end only by the end of the connection.
func (x *httpExchange) breaks(err error) {
	if errors.Is(err, io.EOF) {
		err = errBrokenOff
	}
	x.h.end(err)
}

// refuse answers the request itself. The connection ends with it, so that what
// follows is not taken for a request. It returns false.
func (x *httpExchange) refuse(r refusal) bool {
	x.h.lull.settle()
	x.h.lastWords(r.wire(x.minor, string(x.request.accept), !x.isHead))
	return false
}

// tunnel relays what follows a change of protocol.
func (x *httpExchange) tunnel(u *httpUpstream) {
	h, r := x.h, &x.response
	x.out = append(r.appendFields(r.appendStatus(x.out[:0], x.minor)), "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"...)
	u.use(x.answered)
	x.out = append(x.out, u.unread()...)
	u.use(len(u.unread()))
	head := bytes.Clone(h.agent.unread())
	h.agent.release()
	h.lull.stop()
	if u.failed != nil {
		x.breaks(u.failed)
		return
	}
	if err := h.agent.write(x.out); err != nil {
		x.breaks(errAgentGone)
		return
	}
	h.unwatch() // the relay has a watch of its own
	t := relay{
		agent: h.tcp, upstream: u.tcp, idle: h.s.timeouts.idle, total: h.s.timeouts.total - time.Since(h.began),
		splices: h.s.splices, buffers: &h.s.buffers, spendUp: u.account.spendUp, spendDown: u.account.spendDown,
	}
	err := t.run(head)
	h.moved.up.Add(t.up.Load())
	h.moved.down.Add(t.down.Load())
	if err != nil {
		h.fail(err)
	}
}
