package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"cofferdam.dev/cofferdam/proxy/policy"
)

// maxAnswers bounds the addresses of one name that are looked at.
const maxAnswers = 64

// errResolve is returned for a name that has no address, or none that was told.
var errResolve = errors.New("resolve")

// newResolvers returns one resolver for each server, or a single one for those
// of the host's resolv.conf. They are Go's own, which start no processes, ask for
// A and AAAA at once, ask again by TCP what did not fit, and merge questions that
// are the same at the same time. Like every program of the host they look into
// its hosts file first, if nsswitch.conf has it first: what stands there passes
// the same filter of addresses. kept is nil if servers are given.
func newResolvers(servers []netip.AddrPort) (resolvers []*net.Resolver, kept *keptServers) {
	if len(servers) == 0 {
		kept = &keptServers{read: func() ([]byte, error) { return os.ReadFile("/etc/resolv.conf") }}
		kept.instead("") // while it can be read
		return []*net.Resolver{{PreferGo: true, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, kept.instead(address))
		}}}, kept
	}
	resolvers = make([]*net.Resolver, len(servers))
	for i, server := range servers {
		resolvers[i] = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, server.String())
		}}
	}
	return resolvers, nil
}

// SetResolvConf tells the server what the host's resolv.conf says now, in case
// that it cannot read it itself. It may be called at any time.
func (s *Server) SetResolvConf(text []byte) {
	if s.kept != nil {
		s.kept.keep(text)
	}
}

// lookup resolves a name in UPLINK: an allowed one, or the upstream proxy's. The
// name is absolute: the host's search list must not turn it into another. The
// next server is asked when one fails or is slow; that a name does not exist is
// an answer, which the next one does not change. At most maxAnswers addresses
// come back, the families in turns.
func (s *Server) lookup(ctx context.Context, name policy.Name) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeouts.resolve)
	defer cancel()
	type answer struct {
		addrs []netip.Addr
		none  error
	}
	ask := func(ctx context.Context, r *net.Resolver) (answer, error) {
		addrs, err := r.LookupNetIP(ctx, "ip", name.String()+".")
		e, ok := errors.AsType[*net.DNSError](err)
		switch {
		case !ok:
			return answer{addrs: addrs}, err
		case e.IsNotFound:
			return answer{none: errors.New(e.Err)}, nil
		}
		return answer{}, errors.New(lastPart(e.Err)) // without the name, which the record has
	}
	a, err := race(ctx, s.timeouts.server, s.servers, ask, func(answer) {})
	if err = errors.Join(err, a.none); err != nil {
		return nil, fmt.Errorf("%w: %w", errResolve, err)
	}
	for i := range a.addrs {
		a.addrs[i] = a.addrs[i].Unmap()
	}
	addrs := interleave(a.addrs)
	return addrs[:min(len(addrs), maxAnswers)], nil
}

// lastPart is what went wrong in the text of an error without what was being done:
// package net writes "read udp HOST:PORT->SERVER:53: read: connection refused", and
// neither address is the agent's business.
func lastPart(text string) string { return text[strings.LastIndex(": "+text, ": "):] }

// interleave orders addresses so that the families take turns, beginning with
// that of the first (RFC 8305, 4).
func interleave(addrs []netip.Addr) []netip.Addr {
	var families [2][]netip.Addr
	for _, a := range addrs {
		i := 0
		if a.Is4() != addrs[0].Is4() {
			i = 1
		}
		families[i] = append(families[i], a)
	}
	n := min(len(families[0]), len(families[1]))
	mixed := make([]netip.Addr, 0, len(addrs))
	for i := range n {
		mixed = append(mixed, families[0][i], families[1][i])
	}
	return slices.Concat(mixed, families[0][n:], families[1][n:])
}
