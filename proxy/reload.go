package proxy

import (
	"sync"

	"cofferdam.dev/cofferdam/proxy/policy"
)

// SetPolicy replaces the policy; nil denies everything. What is decided from now
// on is decided by it, and what is open and would be denied now is reset, with
// the reason in its closing record. Budgets of rules that are still there go on
// counting, with their new amounts, for what is open too. What is open and not
// counted as its rule wants it now is reset, see continues.
func (s *Server) SetPolicy(p *policy.Policy) {
	s.budgets.adopt(p.Budgets())
	s.policy.Store(p)
	s.live.mu.Lock()
	open := make([]*allowed, 0, len(s.live.open))
	for a := range s.live.open {
		open = append(open, a)
	}
	s.live.mu.Unlock()
	for _, a := range open {
		a.changed()
		s.review(a)
	}
}

// allowed is a connection that was allowed and is open.
type allowed struct {
	question func() (q question, ok bool) // about what it is used for; not ok if for nothing right now
	end      func(*revoked)               // resets it
	changed  func()                       // called after each change of the policy
}

// live are the connections that a change of the policy may end.
type live struct {
	mu   sync.Mutex // guards open
	open map[*allowed]struct{}
}

// revoked is the reason of a connection that a new policy denies.
type revoked struct{ reason string }

func (e *revoked) Error() string { return "the policy has changed: " + e.reason }

// watch makes a change of the policy end the connection, until release is called.
// A change that came since it was allowed ends it at once.
func (s *Server) watch(a *allowed) (release func()) {
	s.live.mu.Lock()
	if s.live.open == nil {
		s.live.open = make(map[*allowed]struct{})
	}
	s.live.open[a] = struct{}{}
	s.live.mu.Unlock()
	s.review(a)
	return func() {
		s.live.mu.Lock()
		defer s.live.mu.Unlock()
		delete(s.live.open, a)
	}
}

// review ends what the policy denies.
func (s *Server) review(a *allowed) {
	q, ok := a.question()
	if !ok {
		return
	}
	if d := s.still(q); d.Verdict != policy.Allow {
		a.end(&revoked{d.Reason})
	}
}

// still decides again about what was allowed, and counted then.
func (s *Server) still(q question) policy.Decision {
	q.connection, q.request = false, false
	d := s.decide(q)
	if d.Verdict == policy.Allow && !continues(q.budgets, d.Budgets) {
		return policy.Decision{Reason: "the rule has another budget", Rule: d.Rule}
	}
	return d
}

// continues reports whether what began under some budgets can go on under others:
// if in every layer they are the same rule's, and it has been counted in each
// direction that is bounded now. A rule that has no budget any more takes in
// everything; what was counted goes on under the one that is gone.
func continues(began, now policy.Budgets) bool {
	for layer, now := range now {
		began := began[layer]
		switch {
		case now == nil:
		case began == nil || began.Key != now.Key, now.Up != nil && began.Up == nil, now.Down != nil && began.Down == nil:
			return false
		}
	}
	return true
}
