package proxy

import (
	"fmt"
	"sync"
	"time"

	"cofferdam.dev/cofferdam/proxy/policy"
)

// budgets counts what is used of the rules' budgets. What the rule's names and
// ports use is one sum. It lives in memory: a proxy that is started anew counts
// from nothing, and its record "started" says when.
type budgets struct {
	now   func() time.Time
	start time.Time

	mu      sync.Mutex // guards the rest
	used    map[string]*usage
	current map[string]*policy.Budget // of the policy in force
}

// usage is what is used of one budget.
type usage struct{ up, down, connections, requests meter }

func newBudgets(now func() time.Time) *budgets {
	return &budgets{now: now, start: now(), used: make(map[string]*usage)}
}

// adopt makes the budgets of a policy the ones by which open connections go on.
func (b *budgets) adopt(current map[string]*policy.Budget) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.current = current
}

// overBudget is the reason of what crosses a budget, or would.
type overBudget struct {
	rule string
	what string        // of the budget, in the policy's syntax
	wait time.Duration // until some of it is free again; zero is never
}

func (e *overBudget) Error() string { return "the rule's budget is used up: " + e.what }

// admit asks whether all budgets have room for a connection or a request, takes
// the connection and the request of each if so, and returns why if not. It takes
// no bytes, but without any left nothing is admitted.
func (b *budgets) admit(all policy.Budgets, connection, request bool) *overBudget {
	if all == (policy.Budgets{}) {
		return nil
	}
	now := b.now().Sub(b.start)
	b.mu.Lock()
	defer b.mu.Unlock()
	if over := b.over(all, now, connection, request); over != nil {
		return over
	}
	for _, budget := range all {
		if budget == nil {
			continue
		}
		u := b.usage(budget)
		if connection {
			u.connections.take(1)
		}
		if request {
			u.requests.take(1)
		}
	}
	return nil
}

// wait is how long nothing of the kind will be admitted; zero if it is for ever.
func (b *budgets) wait(all policy.Budgets, connection, request bool) time.Duration {
	now := b.now().Sub(b.start)
	b.mu.Lock()
	defer b.mu.Unlock()
	if over := b.over(all, now, connection, request); over != nil {
		return over.wait
	}
	return time.Nanosecond // it has become free meanwhile
}

// over finds the quota of which nothing is left, and of several the one that will
// be free last. b.mu is held.
func (b *budgets) over(all policy.Budgets, now time.Duration, connection, request bool) (worst *overBudget) {
	for _, budget := range all {
		if budget == nil {
			continue
		}
		over := b.overOne(budget, now, connection, request)
		if worst == nil || over != nil && worst.wait != 0 && (over.wait == 0 || over.wait > worst.wait) {
			worst = over
		}
	}
	return worst
}

// overOne finds the first quota of a budget of which nothing is left. b.mu is held.
func (b *budgets) overOne(budget *policy.Budget, now time.Duration, connection, request bool) *overBudget {
	u := b.usage(budget)
	for _, part := range []struct {
		key   string
		quota *policy.Quota
		meter *meter
		text  func(policy.Quota) string
		asked bool
	}{
		{"up", budget.Up, &u.up, policy.Quota.Bytes, true},
		{"down", budget.Down, &u.down, policy.Quota.Bytes, true},
		{"connections", budget.Connections, &u.connections, policy.Quota.Count, connection},
		{"requests", budget.Requests, &u.requests, policy.Quota.Count, request},
	} {
		if part.quota != nil && part.asked && part.meter.left(*part.quota, now) <= 0 {
			return &overBudget{budget.Key, part.key + " " + part.text(*part.quota), part.meter.wait(*part.quota, now)}
		}
	}
	return nil
}

// usage finds what is used of a budget. b.mu is held.
func (b *budgets) usage(budget *policy.Budget) *usage {
	u := b.used[budget.Key]
	if u == nil {
		u = &usage{}
		b.used[budget.Key] = u
	}
	return u
}

// spend takes n bytes of a budget. It returns how many of them may be passed on,
// and an *overBudget if that is not all: then the connection has crossed it.
type spend func(n int) (int, error)

// up is the budget of bytes from the agent, or nil if they are not bounded.
func (b *budgets) up(all policy.Budgets) spend {
	return b.bytes("up", all, func(b *policy.Budget) *policy.Quota { return b.Up }, func(u *usage) *meter { return &u.up })
}

// down is the budget of bytes to the agent, or nil if they are not bounded.
func (b *budgets) down(all policy.Budgets) spend {
	return b.bytes("down", all, func(b *policy.Budget) *policy.Quota { return b.Down }, func(u *usage) *meter { return &u.down })
}

// bytes counts by the quotas of the rules in the policy in force; without one
// there the quota that it began with holds on. Of several budgets the one with
// the least room counts, and all are charged.
func (b *budgets) bytes(key string, all policy.Budgets, quota func(*policy.Budget) *policy.Quota, of func(*usage) *meter) spend {
	var bounded []*policy.Budget
	for _, budget := range all {
		if budget != nil && quota(budget) != nil {
			bounded = append(bounded, budget)
		}
	}
	if bounded == nil {
		return nil
	}
	return func(n int) (int, error) {
		now := b.now().Sub(b.start)
		b.mu.Lock()
		defer b.mu.Unlock()
		granted := int64(n)
		var over *overBudget
		for _, budget := range bounded {
			q := *quota(budget)
			if current := b.current[budget.Key]; current != nil && quota(current) != nil {
				q = *quota(current)
			}
			m := of(b.usage(budget))
			if left := max(m.left(q, now), 0); left < granted {
				granted = left
				over = &overBudget{budget.Key, key + " " + q.Bytes(), m.wait(q, now)}
			}
		}
		for _, budget := range bounded {
			of(b.usage(budget)).take(granted)
		}
		if over != nil {
			return int(granted), over
		}
		return n, nil
	}
}

// meterSlots divides a window: what is used counts for as long as the window and
// up to one part more.
const meterSlots = 16

// meter counts what was used in a window that moves on with time, by slots of
// time: the current one and those that the window still touches. So in no period
// of the window's length more is used than the quota; what was used is free
// again at most a sixteenth of the window late.
type meter struct {
	slots  [meterSlots + 1]int64 // a ring
	newest int64                 // number of the current slot since the start
	used   int64                 // in all slots
	per    time.Duration         // the window; zero until there is one
}

// left moves the window on and returns what of the quota is not used. If the
// window is another one than before, what was used counts as used just now.
func (m *meter) left(q policy.Quota, now time.Duration) int64 {
	if q.Per > 0 {
		current := int64(now / (q.Per / meterSlots))
		if m.per != q.Per {
			*m = meter{used: m.used, newest: current, per: q.Per}
			m.slots[current%int64(len(m.slots))] = m.used
		}
		for gone := min(current-m.newest, int64(len(m.slots))); gone > 0; gone-- {
			slot := &m.slots[(current-gone+1)%int64(len(m.slots))]
			m.used -= *slot
			*slot = 0
		}
		m.newest = max(m.newest, current)
	}
	return q.Most - m.used
}

// take uses n in the current slot.
func (m *meter) take(n int64) {
	m.slots[m.newest%int64(len(m.slots))] += n
	m.used += n
}

// wait is the time until what was used first is free again.
func (m *meter) wait(q policy.Quota, now time.Duration) time.Duration {
	if q.Per == 0 {
		return 0
	}
	width, size := q.Per/meterSlots, int64(len(m.slots))
	oldest := m.newest
	for n := max(m.newest-size+1, 0); n < m.newest; n++ {
		if m.slots[n%size] > 0 {
			oldest = n
			break
		}
	}
	return time.Duration(oldest+size)*width - now
}

// retryAfter is what an HTTP client is told to wait, in whole seconds.
func retryAfter(wait time.Duration) string {
	return fmt.Sprint(int64((wait + time.Second - 1) / time.Second))
}
