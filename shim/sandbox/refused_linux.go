package sandbox

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/containerd/log"

	"cofferdam.dev/cofferdam/proxy/record"
)

// refusedEvery is how often the packets are looked at that GATE's kernel has turned away. Few agents send any, and looking costs one
// question to the kernel.
const refusedEvery = 10 * time.Second

// refusedKinds are the counters of GATE (netns.Rules) in the words of the decision log. No proxy sees such a packet, and nobody else could
// write it down; so many of one kind are one record.
var refusedKinds = map[string]struct{ protocol, reason string }{
	"udp":     {"udp", "UDP is refused, but for DNS"},
	"icmp":    {"icmp", "ICMP is refused"},
	"other":   {"ip", "IP protocols other than TCP and UDP are refused"},
	"ipv6":    {"ipv6", "IPv6 is dropped: there is none here"},
	"spoofed": {"ip", "packets from another address than the agent's are dropped"},
}

// recordRefused writes what GATE has refused since the last time.
func (s *Sandbox) recordRefused() error {
	counts, err := s.gate.Counters()
	if err != nil {
		return err
	}
	s.mu.Lock()
	policy := s.state.Policy.Name
	s.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		kind, known := refusedKinds[name]
		n := int64(counts[name] - s.refused[name])
		if !known || n == 0 {
			continue
		}
		err := s.records.Note(record.Record{
			Kind: record.Decision, Verdict: "deny", Protocol: kind.protocol, Reason: kind.reason, Policy: policy, Count: n,
		})
		if err != nil {
			return err
		}
		if s.refused == nil {
			s.refused = map[string]uint64{}
		}
		s.refused[name] = counts[name]
	}
	return nil
}

// watchRefused calls recordRefused from time to time until the sandbox is closed.
func (s *Sandbox) watchRefused(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	s.undo.add("refused packets' watcher", func() error { cancel(); return nil })
	go func() { // ends with ctx
		tick := time.NewTicker(refusedEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			release, err := s.use()
			if err != nil {
				return // it is being removed
			}
			if err := s.recordRefused(); err != nil {
				log.G(ctx).WithError(err).WithField("sandbox", s.ID).Error("refused packets")
			}
			release()
		}
	}()
}
