package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"cofferdam.dev/cofferdam/proxy/policy"
)

// maxTargets bounds the addresses of one name that are tried.
const maxTargets = 8

// authorize decides about a question, resolves the name if that is allowed, and
// decides again about each address. The targets are those that are allowed. If
// none is, the decision is the denial of one of them; if there is none at all,
// the decision stands and failure says why. A name that the upstream proxy
// resolves has one target, without an address.
func (s *Server) authorize(ctx context.Context, q question) (d policy.Decision, targets []netip.AddrPort, failure error) {
	d = s.decide(q)
	if d.Verdict != policy.Allow {
		return d, nil, nil
	}
	q.connection, q.request = false, false // counted
	addrs := interleave(d.Addresses)
	if len(addrs) == 0 {
		if s.cfg.Proxy.Carries(q.Name.String(), netip.Addr{}) {
			return d, []netip.AddrPort{netip.AddrPortFrom(netip.Addr{}, q.Port)}, nil
		}
		done, err := s.begin(ctx)
		if err != nil {
			return d, nil, err
		}
		addrs, failure = s.lookup(ctx, q.Name)
		done()
		if failure != nil {
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

// dial connects to the target that answers first. What it connects to was
// decided before, and is decided once more where it cannot change any more.
func (s *Server) dial(ctx context.Context, q question, targets []netip.AddrPort) (*net.TCPConn, error) {
	done, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, s.timeouts.dial)
	defer cancel()
	return race(ctx, s.timeouts.stagger, targets, func(ctx context.Context, target netip.AddrPort) (*net.TCPConn, error) {
		q := q
		q.Addr = target.Addr()
		q.connection, q.request = false, false // counted when it was authorized
		if s.cfg.Proxy.Carries(q.Name.String(), q.Addr) {
			conn, err := s.through(ctx, q)
			if err != nil {
				return nil, fmt.Errorf("upstream proxy: %w", err)
			}
			return conn, nil
		}
		conn, err := s.connect(ctx, target, func(address string) error { return s.check(q, address) })
		if err != nil {
			return nil, fmt.Errorf("dial %s: %w", target, err)
		}
		return conn, nil
	}, func(c *net.TCPConn) { c.Close() })
}

// connect makes one TCP connection, after check has agreed to the address that
// the socket is about to connect to. Its error does not name the address.
func (s *Server) connect(ctx context.Context, target netip.AddrPort, check func(address string) error) (*net.TCPConn, error) {
	dialer := net.Dialer{
		Timeout:         s.timeouts.attempt,
		KeepAliveConfig: keepAliveProbes,
		ControlContext:  func(_ context.Context, _, address string, _ syscall.RawConn) error { return check(address) },
	}
	dialer.SetMultipathTCP(false)
	conn, err := dialer.DialContext(ctx, "tcp", target.String())
	if err != nil {
		return nil, cause(err)
	}
	return conn.(*net.TCPConn), nil
}

// cause is what went wrong without what was being done.
func cause(err error) error {
	if e, ok := errors.AsType[*net.OpError](err); ok {
		err = e.Err
	}
	if e, ok := errors.AsType[*os.SyscallError](err); ok {
		err = e.Err
	}
	return err
}

// check decides about the address that a socket is about to connect to.
func (s *Server) check(q question, address string) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	q.Addr, q.Port = at.Addr(), at.Port()
	if d := s.decide(q); d.Verdict != policy.Allow {
		return &denied{d}
	}
	return nil
}
