package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"

	"cofferdam.dev/cofferdam/proxy/policy"
)

// maxTargets bounds the addresses of one name that are tried.
const maxTargets = 8

// newResolver returns the resolver for the given servers, or for those of the
// host's resolv.conf. It is Go's own, which starts no processes.
func newResolver(servers []netip.AddrPort) *net.Resolver {
	r := &net.Resolver{PreferGo: true}
	if len(servers) > 0 {
		var turn atomic.Uint32
		r.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			// The resolver asks anew after a failure: then it is the next one's turn.
			server := servers[int(turn.Add(1)-1)%len(servers)]
			return (&net.Dialer{}).DialContext(ctx, network, server.String())
		}
	}
	return r
}

// authorize decides about a question, resolves the name if that is allowed, and
// decides again about each address. The targets are those that are allowed. If
// none is, the decision is the denial of one of them; if there is none at all,
// the decision stands and failure says why.
func (s *Server) authorize(ctx context.Context, q question) (d policy.Decision, targets []netip.AddrPort, failure error) {
	d = s.decide(q)
	if d.Verdict != policy.Allow {
		return d, nil, nil
	}
	addrs := d.Addresses
	if len(addrs) == 0 {
		if addrs, failure = s.lookup(ctx, q.Name); failure != nil {
			return d, nil, failure
		}
	}
	for _, addr := range addrs {
		q.Addr = addr
		if da := s.decide(q); da.Verdict != policy.Allow {
			if len(targets) == 0 {
				d = da
			}
			continue
		} else if len(targets) == 0 {
			d = da
		}
		if targets = append(targets, netip.AddrPortFrom(addr, q.Port)); len(targets) == maxTargets {
			break
		}
	}
	return d, targets, nil
}

// lookup resolves an allowed name in the host's network. The name is absolute:
// the host's search list must not turn it into another.
func (s *Server) lookup(ctx context.Context, name policy.Name) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeouts.resolve)
	defer cancel()
	addrs, err := s.resolver.LookupNetIP(ctx, "ip", name.String()+".")
	if err != nil {
		return nil, fmt.Errorf("resolve: %w", plainDNSError(err))
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return addrs, nil
}

// plainDNSError leaves out the name and server, which the record has or should
// not tell.
func plainDNSError(err error) error {
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return errors.New(e.Err)
	}
	return err
}

// dial connects to the first target that answers. What it connects to was
// decided before, and is decided once more where it cannot change any more.
func (s *Server) dial(ctx context.Context, q question, targets []netip.AddrPort) (*net.TCPConn, error) {
	var errs []error
	for _, target := range targets {
		q.Addr = target.Addr()
		dialer := net.Dialer{
			Timeout: s.timeouts.dial,
			ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
				return s.check(q, address)
			},
		}
		dialer.SetMultipathTCP(false)
		conn, err := dialer.DialContext(ctx, "tcp", target.String())
		if err == nil {
			return conn.(*net.TCPConn), nil
		}
		if errs = append(errs, err); ctx.Err() != nil {
			break
		}
	}
	if len(errs) == 0 {
		return nil, errors.New("dial: no address")
	}
	return nil, errs[0] // of the address that was preferred
}

// check decides about the address that a socket is about to connect to.
func (s *Server) check(q question, address string) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	q.Addr, q.Port = at.Addr(), at.Port()
	if d := s.decide(q); d.Verdict != policy.Allow {
		return errors.New(d.Reason)
	}
	return nil
}
