package proxy

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"cofferdam.dev/cofferdam/proxy/record"
)

func TestDenialsAreFolded(t *testing.T) {
	denial := func(name string, conn uint64) record.Record {
		return record.Record{
			Kind: record.Decision, Verdict: "deny", Protocol: "tls", Name: name, Port: 443, Conn: conn, Reason: "no rule allows it",
		}
	}
	for _, test := range []struct {
		name string
		add  func(d *denials, c *clock)
		want []string // "times count name", in order
	}{
		{
			"a few", func(d *denials, _ *clock) {
				for i := range uint64(maxSingles) {
					d.add(denial("a.test", i+1))
				}
			}, []string{"50 0 a.test"},
		},
		{
			"one kind", func(d *denials, _ *clock) {
				for i := range uint64(1000) {
					d.add(denial("a.test", i+1))
				}
			}, []string{"50 0 a.test", "1 950 a.test"},
		},
		{
			"two kinds", func(d *denials, _ *clock) {
				for i := range uint64(1000) {
					d.add(denial([]string{"a.test", "b.test"}[i/500], i+1))
				}
			}, []string{"50 0 a.test", "1 450 a.test", "1 500 b.test"},
		},
		{
			"the next interval", func(d *denials, c *clock) {
				for range 2 {
					for range maxSingles + 7 {
						d.add(denial("a.test", 1))
					}
					c.pass(foldInterval)
				}
				d.add(denial("b.test", 1))
			}, []string{"50 0 a.test", "1 7 a.test", "50 0 a.test", "1 7 a.test", "1 0 b.test"},
		},
		{
			"many kinds", func(d *denials, _ *clock) {
				for i := range maxSingles + maxKinds + 30 {
					d.add(denial(fmt.Sprintf("x%d.test", max(i-maxSingles, 0)), 1))
				}
			}, func() []string {
				want := []string{"50 0 x0.test"}
				for i := range maxKinds {
					want = append(want, fmt.Sprintf("1 1 x%d.test", i))
				}
				return append(want, "1 30 ")
			}(),
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log")
			c := &clock{now: time.Unix(1, 0)}
			d := newDenials(newRecords(t, path, record.Limits{}), c.Now)
			test.add(d, c)
			d.flush()
			var got []string
			last, times := "", 0
			for _, r := range append(readRecords(t, path), record.Record{Name: "end"}) {
				if r.Count > 0 && r.Conn != 0 {
					t.Errorf("a count names connection %d", r.Conn)
				}
				text := fmt.Sprintf("%d %s", r.Count, r.Name)
				if text != last && times > 0 {
					got, times = append(got, fmt.Sprint(times, " ", last)), 0
				}
				last, times = text, times+1
			}
			checkRecords(t, got, test.want)
		})
	}
}

// TestAllowsAreNotFolded: what is allowed in the midst of a flood of denials has a
// record each, and the counts are written when the proxy ends.
func TestAllowsAreNotFolded(t *testing.T) {
	l := newLab(t, tlsPolicy)
	l.upstream(tlsUpstream)
	for range 3 * maxSingles {
		l.server.denials.add(record.Record{Kind: record.Decision, Verdict: "deny", Reason: "x"})
	}
	const connections = 10
	for range connections {
		if got, err := l.askTLS(literal, "good.test", nil); got == "" {
			t.Fatal(err)
		}
	}
	l.stop()
	allowed, denied := 0, int64(0)
	for _, r := range readRecords(t, l.log) {
		switch r.Verdict {
		case "allow":
			allowed++
		case "deny":
			denied += max(r.Count, 1)
		}
	}
	if allowed != connections || denied != 3*maxSingles {
		t.Errorf("%d allowed, %d denied", allowed, denied)
	}
}
