package policy

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

// million is the text of a policy with a million rules for names of three labels
// below 20,000 domains: every hundredth is a wildcard, every tenth a deny, and
// every second says its ports.
var million = sync.OnceValue(func() []byte {
	var b strings.Builder
	b.WriteString("version: 1\nnetwork:\n  rules:\n")
	for i := range 1_000_000 {
		star, verdict := "", "allow"
		if i%100 == 99 {
			star = "*."
		}
		if i%10 == 8 {
			verdict = "deny"
		}
		rule := fmt.Sprintf("%s: \"%shost-%d.domain-%d.example\"", verdict, star, i, i%20_000)
		if i%2 == 1 {
			rule = "{" + rule + ", ports: [443, 8443]}"
		}
		b.WriteString("    - " + rule + "\n")
	}
	return []byte(b.String())
})

func parseMillion(tb testing.TB) *Policy {
	tb.Helper()
	p, err := Parse("bench", million())
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// BenchmarkDecide decides with a million rules. The set "used" is of a thousand
// names, as many as a busy sandbox has to do with: rules about them are in the
// processor's caches. The set "all" is of 65,536 names, so that every decision
// waits for memory. "allow" and "deny" are decided by a rule of the name itself,
// "none" by the absence of any.
func BenchmarkDecide(b *testing.B) {
	p := parseMillion(b)
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(n int, outcome string) []Name {
		names := make([]Name, n)
		for i := range names {
			j := random.IntN(100_000) * 10
			switch outcome {
			case "deny":
				j += 8
			case "none":
				j += 1_000_000
			}
			names[i] = Name{fmt.Sprintf("host-%d.domain-%d.example", j, j%20_000)}
		}
		return names
	}
	for _, set := range []struct {
		name string
		size int
	}{{"used", 1 << 10}, {"all", 1 << 16}} {
		for _, outcome := range []string{"allow", "deny", "none"} {
			names := pick(set.size, outcome)
			want := Deny
			if outcome == "allow" {
				want = Allow
			}
			for _, protocol := range []Protocol{TLS, DNS} {
				b.Run(fmt.Sprintf("%s/%s/%s", set.name, outcome, protocol), func(b *testing.B) {
					b.ReportAllocs()
					i := 0
					for b.Loop() {
						if p.Decide(Request{Protocol: protocol, Name: names[i&(len(names)-1)], Port: 443}).Verdict != want {
							b.Fatal(names[i])
						}
						i++
					}
				})
			}
		}
	}
}

// BenchmarkParse loads a million rules, and says where the time goes.
func BenchmarkParse(b *testing.B) {
	data := million()
	var read, compile time.Duration
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		start := time.Now()
		short, runs, _ := elide(data)
		p := &parser{name: "bench", runs: runs}
		p.read(short)
		read += time.Since(start)
		p.compile()
		compile += time.Since(start)
		if err := p.err(); err != nil || len(p.rules) != 1_000_000 || len(p.runs) > 0 {
			b.Fatal(err, len(p.rules), len(p.runs))
		}
	}
	b.ReportMetric(float64(read.Milliseconds())/float64(b.N), "read-ms/op")
	b.ReportMetric(float64((compile-read).Milliseconds())/float64(b.N), "compile-ms/op")
}
