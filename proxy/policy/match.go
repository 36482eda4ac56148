package policy

import (
	"fmt"
	"net/netip"
	"slices"
)

// The reasons of decisions that need no detail.
const (
	reasonAllowed   = "a rule allows it"
	reasonDenied    = "a rule denies it"
	reasonNoPolicy  = "no policy allows anything"
	reasonNoRule    = "no rule allows it"
	reasonNoAddress = "no rule names this address"
	reasonNothing   = "neither host name nor address"
)

// Decide applies the policy to one request, in this order:
//
//  1. No policy: deny.
//  2. No name: only a rule that pins exactly this address on this port can
//     allow it, by its protocol.
//  3. A deny rule that matches name and port, by any pattern: deny.
//  4. Of the allow rules that match name and port the most specific decides:
//     the exact name before a wildcard, the longer wildcard before the shorter.
//     None: deny.
//  5. The protocol must be that rule's.
//  6. An address, if the request has one: it must be one that the rule pins or,
//     if it pins none, global unicast.
//
// For protocol DNS the question is whether 3 to 5 could allow the name on any
// port; the request's port and address play no part.
func (p *Policy) Decide(r Request) Decision {
	switch {
	case p == nil || len(p.rules) == 0:
		return Decision{Reason: reasonNoPolicy}
	case r.Name.IsZero() && !r.Addr.IsValid():
		return Decision{Reason: reasonNothing}
	case r.Name.IsZero():
		return p.decideAddress(r)
	case r.Protocol == DNS:
		return p.decideLookup(r.Name)
	}
	deny, allow := p.match(r.Name, r.Port)
	switch {
	case deny != nil:
		return Decision{Reason: reasonDenied, Rule: deny.text}
	case allow == nil:
		if p.decideLookup(r.Name).Verdict == Allow {
			return Decision{Reason: fmt.Sprintf("no rule allows port %d", r.Port)}
		}
		return Decision{Reason: reasonNoRule}
	}
	d := allowedBy(allow, r.Protocol)
	if d.Verdict != Allow || !r.Addr.IsValid() {
		return d
	}
	reason := ""
	if len(allow.Addresses) > 0 {
		if !slices.Contains(allow.Addresses, r.Addr.Unmap()) {
			reason = fmt.Sprintf("address %s is not one that the rule names", r.Addr)
		}
	} else if kind := special(r.Addr); kind != "" {
		reason = fmt.Sprintf("address %s is %s", r.Addr, kind)
	}
	if reason != "" {
		return Decision{Reason: reason, Rule: allow.text, Expects: allow.Protocol}
	}
	return d
}

// allowedBy is the decision of an allow rule that matches all but the protocol.
func allowedBy(rule *Rule, protocol Protocol) Decision {
	d := Decision{Rule: rule.text, Expects: rule.Protocol}
	if protocol != rule.Protocol {
		d.Reason = "the rule allows " + rule.Protocol.String() + " only"
		return d
	}
	d.Verdict, d.Reason, d.Addresses = Allow, reasonAllowed, rule.Addresses
	return d
}

func (p *Policy) decideAddress(r Request) Decision {
	addr := r.Addr.Unmap()
	rule := p.addrs[netip.AddrPortFrom(addr, r.Port)]
	if rule == nil {
		return Decision{Reason: reasonNoAddress}
	}
	d := allowedBy(rule, r.Protocol)
	if d.Verdict == Allow {
		d.Addresses = []netip.Addr{addr}
	}
	return d
}

// match returns the most specific deny and the most specific allow rule for a
// name on a port.
func (p *Policy) match(name Name, port uint16) (deny, allow *Rule) {
	note := func(e *entry) {
		if r := e.denied(port); r != nil {
			deny = r
		}
		if r := e.allow[port]; r != nil {
			allow = r
		}
	}
	p.root.walk(name, note)
	return deny, allow
}

// walk calls note for each entry that is about the name, the least specific
// first.
func (n *node) walk(name Name, note func(*entry)) {
	rest := name.String()
	for rest != "" {
		note(&n.below)
		var label string
		rest, label = cutLast(rest)
		if n = n.children[label]; n == nil {
			return
		}
	}
	note(&n.exact)
}

// decideLookup asks whether a connection to the name could be allowed at all. Of
// several rules that could, the first of the file is named.
func (p *Policy) decideLookup(name Name) Decision {
	var denied, allowed *Rule
	p.root.walk(name, func(e *entry) {
		if e.denyAll != nil {
			denied = e.denyAll
		}
		for port := range e.allow {
			switch deny, allow := p.match(name, port); {
			case deny != nil:
				denied = deny
			case allowed == nil || allow.Line < allowed.Line:
				allowed = allow
			}
		}
	})
	switch {
	case allowed != nil:
		return Decision{Verdict: Allow, Reason: reasonAllowed, Rule: allowed.text}
	case denied != nil:
		return Decision{Reason: reasonDenied, Rule: denied.text}
	}
	return Decision{Reason: reasonNoRule}
}
