package policy

import "net/netip"

// compile adds the rules of presets, builds what decisions look things up in,
// and reports rules that contradict each other or are good for nothing.
func (p *parser) compile() *Policy {
	own := len(p.rules)
	for _, set := range p.presets {
		p.rules = append(p.rules, set.Rules()...)
	}
	policy := &Policy{
		name: p.name, rules: p.rules, presets: p.presets, index: newIndex(p.rules),
		addrs: make(map[netip.AddrPort]pinned), ports: make(map[uint16]bool), budgets: make(map[string]*Budget),
		layer: p.layer, workspace: p.workspace, files: p.files, limits: p.limits, silent: p.layer == Project && !p.saysNetwork, saysFiles: p.saysFiles,
	}
	for i := range policy.index.slots {
		p.checkTies(policy.index.slots[i].first)
	}
	for _, r := range p.rules[:own] {
		if wider := policy.unreachable(r); wider != nil {
			p.fail(r.at(), "network.rules", "%s decides nothing: line %d, %s, denies all of it", r.summary(), wider.Line, wider.summary())
		}
	}
	for _, r := range p.rules {
		if r.Verdict == Allow {
			p.pin(policy, r)
		}
		if r.Budget != nil {
			policy.budgets[r.Budget.Key] = r.Budget
		}
	}
	return policy
}

// checkTies reports rules of one verdict in a chain that speak of the same port.
// Against the file's own rules those of a preset give way: they come last.
func (p *parser) checkTies(chain *Rule) {
	if chain == nil || chain.next == nil {
		return
	}
	type place struct {
		verdict Verdict
		port    uint16 // 0: all
	}
	first := make(map[place]*Rule)
	for r := chain; r != nil && r.Preset == ""; r = r.next {
		ports := r.Ports
		if len(ports) == 0 {
			ports = []uint16{0}
		}
		for _, port := range ports {
			at := place{r.Verdict, port}
			other := first[at]
			switch {
			case other == nil:
				first[at] = r
			case port == 0:
				p.fail(r.at(), "network.rules", "%s is denied twice, first in line %d", r.Pattern, other.Line)
			default:
				p.fail(r.at(), "network.rules", "%s port %d is decided twice, first in line %d", r.Pattern, port, other.Line)
			}
		}
	}
}

// unreachable returns the deny rule that leaves nothing to r, or one of several
// that do so together; nil if something is left.
func (p *Policy) unreachable(r *Rule) *Rule {
	if len(r.Ports) == 0 {
		return p.widerDeny(r, 0)
	}
	var wider *Rule
	for _, port := range r.Ports {
		if wider = p.widerDeny(r, port); wider == nil {
			return nil
		}
	}
	return wider
}

// widerDeny returns a deny rule other than r that covers r's pattern on the port,
// or, for port 0, on every port. One that ties with r is not wider.
func (p *Policy) widerDeny(r *Rule, port uint16) *Rule {
	key := r.Pattern.key()
	for at := 0; at >= 0; at = nextDot(key, at) {
		for d := p.index.find(key[at:]); d != nil; d = d.next {
			switch {
			case d.Verdict != Deny, len(d.Ports) > 0 && (port == 0 || !d.covers(port)):
			case at == 0 && r.Verdict == Deny && (len(d.Ports) == 0) == (len(r.Ports) == 0):
			default:
				return d
			}
		}
	}
	return nil
}

// pinned is what a bare address on a port stands for: the first of the rules that
// pin it there.
type pinned struct {
	rule     *Rule
	disputed bool // others do, which would let another amount through, or another hello
}

// agrees reports whether it makes no difference to a bare address which of two
// rules of one protocol it stands for. Two budgets are two amounts, also if they
// read the same.
func (r *Rule) agrees(other *Rule) bool {
	return r.Budget == nil && other.Budget == nil && r.ECH == other.ECH
}

// pin notes an allow rule's ports, and makes its addresses reachable as bare
// addresses, on its ports, unless all its names are denied there.
func (p *parser) pin(policy *Policy, r *Rule) {
	for _, port := range r.Ports {
		policy.ports[port] = true
		if len(r.Addresses) == 0 || policy.widerDeny(r, port) != nil {
			continue
		}
		for _, a := range r.Addresses {
			at := netip.AddrPortFrom(a, port)
			switch other := policy.addrs[at]; {
			case other.rule == nil:
				policy.addrs[at] = pinned{rule: r}
			case other.rule.Protocol != r.Protocol:
				p.fail(r.at(), "network.rules", "%s is pinned for %s here and for %s in line %d", at, r.Protocol, other.rule.Protocol, other.rule.Line)
			case !other.rule.agrees(r):
				policy.addrs[at] = pinned{other.rule, true}
			}
		}
	}
}
