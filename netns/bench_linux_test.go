package netns

import (
	"os"
	"testing"
	"time"

	"cofferdam.dev/cofferdam/netns/netnstest"
)

// BenchmarkSandbox reports the microseconds of each step on the way of a
// sandbox. It needs root, as benchmarks do not run in namespaces of their own.
func BenchmarkSandbox(b *testing.B) {
	if os.Geteuid() != 0 {
		netnstest.Skip(b, "root", "benchmarks make namespaces without a user namespace")
	}
	dir := b.TempDir()
	names := []string{"setup", "listen", "attach", "verify", "teardown"}
	sum := map[string]time.Duration{}
	for b.Loop() {
		b.StopTimer()
		box := newNS(b)
		b.StartTimer()
		start := time.Now()
		lap := func(name string, err error) {
			sum[name] += time.Since(start)
			must(b, err)
			start = time.Now()
		}
		g, err := Setup(b.Context(), dir, "a")
		lap("setup", err)
		l, err := g.Listen()
		lap("listen", err)
		lap("attach", g.Attach(box))
		lap("verify", g.Verify(box))
		b.StopTimer()
		must(b, l.Close())
		must(b, g.Close())
		b.StartTimer()
		start = time.Now()
		lap("teardown", Teardown(dir, "a"))
		b.StopTimer()
		must(b, box.Close())
		b.StartTimer()
	}
	for _, name := range names {
		b.ReportMetric(float64(sum[name].Microseconds())/float64(b.N), name+"-µs")
	}
}
