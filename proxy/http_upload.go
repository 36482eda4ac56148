package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// upload sends the rest of a request's body while its answer is awaited.
type upload struct {
	body   body
	read   atomic.Bool // the request was, to its end
	used   bool        // there was a rest to send
	broken bool        // the upstream did not take it all
	out    []byte

	done chan struct{} // closed at the end; nil if it does not run
	err  error         // why the request cannot go on
}

// badRequest is the error of a request whose body cannot be read.
type badRequest struct{ error }

// start reads from the agent until stop. The lull leaves the agent alone meanwhile.
func (up *upload) start(h *httpConn, u *httpUpstream) {
	h.lull.settle()
	h.lull.lend(true)
	h.agent.lull = nil
	up.used, up.done = true, make(chan struct{})
	go func() {
		defer close(up.done)
		defer h.lull.lend(false)
		if up.err = up.copy(h, u); up.err != nil {
			abort(u.tcp) // and so ends the wait for its answer
		}
	}()
}

// copy sends the body. That the upstream does not take it is not an error: it may
// have an answer.
func (up *upload) copy(h *httpConn, u *httpUpstream) error {
	framing := up.body.framing
	for !up.read.Load() {
		n, err := h.splice(u.tcp, &h.agent, &up.body, framing, u.account.spendUp, &h.moved.up)
		switch {
		case err != nil && h.agent.alive():
			up.broken = true
			return nil
		case errors.Is(err, io.EOF):
			return &badRequest{malformed("it ends within its body")}
		case err != nil:
			return errAgentGone
		case n > 0:
			continue
		}
		switch err := h.agent.fill(0); {
		case errors.Is(err, io.EOF):
			return &badRequest{malformed("it ends within its body")}
		case errors.Is(err, os.ErrDeadlineExceeded):
			up.broken = true
			return nil // stopped
		case err != nil:
			return errAgentGone
		}
		content, used, err := up.body.decode(h.agent.unread())
		if err != nil {
			return &badRequest{err}
		}
		up.read.Store(up.body.whole())
		err = u.send(&up.out, framing, content, up.body.whole(), up.body.chunks.fields)
		h.agent.use(used)
		if crosses(err) {
			return err
		} else if err != nil {
			up.broken = true
			return nil
		}
	}
	return nil
}

// stop ends it, at the cost of the upstream if there is more to send, and returns
// why the request cannot go on.
func (up *upload) stop(h *httpConn, u *httpUpstream) error {
	if up.done == nil {
		return up.err
	}
	if up.read.Load() { // the last piece is on its way
		u.tcp.SetWriteDeadline(time.Now().Add(lullAfter))
		<-up.done
		u.tcp.SetWriteDeadline(time.Time{})
	}
	select {
	case <-up.done:
	default:
		abort(u.tcp)
		h.tcp.SetReadDeadline(time.Unix(1, 0))
		<-up.done
		h.tcp.SetReadDeadline(time.Time{})
		up.broken = true
	}
	up.done = nil
	h.agent.lull = &h.lull
	return up.err
}

// crosses reports whether an error is that a budget was crossed.
func crosses(err error) bool {
	_, ok := errors.AsType[*overBudget](err)
	return ok
}

// splice moves a piece of a body within the kernel, if a large one is left that has
// a length, needs no framing and is not bounded. It returns how many bytes that
// were, 0 if it has to be copied, as the last piece always has.
func (h *httpConn) splice(dst *net.TCPConn, src *stream, d *body, out framing, spend spend, count *atomic.Int64) (n int64, err error) {
	if d.framing != byLength || out != byLength || d.left < spliceAfter || spend != nil || len(src.unread()) > 0 || src.failed != nil {
		return 0, nil
	}
	select {
	case h.s.splices <- struct{}{}:
	default: // all pipes are in use
		return 0, nil
	}
	if src.lull != nil {
		src.lull.begin(src.side)
		defer src.lull.over()
	}
	n, err = io.CopyN(dst, src.tcp, min(d.left-bufferSize, spliceChunk))
	<-h.s.splices
	d.left -= n
	count.Add(n)
	h.moved.touch()
	return n, err
}
