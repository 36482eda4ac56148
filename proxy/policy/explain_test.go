package policy

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// parseHost reads a line of a "hosts" file: name[:port], ipv4[:port] or ipv6.
func parseHost(t *testing.T, line string) (Name, netip.Addr, uint16) {
	t.Helper()
	host, portText, _ := strings.Cut(line, ":")
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		port = 0
	}
	for _, text := range []string{line, host} {
		if addr, err := netip.ParseAddr(text); err == nil {
			return Name{}, addr, uint16(port)
		}
	}
	name, err := ParseName(host)
	if err != nil {
		t.Fatal(err)
	}
	return name, netip.Addr{}, uint16(port)
}

// TestExplain asserts the text, and that following its advice does what it says.
func TestExplain(t *testing.T) {
	golden(t, "explain", "explanations", func(t *testing.T, a *txtar.Archive) string {
		text := get(t, a, "policy.yaml")
		p, err := Parse("policy.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		for line := range strings.Lines(get(t, a, "hosts")) {
			line = strings.TrimSpace(line)
			name, addr, port := parseHost(t, line)
			e := p.Explain(name, addr, port)
			out.WriteString("# " + line + "\n" + e.String() + "\n")
			if e.Add == nil {
				continue
			}
			better := text
			for _, place := range e.Remove {
				lines := strings.SplitAfter(better, "\n")
				n, err := strconv.Atoi(strings.Split(place, ":")[1])
				if err != nil {
					t.Fatal(err)
				}
				lines[n-1] = "\n"
				better = strings.Join(lines, "")
			}
			for _, rule := range e.Add {
				better += "    - " + rule + "\n"
			}
			followed, err := Parse("better", []byte(better))
			if err != nil {
				t.Fatalf("%s: %v\n%s", line, err, better)
			}
			for _, o := range followed.Explain(name, addr, port).Outcomes {
				allowed := false
				for _, other := range followed.Explain(name, addr, port).Outcomes {
					allowed = allowed || other.Port == o.Port && other.Decision.Verdict == Allow
				}
				if !allowed {
					t.Errorf("%s: port %d is still denied with\n%s", line, o.Port, better)
				}
			}
		}
		return out.String()
	})
}

// TestExplainNothing asserts that a policy that denies everything can be
// explained, and what it says.
func TestExplainNothing(t *testing.T) {
	for _, p := range []*Policy{nil, {}, Default()} {
		for _, e := range []Explanation{p.Explain(Name{"a.test"}, netip.Addr{}, 0), p.Explain(Name{}, netip.MustParseAddr("10.0.0.1"), 80)} {
			if text := e.String(); strings.Contains(text, "  allow  ") || !strings.Contains(text, "no rule speaks of it") || len(e.Add) != 1 {
				t.Errorf("%s", text)
			}
		}
	}
}
