package policy

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestBudget(t *testing.T) {
	p, err := Parse("a", []byte(`version: 1
network:
  rules:
    - {allow: a.test, protocol: http, budget: {up: 10MiB, down: 1048576KiB/90m, connections: 100/1m, requests: 600/24h}}
    - {allow: b.test, budget: {connections: 7}}
    - allow: c.test
`))
	if err != nil {
		t.Fatal(err)
	}
	var got []*Budget
	for _, r := range p.Rules() {
		got = append(got, r.Budget)
	}
	want := []*Budget{
		{
			Key: "allow a.test:80 http",
			Up:  &Quota{Most: 10 << 20}, Down: &Quota{Most: 1 << 30, Per: 90 * time.Minute},
			Connections: &Quota{Most: 100, Per: time.Minute}, Requests: &Quota{Most: 600, Per: 24 * time.Hour},
		},
		{Key: "allow b.test:443 tls", Connections: &Quota{Most: 7}},
		nil,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got, want := got[0].String(), "{up: 10MiB, down: 1GiB/90m, connections: 100/1m, requests: 600/1d}"; got != want {
		t.Errorf("printed as %s, want %s", got, want)
	}
}

// TestBudgetOfDecision: it comes with what is allowed and with nothing else.
func TestBudgetOfDecision(t *testing.T) {
	p, err := Parse("a", []byte(`version: 1
network:
  rules:
    - {allow: a.test, addresses: [10.0.0.5], budget: {up: 1KiB}}
    - allow: b.test
`))
	if err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]bool{
		"tls a.test 443":          true,
		"tls a.test 443 10.0.0.5": true,
		"tls - 443 10.0.0.5":      true,
		"tls a.test 443 10.0.0.6": false,
		"tls a.test 80":           false,
		"http a.test 443":         false,
		"dns a.test 0":            false,
		"tls b.test 443":          false,
	} {
		if d := p.Decide(parseRequest(t, line)); (d.Budgets != Budgets{}) != want {
			t.Errorf("%s: %+v", line, d)
		}
	}
}

func FuzzParseQuota(f *testing.F) {
	for _, s := range []string{"10MiB", "1GiB/1h", "100/1m", "/", "1/", "0", "99999999999999999999B", "1B/366d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if q, err := parseQuota(s, parseSize); err == nil {
			if again, err := parseQuota(q.Bytes(), parseSize); err != nil || again != q || q.Most < 1 || q.Per < 0 {
				t.Errorf("%q is %+v, printed as %s", s, q, q.Bytes())
			}
		}
		if q, err := parseQuota(s, parseCount); err == nil {
			if again, err := parseQuota(q.Count(), parseCount); err != nil || again != q || q.Most < 1 || q.Per < 0 {
				t.Errorf("%q is %+v, printed as %s", s, q, q.Count())
			}
		}
	})
}
