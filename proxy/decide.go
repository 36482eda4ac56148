package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"cofferdam.dev/cofferdam/proxy/policy"
)

// question is everything that a decision is about. The sandbox is the server's:
// there is one process for each.
type question struct {
	policy.Request

	// looked is the name behind the synthetic address that was dialled; zero if
	// the agent dialled another address.
	looked policy.Name

	// orphan is set for an address of the pool that stands for no name.
	orphan bool

	// connection and request say that one is made if it is allowed, and counted
	// against the rule's budget by that very decision. Decisions about its address
	// that follow leave them out.
	connection, request bool

	// budgets are what an allowed connection or request is charged to.
	budgets policy.Budgets

	// problem is what is wrong with what the agent sent; empty if nothing is.
	// alert is how TLS says so; zero for access_denied.
	problem string
	alert   byte

	// ech is set for a TLS hello that may hold another name than the one asked
	// about, for the server alone to read.
	ech bool
}

// decide is the one decision (I2). Nothing is resolved, dialled or relayed
// unless it has said Allow to exactly that: first about the name, then about the
// name with the address that it resolved to, and again in the control hook of
// the socket before it connects. It denies, in this order:
//
//  1. everything, once decisions cannot be recorded any more (I7)
//  2. an address of the pool that stands for no name
//  3. a name on the wire other than the one that was looked up
//  4. what the policy does not allow
//  5. what is malformed, or hides its name: an encrypted client hello does,
//     unless the rule accepts it
//  6. an address of this very host, unless a rule pins it, of each layer
//  7. what the budget of a rule has no room for
func (s *Server) decide(q question) policy.Decision {
	d := s.policy.Load().Decide(q.Request)
	deny := func(reason string) policy.Decision {
		return policy.Decision{Reason: reason, Rule: d.Rule, Expects: d.Expects}
	}
	if q.ech && !d.ECH {
		q.problem = "TLS with an encrypted client hello (ECH)"
	}
	also := ""
	if q.problem != "" {
		also = q.problem + ", and "
	}
	switch {
	case s.cfg.Records.Stopped():
		return deny("the record log is full, or cannot be written")
	case q.orphan:
		return deny("a synthetic address that stands for no name")
	case !q.looked.IsZero() && q.Name != q.looked:
		return deny(also + fmt.Sprintf("the name is not %s, which the address stands for", q.looked))
	case d.Verdict != policy.Allow:
		if d.Rule == "" {
			return deny(also + d.Reason)
		}
		return d
	case q.problem != "":
		return deny(q.problem)
	case q.Addr.IsValid() && !d.Pinned && isOwn(q.Addr):
		return deny(fmt.Sprintf("address %s is this host's own", q.Addr))
	}
	// Last, since it counts what it allows.
	if over := s.budgets.admit(d.Budgets, q.connection, q.request); over != nil {
		denial := deny(over.Error())
		denial.Budgets = d.Budgets
		if !strings.HasPrefix(d.Rule, over.rule) { // it is another layer's
			denial.Rule = over.rule
		}
		return denial
	}
	return d
}

// isOwn reports whether the address belongs to this host, where services listen
// that nothing outside can reach. Connecting a UDP socket sends nothing; the
// kernel then takes the destination for the source if it is local.
func isOwn(a netip.Addr) bool {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 9)))
	if err != nil {
		return false // no route: the connection will fail too
	}
	defer conn.Close()
	local, ok := conn.LocalAddr().(*net.UDPAddr)
	return ok && local.AddrPort().Addr().Unmap() == a.Unmap()
}
