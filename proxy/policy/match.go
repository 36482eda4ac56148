package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// The reasons of decisions that need no detail.
const (
	reasonAllowed   = "a rule allows it"
	reasonDenied    = "a rule denies it"
	reasonNoPolicy  = "no policy allows anything"
	reasonNoRule    = "no rule allows it"
	reasonNoPort    = "no rule allows this port"
	reasonNoAddress = "no rule names this address"
	reasonDisputed  = "rules with a budget or ech of their own name this address: connect to a name"
	reasonNothing   = "neither host name nor address"
)

// reasonsProtocol are the reasons of a rule for another protocol, by the rule's.
var reasonsProtocol = func() (reasons [len(protocolNames)]string) {
	for p, name := range protocolNames {
		reasons[p] = "the rule allows " + name + " only"
	}
	return reasons
}()

// Decide applies the policy to one request, in this order:
//
//  1. No policy: deny.
//  2. No name: only a rule that pins exactly this address on this port can
//     allow it, by its protocol; of several rules that do none may have a budget,
//     or accept other hellos than the rest.
//  3. A deny rule that matches name and port, by any pattern: deny.
//  4. Of the allow rules that match name and port the most specific decides:
//     the exact name before a wildcard, the longer wildcard before the shorter.
//     None: deny.
//  5. The protocol must be that rule's.
//  6. An address, if the request has one: it must be one that the rule pins or,
//     if it pins none, global unicast.
//
// For protocol DNS the question is whether 3 to 5 could allow the name on any
// port; the request's port and address play no part. Of several rules that
// could, the most specific is named, and of those the first of the file. A name
// that was made with a search suffix is denied there, see decideQuery.
//
// A policy of several layers allows what each of them allows.
func (p *Policy) Decide(r Request) Decision {
	switch {
	case p == nil:
		return Decision{Reason: reasonNoPolicy}
	case len(p.rules) == 0: // those of several layers are the layers'
		if p.layers != nil {
			return p.decideLayers(r)
		}
		return Decision{Reason: reasonNoPolicy}
	case r.Name.IsZero() && !r.Addr.IsValid():
		return Decision{Reason: reasonNothing}
	case r.Name.IsZero():
		return p.decideAddress(r)
	case r.Protocol == DNS:
		return p.decideQuery(r.Name)
	}
	deny, allow, elsewhere := p.match(r.Name, r.Port)
	switch {
	case deny != nil:
		return Decision{Reason: reasonDenied, Rule: deny.text}
	case allow == nil && elsewhere:
		return Decision{Reason: reasonNoPort}
	case allow == nil:
		return Decision{Reason: reasonNoRule}
	}
	d := p.allowedBy(allow, r.Protocol)
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
func (p *Policy) allowedBy(rule *Rule, protocol Protocol) Decision {
	d := Decision{Rule: rule.text, Expects: rule.Protocol}
	if protocol != rule.Protocol {
		d.Reason = reasonsProtocol[rule.Protocol]
		return d
	}
	d.Verdict, d.Reason, d.Addresses, d.Pinned, d.ECH = Allow, reasonAllowed, rule.Addresses, len(rule.Addresses) > 0, rule.ECH
	d.Budgets[p.layer] = rule.Budget
	return d
}

func (p *Policy) decideAddress(r Request) Decision {
	addr := r.Addr.Unmap()
	at := p.addrs[netip.AddrPortFrom(addr, r.Port)]
	rule := at.rule
	switch {
	case rule == nil:
		return Decision{Reason: reasonNoAddress}
	case at.disputed: // a name may be sent along, and decides then
		return Decision{Reason: reasonDisputed, Expects: rule.Protocol}
	}
	d := p.allowedBy(rule, r.Protocol)
	if d.Verdict == Allow {
		i := slices.Index(rule.Addresses, addr)
		d.Addresses = rule.Addresses[i : i+1 : i+1]
	}
	return d
}

// match returns the most specific deny rule for a name on a port or, if there is
// none, the most specific allow rule, and whether any rule allows the name on
// another port.
func (p *Policy) match(name Name, port uint16) (deny, allow *Rule, elsewhere bool) {
	for at := 0; at >= 0; at = nextDot(name.s, at) {
		for r := p.index.find(name.s[at:]); r != nil; r = r.next {
			switch {
			case !r.covers(port):
				elsewhere = elsewhere || r.Verdict == Allow
			case r.Verdict == Deny:
				return r, nil, false
			case allow == nil:
				allow = r
			}
		}
	}
	return nil, allow, elsewhere
}

// nextDot returns the place of the first dot behind at, -1 if there is none. What
// begins there is the key of a wildcard.
func nextDot(s string, at int) int {
	i := strings.IndexByte(s[at+1:], '.')
	if i < 0 {
		return -1
	}
	return at + 1 + i
}

// decideLookup asks whether a connection to the name could be allowed at all.
func (p *Policy) decideLookup(name Name) Decision {
	var deny, allow *Rule
	for at := 0; at >= 0; at = nextDot(name.s, at) {
		for r := p.index.find(name.s[at:]); r != nil; r = r.next {
			switch {
			case r.Verdict == Deny && (deny == nil || len(deny.Ports) > 0):
				deny = r
			case r.Verdict == Allow && allow == nil:
				allow = r
			}
		}
	}
	switch {
	case deny != nil && len(deny.Ports) == 0:
		return Decision{Reason: reasonDenied, Rule: deny.text}
	case allow == nil:
		return Decision{Reason: reasonNoRule}
	case deny != nil:
		return p.decidePorts(name)
	}
	return Decision{Verdict: Allow, Reason: reasonAllowed, Rule: allow.text}
}

// decidePorts is decideLookup of a name that is allowed on some ports and denied
// on some.
func (p *Policy) decidePorts(name Name) Decision {
	var denied *Rule
	for at := 0; at >= 0; at = nextDot(name.s, at) {
		for r := p.index.find(name.s[at:]); r != nil; r = r.next {
			if r.Verdict == Deny {
				continue
			}
			for _, port := range r.Ports {
				// Had a more specific rule allowed the port, it would have been met before.
				deny, _, _ := p.match(name, port)
				if deny == nil {
					return Decision{Verdict: Allow, Reason: reasonAllowed, Rule: r.text}
				}
				denied = deny
			}
		}
	}
	return Decision{Reason: reasonDenied, Rule: denied.text}
}
