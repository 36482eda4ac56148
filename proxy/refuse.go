package proxy

import (
	"io"
	"time"

	"cofferdam.dev/cofferdam/proxy/policy"
)

// TLS alerts (RFC 8446, 6.2).
const (
	alertIllegalParameter = 47
	alertAccessDenied     = 49
	alertDecodeError      = 50
	alertInternalError    = 80
	alertMissingExtension = 109
)

// refuse ends a connection that was denied, in the words of its protocol: a TLS
// client is told what is wrong with its hello, or that access is denied; any other
// is reset. What was asked for by a front is refused by that.
func (c *conn) refuse(q question, d policy.Decision) {
	if c.front != nil {
		c.lastWords(c.front.refused(q, d))
		return
	}
	if q.Protocol == policy.TLS {
		if q.alert != 0 {
			c.alert(q.alert)
		} else {
			c.alert(alertAccessDenied)
		}
		return
	}
	c.reset()
}

// fail ends a connection that was allowed, but whose upstream did not answer.
func (c *conn) fail(q question, failure error) {
	if c.front != nil {
		c.lastWords(c.front.failed(q, failure))
		return
	}
	if q.Protocol == policy.TLS {
		c.alert(alertInternalError)
		return
	}
	c.reset()
}

// reset closes the connection so that the agent sees "connection reset" at once.
func (c *conn) reset() { abort(c.tcp) }

// alert sends a fatal alert.
func (c *conn) alert(description byte) {
	c.lastWords([]byte{21, 3, 3, 0, 2, 2, description}) // alert, TLS 1.2 framing, 2 bytes, fatal
}

// lastWords are what the agent gets before the end. It waits for the agent to
// close: bytes that arrive after a close would reset the connection before the
// words were read.
func (c *conn) lastWords(b []byte) {
	c.tcp.SetDeadline(time.Now().Add(c.s.timeouts.refuse))
	c.tcp.Write(b)
	c.tcp.CloseWrite()
	io.CopyN(io.Discard, c.tcp, 64<<10)
}

// leave ends a connection in order: what the agent still sends does not make it
// miss the end of what it was sent.
func (c *conn) leave() {
	c.tcp.SetReadDeadline(time.Now().Add(c.s.timeouts.refuse))
	c.tcp.CloseWrite()
	_, _ = io.Copy(io.Discard, c.tcp) // until the agent closes too
}
