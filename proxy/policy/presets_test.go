package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestPresets holds the table to what a file is held to: each preset says what a
// person must know, its rules parse as rules of a file, and all of them together
// contradict nothing.
func TestPresets(t *testing.T) {
	var names, text []string
	for _, set := range Presets() {
		names = append(names, set.Name)
		if set.Purpose == "" || set.Risk == "" {
			t.Errorf("%s does not say what it is for, or what it risks", set.Name)
		}
		for _, r := range set.Rules() {
			if r.Verdict != Allow || r.Preset != set.Name {
				t.Errorf("%s has %s of preset %q", set.Name, r, r.Preset)
			}
			text = append(text, "    - "+r.String()+"\n")
		}
	}
	if !slices.IsSorted(names) {
		t.Errorf("presets are not sorted: %s", names)
	}
	p, err := Parse("rules", []byte("version: 1\nnetwork:\n  rules:\n"+strings.Join(text, "")))
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Rules()) != len(text) {
		t.Errorf("%d rules of %d", len(p.Rules()), len(text))
	}
	all := "version: 1\nnetwork: {presets: [" + strings.Join(names, ", ") + "]}\n"
	if p, err = Parse("presets", []byte(all)); err != nil {
		t.Fatal(err)
	}
	for i, r := range p.Rules() {
		if got := "    - " + r.String() + "\n"; got != text[i] {
			t.Errorf("rule %d: got %s, want %s", i, got, text[i])
		}
	}
}

// TestOwnRulesBeforePresets asserts what a file can say about the names of a
// preset that it takes in.
func TestOwnRulesBeforePresets(t *testing.T) {
	for _, test := range []struct{ rule, want string }{
		{`{allow: "*.example.org"}`, "allow allow *.github.com:443 tls (preset github)"},
		{`{allow: "*.github.com", protocol: http, ports: [443]}`, "deny allow *.github.com:443 http (line 4)"},
		{`{allow: "*.github.com", protocol: http}`, "allow allow *.github.com:443 tls (preset github)"},
		{`{allow: api.github.com, ports: [8443, 443]}`, "allow allow api.github.com:8443, 443 tls (line 4)"},
		{`{deny: api.github.com}`, "deny deny api.github.com (line 4)"},
		{`{deny: "*.github.com"}`, "deny deny *.github.com (line 4)"},
	} {
		p, err := Parse("policy", []byte("version: 1\nnetwork:\n  rules:\n    - "+test.rule+"\n  presets: [github]\n"))
		if err != nil {
			t.Errorf("%s: %v", test.rule, err)
			continue
		}
		d := p.Decide(Request{Protocol: TLS, Name: Name{"api.github.com"}, Port: 443})
		if got := fmt.Sprint(d.Verdict, " ", d.Rule); got != test.want {
			t.Errorf("%s: got %q, want %q", test.rule, got, test.want)
		}
		again, err := Parse("policy", []byte(p.String()))
		if err != nil {
			t.Fatal(err)
		}
		if p.String() != again.String() || len(again.Rules()) != len(p.Rules()) {
			t.Errorf("%s\nbecomes\n%s", p, again)
		}
	}
}
