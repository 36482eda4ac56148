package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sync/errgroup"

	"cofferdam.dev/cofferdam/proxy/policy"
	"cofferdam.dev/cofferdam/proxy/record"
	"cofferdam.dev/cofferdam/proxy/upstream"
)

// Config is what a server needs. Every field without a stated default is
// required, but Policy.
type Config struct {
	// Policy decides until SetPolicy replaces it; nil denies everything.
	Policy *policy.Policy

	// Records takes one record per decision. The caller closes its file after
	// Serve has returned.
	Records *record.Writer

	// TCP accepts connections whose local address is the original destination.
	// Serve closes it.
	TCP *net.TCPListener

	// DNS receives queries to any address, which is where the answers come from.
	// Serve closes it.
	DNS *net.UDPConn

	// Names is the file of synthetic addresses, opened for reading and appending.
	// It is the caller's to close.
	Names *os.File

	// Pool is the IPv4 prefix of synthetic addresses, the same as long as Names
	// is kept.
	Pool netip.Prefix

	// Box is the agent's address: the only peer that is served.
	Box netip.Addr

	// Gate is the proxy's own address as the agent sees it, where programs that
	// insist on a proxy find one: see gate.go. The zero Addr offers none.
	Gate netip.Addr

	// Resolver lists DNS servers, tried in order; empty means the host's
	// resolv.conf. Its order of hosts file and DNS holds in either case.
	Resolver []netip.AddrPort

	// Proxy is the HTTP proxy that carries what is allowed; nil: none does.
	Proxy *upstream.Proxy

	// MaxConns bounds the connections that are open at once, 2048 if zero.
	// Further ones wait in the listener's queue.
	MaxConns int
}

// Server is the proxy of one sandbox.
type Server struct {
	cfg      Config
	policy   atomic.Pointer[policy.Policy]
	live     live
	dns      *ipv4.PacketConn
	names    *names
	servers  []*net.Resolver // asked in this order
	kept     *keptServers    // nil if the servers are not the host's
	lookups  lookups
	denials  *denials
	timeouts timeouts
	budgets  *budgets
	splices  chan struct{} // one token per direction that is spliced
	buffers  bufferPool
	open     chan struct{} // one token per connection
	streams  chan struct{} // one token per connection that carries DNS
	pending  chan struct{} // one token per name being resolved or address dialled
	caps     caps
	queries  pace
	conns    atomic.Uint64 // the last connection's number
}

// timeouts are constants outside of tests.
type timeouts struct {
	peek     time.Duration // for the first bytes where a rule expects some
	refuse   time.Duration // for the first bytes of what is refused anyhow
	identify time.Duration // for the first lines of both sides of SSH
	dial     time.Duration // for all addresses of one name, and the upstream proxy's answer
	attempt  time.Duration // for one address
	stagger  time.Duration // before the next address is tried beside one that has not answered
	resolve  time.Duration // for one name
	server   time.Duration // before the next server is asked beside one that has not answered
	pending  time.Duration // for a place among those
	idle     time.Duration // without a byte in either direction
	total    time.Duration // of one connection, however busy
	dns      time.Duration // for the next query of a stream
	keep     time.Duration // for the next HTTP request
	head     time.Duration // for the rest of the head of one
}

// maxSplices keeps the pipes of one proxy well below the 64 that the kernel
// grants an unprivileged user at full size (fs.pipe-user-pages-soft).
const maxSplices = 16

// New checks the configuration and restores the synthetic addresses.
func New(cfg Config) (*Server, error) {
	switch {
	case cfg.Records == nil:
		return nil, errors.New("new proxy: missing Records")
	case cfg.TCP == nil || cfg.DNS == nil:
		return nil, errors.New("new proxy: missing listener")
	case cfg.Names == nil:
		return nil, errors.New("new proxy: missing Names")
	case !cfg.Box.IsValid():
		return nil, errors.New("new proxy: missing Box")
	case len(cfg.Resolver) > upstream.MaxServers:
		return nil, fmt.Errorf("new proxy: %d resolvers, %d at most", len(cfg.Resolver), upstream.MaxServers)
	case cfg.Proxy != nil && (cfg.Proxy.Host == "" || cfg.Proxy.Port == 0):
		return nil, errors.New("new proxy: upstream proxy without host or port")
	case cfg.MaxConns < 0:
		return nil, fmt.Errorf("new proxy: MaxConns is %d", cfg.MaxConns)
	case cfg.MaxConns == 0:
		cfg.MaxConns = 2048
	}
	names, err := openNames(cfg.Names, cfg.Pool)
	if err != nil {
		return nil, fmt.Errorf("new proxy: %w", err)
	}
	dns := ipv4.NewPacketConn(cfg.DNS)
	if err := dns.SetControlMessage(ipv4.FlagDst, true); err != nil {
		return nil, fmt.Errorf("new proxy: dns socket: %w", err)
	}
	s := &Server{
		cfg:     cfg,
		dns:     dns,
		names:   names,
		splices: make(chan struct{}, maxSplices),
		denials: newDenials(cfg.Records, time.Now),
		budgets: newBudgets(time.Now),
		open:    make(chan struct{}, cfg.MaxConns),
		streams: make(chan struct{}, maxStreams),
		pending: make(chan struct{}, maxPending),
		timeouts: timeouts{
			peek: 10 * time.Second, refuse: time.Second, identify: time.Minute,
			dial: 30 * time.Second, attempt: 10 * time.Second, stagger: 250 * time.Millisecond,
			resolve: 10 * time.Second, server: time.Second, pending: 10 * time.Second,
			idle: time.Hour, total: 24 * time.Hour, dns: 10 * time.Second,
			keep: 2 * time.Minute, head: 10 * time.Second,
		},
	}
	s.servers, s.kept = newResolvers(cfg.Resolver)
	s.policy.Store(cfg.Policy)
	return s, nil
}

// Serve answers and relays until ctx ends, and then returns nil once every
// connection is closed. It closes the two sockets of the Config.
func (s *Server) Serve(ctx context.Context) error {
	// If this cannot be recorded nothing else can: decide refuses it all.
	s.cfg.Records.Write(record.Record{Kind: record.Proxy, Reason: "started"})
	g, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, func() {
		s.cfg.TCP.Close()
		s.cfg.DNS.Close()
	})
	defer stop()
	g.Go(func() error { return s.serveDNS(ctx) })
	g.Go(func() error { return s.accept(ctx) })
	err := g.Wait()
	s.denials.flush()
	s.cfg.Records.Write(record.Record{Kind: record.Proxy, Reason: "stopped"})
	return err
}

// maxWaiting bounds the goroutines that wait for a next connection: their stacks
// have grown already.
const maxWaiting = 16

// accept serves connections, at most MaxConns at once, until ctx ends.
func (s *Server) accept(ctx context.Context) error {
	var serving sync.WaitGroup
	defer serving.Wait()
	next := make(chan *net.TCPConn) // to a goroutine that has served one
	defer close(next)
	var waiting atomic.Int64 // of those
	delay := time.Duration(0)
	for {
		select {
		case s.open <- struct{}{}:
		default:
			s.reached(fmt.Sprintf("%d connections are open: further ones wait", cap(s.open)))
			select {
			case s.open <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
		}
		tcp, err := s.cfg.TCP.AcceptTCP()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				tcp.Close()
			}
			return nil
		case err != nil && !temporary(err):
			return fmt.Errorf("accept: %w", err)
		case err != nil:
			// Out of descriptors or memory: connections that end will free some.
			<-s.open
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			select {
			case <-time.After(delay):
			case <-ctx.Done():
				return nil
			}
			continue
		}
		delay = 0
		select {
		case next <- tcp:
			waiting.Add(-1)
			continue
		default:
		}
		serving.Go(func() {
			for ok := true; ok; tcp, ok = <-next {
				s.serveConn(ctx, tcp)
				<-s.open
				if waiting.Add(1) > maxWaiting {
					waiting.Add(-1)
					return
				}
			}
		})
	}
}

// temporary reports errors of accept(2) that say nothing about the listener.
func temporary(err error) bool {
	for _, errno := range []syscall.Errno{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
		syscall.ECONNABORTED, syscall.EPERM, syscall.EINTR, syscall.ENETDOWN, syscall.EPROTO,
		syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.EHOSTDOWN, syscall.ENOPROTOOPT, syscall.EOPNOTSUPP,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}
