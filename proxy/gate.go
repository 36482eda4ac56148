package proxy

import (
	"context"
	"net/netip"
	"time"

	"cofferdam.dev/cofferdam/proxy/policy"
)

// The ports of the gate's own address at which programs that insist on a proxy
// find one. Nobody needs them: every connection is the proxy's anyhow. They lead
// to the same decision, which sees the same inside a tunnel as outside of one.
const (
	forwardPort = 3128 // HTTP: CONNECT and absolute-form requests
	socksPort   = 1080 // SOCKS5
)

// How the agent asked, in records.
const (
	viaConnect  = "connect"
	viaAbsolute = "absolute"
	viaSOCKS    = "socks5"
)

// front is the protocol by which the agent asked for a connection instead of
// making it. It puts the one answer that there is into words.
type front interface {
	granted() []byte
	refused(q question, d policy.Decision) []byte
	failed(q question, err error) []byte
}

// serveFront serves a connection to one of the two ports, and reports whether it
// was one. A tunnel is served like a connection to its target, which does not
// come back here: a proxy cannot be reached through itself.
func (c *conn) serveFront(ctx context.Context) bool {
	if c.dest.Addr() != c.s.cfg.Gate {
		return false
	}
	switch c.dest.Port() {
	case forwardPort:
		c.serveForward(ctx)
	case socksPort:
		c.serveSOCKS(ctx)
	default:
		return false
	}
	return true
}

// aim makes the connection one to the given destination, where a synthetic
// address stands for its name.
func (c *conn) aim(dest netip.AddrPort) {
	c.dest = netip.AddrPortFrom(dest.Addr().Unmap(), dest.Port())
	c.looked, c.orphan = policy.Name{}, false
	if c.s.names.contains(c.dest.Addr()) {
		c.looked = c.s.names.name(c.dest.Addr())
		c.orphan = c.looked.IsZero()
	}
}

// tunnelTo serves what the agent asked for by a front as if it had connected
// there. A name counts like one that was looked up: what is inside must agree.
func (c *conn) tunnelTo(ctx context.Context, f front, t target) {
	c.front = f
	if t.name.IsZero() {
		c.aim(netip.AddrPortFrom(t.addr, t.port))
	} else {
		c.dest, c.looked = netip.AddrPortFrom(c.dest.Addr(), t.port), t.name
	}
	c.serve(ctx)
}

// grant tells the agent that its tunnel is there, if it asked for one.
func (c *conn) grant() {
	if c.front != nil {
		c.tcp.SetDeadline(time.Now().Add(c.s.timeouts.refuse))
		c.tcp.Write(c.front.granted())
		c.tcp.SetDeadline(time.Time{})
		c.front = nil
	}
}
