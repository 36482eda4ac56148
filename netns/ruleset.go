package netns

import (
	"fmt"
	"net/netip"
	"strings"
)

// A Ruleset is one nft table of the inet family. It is a description: String
// prints it as "nft -s list ruleset" would, and Setup loads it in one
// transaction. Its vocabulary is what [Rules] needs and no more.
type Ruleset struct {
	Table    string
	Counters []string
	Chains   []Chain
}

// A Chain is a base chain of type filter.
type Chain struct {
	Name     string
	Hook     Hook
	Priority Priority
	Policy   Verdict // Accept or Drop
	Rules    []Rule
}

// A Rule applies to packets that match all of its conditions; a condition with
// its zero value is absent. It then counts, steers and decides, in that order.
// A packet that TProxy finds no listener for leaves the rule undecided.
type Rule struct {
	IPv6     bool       // the packet is IPv6
	NotIn    string     // it arrived on another interface than this
	NotSrc   netip.Addr // it is IPv4 from another address than this
	Proto    Proto      // its transport protocol is this
	NotProto Proto      // its transport protocol is another
	DstPort  uint16     // its destination port is this; needs Proto TCP or UDP

	Counter string // of Ruleset.Counters
	TProxy  uint16 // hand it to the transparent listener on this port, unchanged
	Verdict Verdict
}

// A Hook is where in the kernel a chain is called, in nft's word.
type Hook string

// A Priority is when, among the chains of a hook, a chain is called.
type Priority string

// A Proto is a transport protocol.
type Proto string

// A Verdict is what becomes of a packet.
type Verdict string

// The words of nft that are known here.
const (
	Prerouting Hook = "prerouting"
	Forward    Hook = "forward"

	Mangle Priority = "mangle"
	Filter Priority = "filter"

	TCP  Proto = "tcp"
	UDP  Proto = "udp"
	ICMP Proto = "icmp"

	Continue Verdict = "" // to the next rule
	Accept   Verdict = "accept"
	Drop     Verdict = "drop"
)

// Rules is the ruleset of GATE. TPROXY is for observability: AnyIP makes every
// destination local anyway, the rule merely brings all ports to one listener.
// A connection to port 15001 itself is like any other: the listener sees it
// with the destination it was made to, and nobody dials from GATE, so there is
// no loop.
//
// Datagrams that no socket wants are counted but not dropped: the kernel
// answers them with port or protocol unreachable, so that a QUIC client falls
// back to TCP at once.
func Rules() Ruleset {
	return Ruleset{
		Table:    "cofferdam",
		Counters: []string{"ipv6", "spoofed", "udp", "icmp", "other"},
		Chains: []Chain{
			{
				Name: "prerouting", Hook: Prerouting, Priority: Mangle, Policy: Accept,
				Rules: []Rule{
					{IPv6: true, Counter: "ipv6", Verdict: Drop},
					{NotIn: GateLink, Verdict: Drop},
					{NotSrc: BoxIP, Counter: "spoofed", Verdict: Drop},
					{Proto: TCP, TProxy: ProxyPort, Verdict: Accept},
					{Proto: UDP, DstPort: DNSPort, Verdict: Accept},
					{Proto: UDP, Counter: "udp", Verdict: Accept},
					{Proto: ICMP, Counter: "icmp", Verdict: Accept},
					{NotProto: TCP, Counter: "other", Verdict: Accept},
				},
			},
			{Name: "forward", Hook: Forward, Priority: Filter, Policy: Drop},
		},
	}
}

func (r Ruleset) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table inet %s {\n", r.Table)
	for _, c := range r.Counters {
		fmt.Fprintf(&b, "\tcounter %s {\n\t}\n\n", c)
	}
	for i, c := range r.Chains {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "\tchain %s {\n", c.Name)
		fmt.Fprintf(&b, "\t\ttype filter hook %s priority %s; policy %s;\n", c.Hook, c.Priority, c.Policy)
		for _, rule := range c.Rules {
			fmt.Fprintf(&b, "\t\t%s\n", rule)
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

func (r Rule) String() string {
	var w []string
	if r.IPv6 {
		w = append(w, "meta nfproto ipv6")
	}
	if r.NotIn != "" {
		w = append(w, fmt.Sprintf("iifname != %q", r.NotIn))
	}
	if r.NotSrc.IsValid() {
		w = append(w, "ip saddr != "+r.NotSrc.String())
	}
	switch {
	case r.DstPort != 0:
		w = append(w, fmt.Sprintf("%s dport %d", r.Proto, r.DstPort))
	case r.Proto != "":
		w = append(w, "meta l4proto "+string(r.Proto))
	}
	if r.NotProto != "" {
		w = append(w, "meta l4proto != "+string(r.NotProto))
	}
	if r.Counter != "" {
		w = append(w, fmt.Sprintf("counter name %q", r.Counter))
	}
	if r.TProxy != 0 {
		w = append(w, fmt.Sprintf("tproxy ip to :%d", r.TProxy))
	}
	if r.Verdict != Continue {
		w = append(w, string(r.Verdict))
	}
	return strings.Join(w, " ")
}
