package policy

import (
	"strings"
	"testing"
)

// TestElide asserts which lines are taken out: none that YAML, or a mistake in
// it, could give another meaning. That nothing else changes is FuzzParse's.
func TestElide(t *testing.T) {
	for _, test := range []struct {
		line string
		want bool
	}{
		{"    - allow: www.example.org", true},
		{`    - deny: "*.example.net"`, true},
		{`    - allow: "127.1"`, true}, // a string, and a mistake like any other
		{"    - {allow: a.test}", true},
		{`    - {allow: "*.example.net", ports: [443, 8443], protocol: http}`, true},
		{"    - {deny: a.test, ports: [80]}", true},
		{"    - {allow: a.test, protocol: ssh}", true},
		{"   - allow: a.test", false},
		{"    -  allow: a.test", false},
		{"    - allow: a.test ", false},
		{"    - allow: a.test # why", false},
		{"    - allow: A.test", false},
		{"    - allow: *.test", false},
		{"    - allow: 'a.test'", false},
		{`    - allow: "a\x2etest"`, false},
		{`    - allow: "a.test`, false},
		{"    - allow: localhost", false},
		{"    - allow: 127.1", false},
		{"    - allow: 1.e5", false},
		{"    - allow: .inf", false},
		{"    - alow: a.test", false},
		{"    - {allow: a.test", false},
		{"    - {allow: a.test, shared: true}", false},
		{"    - {allow: a.test, ports: [0]}", false},
		{"    - {allow: a.test, ports: [080]}", false},
		{"    - {allow: a.test, ports: [80, 80]}", false},
		{"    - {allow: a.test, ports: [65536]}", false},
		{"    - {allow: a.test, ports: []}", false},
		{"    - {allow: a.test, ports: [1], ports: [2]}", false},
		{"    - {allow: a.test, protocol: udp}", false},
		{"    - {allow: a.test, protocol: dns}", false},
		{"    - {deny: a.test, protocol: tls}", false},
	} {
		before, after := "  rules:\n    - allow: first.test\n", "    - allow: last.test\n"
		short, runs := elide([]byte(before + test.line + "\n" + after))
		if test.want {
			if string(short) != before+"\n"+after || len(runs) != 1 || runs[0] != (run{2, test.line + "\n", 1}) {
				t.Errorf("%q: not taken out: %q, %+v", test.line, short, runs)
			}
		} else if string(short) != before+test.line+"\n"+after || runs != nil {
			t.Errorf("%q: taken out: %q, %+v", test.line, short, runs)
		}
	}
	plain := strings.Repeat("- allow: a.test\n", 3)
	for _, end := range []string{"\r", "\u0085", "\u2028", "\u2029"} {
		if _, runs := elide([]byte("#" + end + "\n" + plain)); runs != nil {
			t.Errorf("lines are taken out although %q may end one too", end)
		}
	}
}
