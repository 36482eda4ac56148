package sandbox

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/containerd/log"

	"cofferdam.dev/cofferdam/proxy/record"
)

// unseenEvery is how often the packets are looked at that GATE's kernel has turned away, and what the broker has seen. Few agents send
// any, and looking costs one question each.
const unseenEvery = 10 * time.Second

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

// recordWorkspace writes what the agent has done to its workspaces since the last time: each protected place that it tried to change, each
// file that it made executable, and how many it has changed so far.
func (s *Sandbox) recordWorkspace() error {
	now, err := s.door.report()
	if err != nil {
		return err
	}
	was := s.workspaces
	for i, r := range now.Refused {
		times := r.Times
		if i < len(was.Refused) { // the list only grows
			times -= was.Refused[i].Times
		}
		if times == 0 {
			continue
		}
		err := s.records.Note(record.Record{
			Kind: record.Decision, Verdict: "deny", Protocol: record.File, Name: r.Path, Rule: r.Rule, Reason: r.Reason, Count: int64(times),
		})
		if err != nil {
			return err
		}
	}
	for _, name := range now.Executables[len(was.Executables):] {
		if err := s.records.Note(record.Record{Kind: record.Workspace, Name: name, Reason: "made executable"}); err != nil {
			return err
		}
	}
	if now.Changed != was.Changed || now.Removed != was.Removed {
		if err := s.records.Note(record.Record{Kind: record.Workspace, Reason: "changed", Changed: int64(now.Changed), Removed: int64(now.Removed)}); err != nil {
			return err
		}
	}
	s.workspaces = now
	return nil
}

// recordUnseen writes what no proxy sees.
func (s *Sandbox) recordUnseen(ctx context.Context) {
	if err := errors.Join(s.recordRefused(), s.recordWorkspace()); err != nil { // no reason to keep the sandbox
		log.G(ctx).WithError(err).WithField("sandbox", s.ID).Error("decision log")
	}
}

// watchUnseen calls recordUnseen from time to time until the sandbox is closed.
func (s *Sandbox) watchUnseen(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	if err := s.undo.add("watcher of what no proxy sees", func() error { cancel(); return nil }); err != nil {
		return err
	}
	go func() { // ends with ctx
		tick := time.NewTicker(unseenEvery)
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
			s.recordUnseen(ctx)
			release()
		}
	}()
	return nil
}
