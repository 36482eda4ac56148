package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
)

// Explanation is what a policy says about one destination, for a person.
type Explanation struct {
	Policy string
	Host   string // name or address

	Lookup   *Decision // whether the name can be looked up; nil for an address
	Outcomes []Outcome
	Rules    []Considered // that speak of the host, those that count more first
	Add      []string     // rules that would have to be added to allow it
	Remove   []string     // rules that no other can overrule, by place

	// Layers are what each layer that says something about the network does, if
	// there are several; then the last three are theirs.
	Layers []Explanation
}

// Outcome is the decision about some protocols on a port. Where the name
// resolves to has not been asked: a rule without addresses allows only global
// unicast.
type Outcome struct {
	Port      uint16
	Protocols []Protocol
	Decision  Decision
}

// Considered is a rule and what became of it.
type Considered struct {
	Rule *Rule
	Fate string
}

// Explain says what the policy decides about a name or, if name is zero, about
// a bare address, on the port or, if port is 0, on every port that rules for the
// host mention; if they mention none, on that of TLS.
func (p *Policy) Explain(name Name, addr netip.Addr, port uint16) Explanation {
	addr = addr.Unmap()
	if !name.IsZero() {
		addr = netip.Addr{}
	}
	ports := []uint16{port}
	if port == 0 {
		ports = nil
		for _, l := range p.Layers() {
			for _, r := range l.about(name, addr) {
				ports = append(ports, r.Ports...)
			}
		}
		if ports == nil {
			ports = defaultPorts[TLS]
		}
		ports = slices.Compact(slices.Sorted(slices.Values(ports)))
	}
	if p == nil || p.layers == nil {
		return p.explain(name, addr, ports)
	}
	e, _ := p.outcomes(name, addr, ports)
	for _, l := range p.deciders {
		e.Layers = append(e.Layers, l.explain(name, addr, ports))
	}
	return e
}

// outcomes begins an explanation with what is decided, and says by what rule which
// ports are, by its text.
func (p *Policy) outcomes(name Name, addr netip.Addr, ports []uint16) (e Explanation, decided map[string][]uint16) {
	e = Explanation{Policy: p.Name(), Host: name.String()}
	if name.IsZero() {
		e.Host = addr.String()
	} else {
		d := p.Decide(Request{Protocol: DNS, Name: name})
		e.Lookup = &d
	}
	decided = make(map[string][]uint16)
	for _, port := range ports {
		for _, protocol := range []Protocol{TLS, HTTP, SSH, TCP} {
			d := p.Decide(Request{Protocol: protocol, Name: name, Port: port, Addr: addr})
			if !slices.Contains(decided[d.Rule], port) {
				decided[d.Rule] = append(decided[d.Rule], port)
			}
			last := len(e.Outcomes) - 1
			if last >= 0 && e.Outcomes[last].Port == port && e.Outcomes[last].Decision.Verdict == d.Verdict &&
				e.Outcomes[last].Decision.Rule == d.Rule && e.Outcomes[last].Decision.Reason == d.Reason {
				e.Outcomes[last].Protocols = append(e.Outcomes[last].Protocols, protocol)
				continue
			}
			e.Outcomes = append(e.Outcomes, Outcome{port, []Protocol{protocol}, d})
		}
	}
	return e, decided
}

// explain is Explain of one layer.
func (p *Policy) explain(name Name, addr netip.Addr, ports []uint16) Explanation {
	e, decided := p.outcomes(name, addr, ports)
	rules := p.about(name, addr)
	for _, port := range ports {
		if !slices.ContainsFunc(e.Outcomes, func(o Outcome) bool { return o.Port == port && o.Decision.Verdict == Allow }) {
			e.advise(p, rules, name, addr, port)
		}
	}
	for _, r := range rules {
		fate := "decides port " + join(decided[r.text])
		if len(decided[r.text]) == 0 {
			fate = p.fate(r, name, addr, ports)
		}
		e.Rules = append(e.Rules, Considered{r, fate})
	}
	return e
}

// about returns the rules that match a name on any port: the denies, then the
// allows, the most specific first. If name is zero it returns those that pin the
// address.
func (p *Policy) about(name Name, addr netip.Addr) []*Rule {
	if name.IsZero() {
		return p.pinning(addr)
	}
	var denies, allows []*Rule
	if p == nil || len(p.rules) == 0 {
		return nil
	}
	for at := 0; at >= 0; at = nextDot(name.s, at) {
		for r := p.index.find(name.s[at:]); r != nil; r = r.next {
			if r.Verdict == Deny {
				denies = append(denies, r)
			} else {
				allows = append(allows, r)
			}
		}
	}
	return append(denies, allows...)
}

// pinning returns the rules that pin an address.
func (p *Policy) pinning(addr netip.Addr) []*Rule {
	if p == nil {
		return nil
	}
	var rules []*Rule
	for _, r := range p.rules {
		if slices.Contains(r.Addresses, addr) {
			rules = append(rules, r)
		}
	}
	return rules
}

// fate says why a rule that speaks of the host decides none of the ports.
func (p *Policy) fate(r *Rule, name Name, addr netip.Addr, ports []uint16) string {
	for _, port := range ports {
		if !r.covers(port) {
			continue
		}
		at := p.addrs[netip.AddrPortFrom(addr, port)]
		winner := at.rule
		if !name.IsZero() {
			deny, allow, _ := p.match(name, port)
			if winner = allow; deny != nil {
				winner = deny
			}
		}
		switch {
		case winner == nil:
			return "its names are denied"
		case name.IsZero() && at.disputed:
			return "not the only one that names the address, and they differ in budget or ech"
		case winner.Verdict != r.Verdict:
			return "loses to " + winner.place(p.name) + ": a deny beats an allow"
		case winner.Pattern == r.Pattern:
			return "gives way to the file's own rule, " + winner.place(p.name)
		case name.IsZero():
			return winner.place(p.name) + " says the same"
		default:
			return "loses to " + winner.place(p.name) + ", which is more specific"
		}
	}
	return "is about another port"
}

// place is where a rule stands, as a compiler would write it.
func (r *Rule) place(file string) string {
	if r.Preset != "" {
		return "preset " + r.Preset
	}
	return fmt.Sprintf("%s:%d:%d", file, r.Line, r.Column)
}

// advise adds what would allow a host on a port on which nothing does.
func (e *Explanation) advise(p *Policy, rules []*Rule, name Name, addr netip.Addr, port uint16) {
	if port == 53 {
		return // the proxy answers it
	}
	protocol := TCP
	for known, ports := range defaultPorts {
		if slices.Contains(ports, port) {
			protocol = Protocol(known)
		}
	}
	r := &Rule{Verdict: Allow, Pattern: Pattern{Base: name}, Ports: []uint16{port}, Protocol: protocol}
	switch {
	case !name.IsZero():
		if r.Pattern.checkBreadth(false) != nil {
			return // it is the sandbox itself
		}
	case CheckAddr(addr) != "":
		return
	default:
		r.Pattern.Base, r.Addresses = Name{"name.example"}, []netip.Addr{addr}
	}
	add := true
	for _, rule := range rules {
		if rule.Verdict == Deny && rule.covers(port) {
			if place := rule.place(p.name) + ": " + rule.summary(); !slices.Contains(e.Remove, place) {
				e.Remove = append(e.Remove, place)
			}
		}
		add = add && (rule.Verdict != Allow || !rule.covers(port))
	}
	if add {
		e.Add = append(e.Add, r.String())
	}
}

// String is the explanation as text.
func (e Explanation) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	line := func(columns ...string) { fmt.Fprintln(w, strings.Join(columns, "\t")) }
	outcome := func(what, protocols string, d Decision) {
		reason := d.Reason
		if d.Rule != "" {
			reason += ": " + d.Rule
		}
		line(what, protocols, d.Verdict.String(), reason)
	}
	fmt.Fprintf(&b, "%s by policy %s\n\n", e.Host, e.Policy)
	if e.Lookup != nil {
		outcome("lookup", "dns", *e.Lookup)
	}
	for _, o := range e.Outcomes {
		var protocols []string
		for _, p := range o.Protocols {
			protocols = append(protocols, p.String())
		}
		outcome(fmt.Sprintf("port %d", o.Port), strings.Join(protocols, ", "), o.Decision)
	}
	_ = w.Flush() // into memory
	for _, l := range e.Layers {
		fmt.Fprintf(&b, "\nlayer: %s", l)
	}
	if e.Layers != nil {
		return b.String()
	}
	if len(e.Rules) == 0 {
		b.WriteString("\nno rule speaks of it\n")
	} else {
		b.WriteString("\nrules that speak of it, those that count more first:\n")
		for _, c := range e.Rules {
			line("  "+c.Rule.place(e.Policy), c.Rule.summary(), c.Fate)
		}
		_ = w.Flush() // into memory
	}
	for _, part := range []struct {
		title, bullet string
		lines         []string
	}{
		{"no allow can overrule these; to allow it, take out or narrow:", "  ", e.Remove},
		{"to allow it, add to network.rules:", "  - ", e.Add},
	} {
		if len(part.lines) > 0 {
			fmt.Fprintf(&b, "\n%s\n", part.title)
		}
		for _, l := range part.lines {
			b.WriteString(part.bullet + l + "\n")
		}
	}
	return b.String()
}
