package policy

import (
	"net/netip"
	"strings"
)

// node is one label of the trie; the path from the root is a name read from the
// right.
type node struct {
	children map[string]*node
	exact    entry // rules for the name itself
	below    entry // rules for every name below it
}

// entry is what rules say about a pattern, by port.
type entry struct {
	denyAll *Rule
	deny    map[uint16]*Rule
	allow   map[uint16]*Rule
}

// denied returns the rule that denies the port, if any.
func (e *entry) denied(port uint16) *Rule {
	if e.denyAll != nil {
		return e.denyAll
	}
	return e.deny[port]
}

// compile builds the trie and reports rules that say the same thing twice: two
// rules of one verdict for one pattern and port are a tie, and the file's order
// must not decide it.
func (p *parser) compile() *Policy {
	policy := &Policy{name: p.name, rules: p.rules, addrs: make(map[netip.AddrPort]*Rule), ports: make(map[uint16]bool)}
	for _, r := range p.rules {
		p.insert(policy.root.entry(r.Pattern), r)
	}
	// Pinned addresses last: whether a rule's names are denied is known now.
	for _, r := range p.rules {
		if r.Verdict == Allow {
			p.pin(policy, r)
		}
	}
	return policy
}

// entry finds the place of a pattern and makes it if necessary.
func (n *node) entry(pattern Pattern) *entry {
	rest := pattern.Base.String()
	for rest != "" {
		var label string
		rest, label = cutLast(rest)
		child := n.children[label]
		if child == nil {
			child = &node{}
			if n.children == nil {
				n.children = make(map[string]*node)
			}
			n.children[label] = child
		}
		n = child
	}
	if pattern.Wildcard {
		return &n.below
	}
	return &n.exact
}

// cutLast splits off the last label of a name.
func cutLast(name string) (rest, label string) {
	i := strings.LastIndexByte(name, '.')
	if i < 0 {
		return "", name
	}
	return name[:i], name[i+1:]
}

func (p *parser) insert(e *entry, r *Rule) {
	tie := func(other *Rule, port uint16) {
		if port == 0 {
			p.fail(r.Line, "rules", "%s is denied twice, first in line %d", r.Pattern, other.Line)
		} else {
			p.fail(r.Line, "rules", "%s port %d is decided twice, first in line %d", r.Pattern, port, other.Line)
		}
	}
	if r.Verdict == Deny && len(r.Ports) == 0 {
		if e.denyAll != nil {
			tie(e.denyAll, 0)
			return
		}
		e.denyAll = r
		return
	}
	ports := &e.deny
	if r.Verdict == Allow {
		ports = &e.allow
	}
	if *ports == nil {
		*ports = make(map[uint16]*Rule)
	}
	for _, port := range r.Ports {
		if other := (*ports)[port]; other != nil {
			tie(other, port)
			continue
		}
		(*ports)[port] = r
	}
}

// pin notes an allow rule's ports, and makes its addresses reachable as bare addresses, on its ports, unless
// all its names are denied there.
func (p *parser) pin(policy *Policy, r *Rule) {
	for _, port := range r.Ports {
		policy.ports[port] = true
		if policy.root.deniesAll(r.Pattern, port) {
			continue
		}
		for _, a := range r.Addresses {
			at := netip.AddrPortFrom(a, port)
			switch other := policy.addrs[at]; {
			case other == nil:
				policy.addrs[at] = r
			case other.Protocol != r.Protocol:
				p.fail(r.Line, "rules", "%s is pinned for %s here and for %s in line %d", at, r.Protocol, other.Protocol, other.Line)
			}
		}
	}
}

// deniesAll reports whether a deny rule covers every name of the pattern.
func (n *node) deniesAll(pattern Pattern, port uint16) bool {
	rest := pattern.Base.String()
	for rest != "" {
		if n.below.denied(port) != nil {
			return true
		}
		var label string
		rest, label = cutLast(rest)
		if n = n.children[label]; n == nil {
			return false
		}
	}
	if pattern.Wildcard {
		return n.below.denied(port) != nil
	}
	return n.exact.denied(port) != nil
}
