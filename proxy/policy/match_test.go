package policy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// slowMatch is the reference: it looks at every rule and compares text.
func slowMatch(rules []*Rule, name Name, port uint16) (deny, allow *Rule) {
	length := func(r *Rule) int {
		if !r.Pattern.Wildcard {
			return 1000
		}
		return len(r.Pattern.Base.String())
	}
	for _, r := range rules {
		base := r.Pattern.Base.String()
		matches := name.String() == base
		if r.Pattern.Wildcard {
			matches = strings.HasSuffix(name.String(), "."+base)
		}
		if !matches || len(r.Ports) > 0 && !slices.Contains(r.Ports, port) {
			continue
		}
		if r.Verdict == Deny {
			if deny == nil || length(r) > length(deny) {
				deny = r
			}
		} else if allow == nil || length(r) > length(allow) {
			allow = r
		}
	}
	return deny, allow
}

// TestMatchesLikeReference compares the trie with slowMatch on random policies
// over few labels, so that rules overlap.
func TestMatchesLikeReference(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	labels := []string{"a", "b", "ab", "xa"}
	randomName := func(most int) string {
		var parts []string
		for range 1 + random.IntN(most) {
			parts = append(parts, labels[random.IntN(len(labels))])
		}
		return strings.Join(append(parts, "test"), ".")
	}
	ports := []uint16{22, 80, 443}
	policies := 0
	for range 3000 {
		var text strings.Builder
		text.WriteString("version: 1\nnetwork:\n  rules:\n")
		for range 1 + random.IntN(6) {
			star := []string{"", "*."}[random.IntN(2)]
			verdict := []string{"allow", "allow", "deny"}[random.IntN(3)]
			fmt.Fprintf(&text, "    - {%s: %q, ports: [%d]}\n", verdict, star+randomName(3), ports[random.IntN(3)])
		}
		p, err := Parse("random", []byte(text.String()))
		if err != nil {
			if !strings.Contains(err.Error(), "decided twice") {
				t.Fatalf("%s\n%v", text.String(), err)
			}
			continue
		}
		policies++
		for range 50 {
			name, err := ParseName(randomName(4))
			if err != nil {
				t.Fatal(err)
			}
			port := ports[random.IntN(3)]
			deny, allow := p.match(name, port)
			wantDeny, wantAllow := slowMatch(p.rules, name, port)
			if allow != wantAllow || deny != wantDeny {
				t.Fatalf("%s\n%s:%d: got %v, %v; want %v, %v", text.String(), name, port, deny, allow, wantDeny, wantAllow)
			}
			// What can be looked up is what some port allows.
			lookup := p.Decide(Request{Protocol: DNS, Name: name}).Verdict
			want := Deny
			for _, port := range ports {
				if d, a := slowMatch(p.rules, name, port); d == nil && a != nil {
					want = Allow
				}
			}
			if lookup != want {
				t.Fatalf("%s\nlookup of %s: got %v, want %v", text.String(), name, lookup, want)
			}
		}
	}
	if policies < 500 {
		t.Fatalf("only %d policies were compared", policies)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"version: 1\n", "version: 1\nnetwork: {unknown: deny, rules: [{allow: a.test}]}\n",
		"version: 1\nnetwork:\n  rules:\n    - {allow: \"*.github.io\", shared: true, ports: [1, 2], protocol: tcp, addresses: [10.0.0.1]}\n    - deny: b.test\n",
		"a: &x [*x]\n", "version: !!int 1\n", "{", "- 1\n", "version: 1\n---\nversion: 1\n", "network: {rules: [{allow: *x}]}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse("fuzz", data)
		if (p == nil) == (err == nil) {
			t.Fatalf("policy %v and error %v", p, err)
		}
		if err != nil {
			return
		}
		again, err := Parse("fuzz", []byte(p.String()))
		if err != nil {
			t.Fatalf("parse again:\n%s\n%v", p, err)
		}
		if p.String() != again.String() {
			t.Fatalf("%s\nbecomes\n%s", p, again)
		}
	})
}
