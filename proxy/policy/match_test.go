package policy

import (
	"fmt"
	"math/rand/v2"
	"path"
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
			for line := range strings.Lines(err.Error()) {
				if !strings.Contains(line, "decided twice") && !strings.Contains(line, "decides nothing") {
					t.Fatalf("%s\n%v", text.String(), err)
				}
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
			deny, allow, _ := p.match(name, port)
			wantDeny, wantAllow := slowMatch(p.rules, name, port)
			if wantDeny != nil {
				wantAllow = nil // does not matter
			}
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

// TestUnreachableRules holds the errors about rules that decide nothing to their
// definition, on all names of few labels: a rule is refused if and only if for
// each name and port that it speaks of some other rule denies.
func TestUnreachableRules(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	labels := []string{"a", "b", "zz"} // no rule has zz, so a wildcard has names of its own
	names := []string{"test"}
	for from := 0; len(names) < 1+3+9+27+81; from++ {
		for _, l := range labels {
			names = append(names, l+"."+names[from])
		}
	}
	ports := []uint16{80, 443, 8080}
	count := map[bool]int{}
	for range 4000 {
		var lines []string
		var text strings.Builder
		text.WriteString("version: 1\nnetwork:\n  rules:\n")
		for range 1 + random.IntN(4) {
			base := "test"
			for range 1 + random.IntN(2) {
				base = labels[random.IntN(2)] + "." + base
			}
			line := fmt.Sprintf("{%s: %q", []string{"allow", "deny"}[random.IntN(2)], []string{"", "*."}[random.IntN(2)]+base)
			if strings.HasPrefix(line, "{allow") || random.IntN(2) == 0 {
				line += []string{", ports: [80]", ", ports: [443]", ", ports: [443, 80]"}[random.IntN(3)]
			}
			lines = append(lines, line+"}")
			fmt.Fprintf(&text, "    - %s\n", line+"}")
		}
		_, err := Parse("random", []byte(text.String()))
		if err != nil && strings.Contains(err.Error(), "twice") {
			continue
		}
		for i := range lines {
			var rules []*Rule // each by itself, so that none is refused
			for _, line := range lines {
				p, err := Parse("one", []byte("version: 1\nnetwork: {rules: ["+line+"]}"))
				if err != nil {
					t.Fatal(err)
				}
				rules = append(rules, p.rules[0])
			}
			others := slices.Delete(slices.Clone(rules), i, i+1)
			want := true
			for _, text := range names {
				for _, port := range ports {
					name := Name{text}
					d, a := slowMatch(rules[i:i+1], name, port)
					if deny, _ := slowMatch(others, name, port); (d != nil || a != nil) && deny == nil {
						want = false
					}
				}
			}
			got := err != nil && strings.Contains(err.Error(), fmt.Sprintf("random:%d:", i+4))
			if got != want {
				t.Fatalf("%s\nrule %d is refused: %v, want %v: %v", text.String(), i, got, want, err)
			}
			count[want]++
		}
	}
	if count[true] < 500 || count[false] < 500 {
		t.Fatalf("rules that decide nothing and others: %v", count)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"version: 1\n", "version: 1\nnetwork: {unknown: deny, rules: [{allow: a.test}]}\n",
		"version: 1\nnetwork:\n  rules:\n    - {allow: \"*.github.io\", shared: true, ports: [1, 2], protocol: tcp, addresses: [10.0.0.1]}\n    - deny: b.test\n",
		"version: 1\nnetwork:\n  presets: [go, github]\n  rules: [{deny: gist.github.com}, {deny: \"*.github.com\"}]\n",
		"version: 1\nnetwork:\n  rules:\n    - allow: a.test\n    - deny: b.test\n    - allow: \"*.c.test\"\n    - allow: d.test\n      ports: [80]\n",
		"version: 1\nnetwork:\n  rules:\n  - allow: |\n     - allow: b.test\n     - allow: c.test\n     - allow: d.test\n",
		"version: 1\nnetwork:\n  rules:\n  - allow: a.test\n  - {allow: b.test, ports: [1, 65535], protocol: tcp}\n  - {deny: c.test, ports: [080]}\n  - {allow: d.test, protocol: ssh}\n  - {deny: e.test, protocol: tls}\n  - {deny: f.test, ports: [80, 80]}\n  - {deny: g.test}\n  - {deny: h.test, }\n  - {allow: i.test, ports: [53]}\n  - {deny: j.test, ports: []}\n  - {allow: k.test, protocol: tcp}\n  - {deny: l.test, ports: [65536]}\n  - {deny: m.test, ports: [1], }\n  - {deny: n.test}\n",
		"- allow: a.test\n- allow: b.test\n- allow: c.test\n",
		"version: 1\nnetwork:\n  rules:\n  - allow: a.test\n    ports: [80]\n  - allow: b.test\n    ports: [80, 443]\n    protocol: http\n  - deny: c.test\n    ports: [53]\n  - allow: d.test\n    protocol: tcp\n  - allow: e.test\n    ports: [53]\n  - deny: f.test\n",
		"version: 1\nnetwork:\n  rules:\n  - allow: a.test\n  - allow: b.test\n    protocol: tcp\n    ports: [1]\n    ports: [2]\n  - {allow: c.test}\n    ports: [3]\n  - allow: d.test\n     ports: [4]\n  - allow: e.test\n    shared: true\n  - deny: f.test\n",
		"version: 1\nnetwork:\n  rules:\n  - allow: a.test\n  - allow: 1.e1\n  - allow: \"*.com\"\n  - allow: \"1\"\n  - allow: a.test\n  - deny: 1.ee",
		"version: 1\nworkspace: {read_only: [.git, /a/*.?], hidden: [\".env\"], writable: [.vscode]}\nfiles: [{path: /opt/a, access: read}]\nlimits: {memory: 4GiB, pids: 1024, cpus: 0.5}\n",
		"version: 1\nnetwork:\n  rules:\n  - allow: a.test\n  - allow: b.test\n  - allow: c.test\nworkspace:\n  hidden:\n  - allow: d.test\n  - allow: e.test\nfiles: []\n",
		"a: &x [*x]\n", "version: !!int 1\n", "{", "- 1\n", "version: 1\n---\nversion: 1\n", "network: {rules: [{allow: *x}]}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse("fuzz", data)
		if (p == nil) == (err == nil) {
			t.Fatalf("policy %v and error %v", p, err)
		}
		// Taking lines out must not show.
		slow := &parser{name: "fuzz", layer: User}
		slow.read(data)
		whole := slow.compile()
		if slowErr := slow.err(); fmt.Sprint(err) != fmt.Sprint(slowErr) {
			t.Fatalf("error\n%v\nand read line by line\n%v", err, slowErr)
		} else if err == nil && !slices.EqualFunc(p.rules, whole.rules, func(a, b *Rule) bool { return a.text == b.text && a.at() == b.at() }) {
			t.Fatalf("%s\nand read line by line\n%s", p, whole)
		}
		if err != nil {
			return
		}
		again, err := Parse("fuzz", []byte(p.String()))
		if err != nil {
			t.Fatalf("parse again:\n%s\n%v", p, err)
		}
		if p.String() != again.String() || p.String() != whole.String() {
			t.Fatalf("%s\nbecomes\n%s\nand read line by line\n%s", p, again, whole)
		}
		for _, s := range slices.Concat(p.workspace.ReadOnly, p.workspace.Hidden, p.workspace.Writable) {
			if _, err := path.Match(strings.TrimPrefix(s, "/"), ""); err != nil || path.Clean("/"+s) != "/"+strings.TrimPrefix(s, "/") {
				t.Fatalf("pattern %q: %v", s, err)
			}
		}
	})
}
