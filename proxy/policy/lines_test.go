package policy

import (
	"fmt"
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
		{"    - allow: a.test\n      ports: [443, 8443]", true},
		{"    - allow: a.test\n      ports: [22]\n      protocol: ssh", true},
		{"    - allow: a.test\n      protocol: ssh\n      ports: [22]", true},
		{"    - deny: \"*.a.test\"\n      ports: [22]", true},
		{"    - allow: a.test\n    - allow: b.test\n      ports: [22]", true},
		{"    - allow: a.test\n       ports: [443]", false},
		{"    - allow: a.test\n    ports: [443]", false},
		{"    - allow: a.test\n", false},
		{"    - allow: a.test\n      ", false},
		{"    - allow: a.test\n      ports: [443] ", false},
		{"    - allow: a.test\n      ports: [443], protocol: tls", false},
		{"    - allow: a.test\n      ports: [443]\n      ports: [80]", false},
		{"    - allow: a.test\n      protocol: tls\n      protocol: tls", false},
		{"    - allow: a.test\n      ports: [443, 443]", false},
		{"    - allow: a.test\n      ports:\n        - 443", false},
		{"    - allow: a.test\n      shared: true", false},
		{"    - deny: a.test\n      protocol: tls", false},
		{"    - {allow: a.test}\n      ports: [443]", false},
	} {
		before, after := "  rules:\n    - allow: first.test\n", "    - allow: last.test\n"
		data := before + test.line + "\n" + after
		short, runs, left := elide([]byte(data))
		if lines := strings.Count(test.line, "\n") + 1; test.want {
			want := run{2, 3 + lines, 3, test.line + "\n", 1 + strings.Count(test.line, "\n    -")}
			if string(short) != before+strings.Repeat("\n", lines)+after || len(runs) != 1 || runs[0] != want || left != len(before+after) {
				t.Errorf("%q: not taken out: %q, %+v, %d left", test.line, short, runs, left)
			}
		} else if string(short) != data || runs != nil || left != len(data) {
			t.Errorf("%q: taken out: %q, %+v, %d left", test.line, short, runs, left)
		}
	}
	plain := strings.Repeat("- allow: a.test\n", 3)
	for _, end := range []string{"\r", "\u0085", "\u2028", "\u2029"} {
		if _, runs, _ := elide([]byte("#" + end + "\n" + plain)); runs != nil {
			t.Errorf("lines are taken out although %q may end one too", end)
		}
	}
}

// TestYAMLIsBounded: what is not taken out is read up to a size, and above it
// refused with what to do.
func TestYAMLIsBounded(t *testing.T) {
	const rule = "    - {allow: host-%07d.test, budget: {up: 1MiB/1h}}\n"
	for _, above := range []bool{false, true} {
		var b strings.Builder
		b.WriteString("version: 1\nnetwork:\n  rules:\n    - allow: plain-1.test\n    - allow: plain-2.test\n    - allow: plain-3.test\n")
		n := 1000
		if above {
			n = maxYAML / len(fmt.Sprintf(rule, 0))
		}
		for i := range n {
			fmt.Fprintf(&b, rule, i)
		}
		_, err := Parse("long", []byte(b.String()))
		if !above && err != nil || above && (err == nil || !strings.HasPrefix(err.Error(), "long:1:1: more than 8388608 bytes beside plain rules")) {
			t.Errorf("%d rules: %v", n, err)
		}
	}
	// Where plain lines mean something else, all of the text is left for YAML.
	text := "version: 1\nnetwork:\n  rules:\n    - allow: |\n" + strings.Repeat("       - allow: a.test\n", maxYAML/20)
	if _, err := Parse("long", []byte(text)); err == nil || !strings.Contains(err.Error(), "more than 8388608 bytes") {
		t.Errorf("plain lines in a text: %.200v", err)
	}
}
