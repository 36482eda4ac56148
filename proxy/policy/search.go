package policy

import (
	"fmt"
	"strings"
)

// decideQuery is decideLookup, but denies what a resolver seems to have made by
// itself: with "search corp.example" or ndots above 1 it asks for
// api.test.corp.example before api.test, and a wildcard below corp.example would
// give that an address, so that api.test itself is never asked for. So a name
// that only a wildcard allows is denied if it is another allowed name, of two
// labels or more, with a suffix that the wildcard covers. An exact rule helps
// where such a name is meant.
func (p *Policy) decideQuery(name Name) Decision {
	d := p.decideLookup(name)
	if d.Verdict != Allow || p.allowsExactly(name) {
		return d
	}
	for i := nextDot(name.s, 0); i >= 0; i = nextDot(name.s, i) {
		prefix, suffix := Name{name.s[:i]}, name.s[i:]
		if strings.Contains(prefix.s, ".") && p.wildcardOver(suffix) && p.decideLookup(prefix).Verdict == Allow {
			return Decision{Reason: fmt.Sprintf("it looks like %s with a search suffix", prefix), Rule: d.Rule}
		}
	}
	return d
}

// allowsExactly reports whether an allow rule is about the name itself.
func (p *Policy) allowsExactly(name Name) bool { return p.allows(name.s) }

// wildcardOver reports whether an allow rule covers every name that ends in the
// suffix, which begins with a dot.
func (p *Policy) wildcardOver(suffix string) bool {
	for at := 0; at >= 0; at = nextDot(suffix, at) {
		if p.allows(suffix[at:]) {
			return true
		}
	}
	return false
}

// allows reports whether there is an allow rule with the pattern of the key.
func (p *Policy) allows(key string) bool {
	for r := p.index.find(key); r != nil; r = r.next {
		if r.Verdict == Allow {
			return true
		}
	}
	return false
}
