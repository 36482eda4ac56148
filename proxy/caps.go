package proxy

import (
	"context"
	"fmt"
	"sync"
	"time"

	"cofferdam.dev/cofferdam/proxy/record"
)

// What one sandbox may hold of the proxy at once, beside Config.MaxConns and
// maxNames. It is all the sandbox's own: an agent that uses it up waits for
// itself. Memory follows from it: a connection holds two buffers of bufferSize, or
// of HTTP a head in either direction, as it came, parsed, and written anew. Package
// process bounds the whole.
const (
	maxPending = 128 // names that are resolved and addresses that are dialled
	maxStreams = 64  // TCP connections to port 53
)

// Queries are answered at once, as many as maxQueryBurst, and then maxQueries a
// second: each costs the host more than the agent, and names that are asked for
// faster than that are not there to be connected to.
const (
	maxQueries    = 5000
	maxQueryBurst = 5000
)

// capInterval is the time between two records of one cap.
const capInterval = time.Minute

// caps remembers which caps were reached, so that a person is told once per
// interval and not once per connection.
type caps struct {
	mu   sync.Mutex // guards said
	said map[string]time.Time
}

// pace spreads what comes faster than so many a second; the zero pace is ready.
// It is safe for concurrent use.
type pace struct {
	mu  sync.Mutex
	due time.Time // of the next one, were there no bursts
}

// take tells how long to wait before one more.
func (p *pace) take(now time.Time, perSecond, burst int) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	every := time.Second / time.Duration(perSecond)
	if p.due.Before(now) {
		p.due = now
	}
	p.due = p.due.Add(every)
	return max(p.due.Sub(now)-time.Duration(burst)*every, 0)
}

// pauseOfQueries is how long a flood waits at a time: what comes meanwhile queues
// in the socket, and beyond that is lost.
const pauseOfQueries = 10 * time.Millisecond

// paceQuery waits until one more query may be answered.
func (s *Server) paceQuery(ctx context.Context) {
	wait := s.queries.take(time.Now(), maxQueries, maxQueryBurst)
	if wait == 0 {
		return
	}
	s.reached(fmt.Sprintf("%d DNS queries a second are answered: further ones wait or are lost", maxQueries))
	select {
	case <-time.After(wait + pauseOfQueries):
	case <-ctx.Done():
	}
}

// reached records that a cap was. what it says has no part that the agent chose.
func (s *Server) reached(what string) {
	if s.cfg.Records.Stopped() {
		return // the rest of the log is for connections that end
	}
	s.caps.mu.Lock()
	defer s.caps.mu.Unlock()
	if last, ok := s.caps.said[what]; ok && s.budgets.now().Sub(last) < capInterval {
		return
	}
	if s.caps.said == nil {
		s.caps.said = make(map[string]time.Time)
	}
	s.caps.said[what] = s.budgets.now()
	s.cfg.Records.Write(record.Record{Kind: record.Proxy, Reason: what})
}

// begin takes a place among what is resolved or dialled, waiting for one if need
// be, but not for long. done gives it back.
func (s *Server) begin(ctx context.Context) (done func(), err error) {
	done = func() { <-s.pending }
	select {
	case s.pending <- struct{}{}:
		return done, nil
	default:
	}
	wait := time.NewTimer(s.timeouts.pending)
	defer wait.Stop()
	select {
	case s.pending <- struct{}{}:
		return done, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-wait.C:
		what := fmt.Sprintf("%d connections are being made at once: further ones are refused", cap(s.pending))
		s.reached(what)
		return nil, fmt.Errorf("refused: %s", what)
	}
}
