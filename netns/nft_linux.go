package netns

import (
	"fmt"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// openNftables opens a socket for packet filters in ns, which it stays in. The
// library can do so too, but only where the way back to the caller's namespace is
// open: in a user namespace below that one's it is not (setns(2)), and the thread
// has to be given up, as Do does.
func openNftables(ns *os.File) (conn *nftables.Conn, err error) {
	err = Do(ns, func() error {
		conn, err = nftables.New(nftables.AsLasting())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	return conn, nil
}

// apply loads the ruleset into the network namespace ns, in one transaction:
// the kernel takes all of it or nothing.
//
// It must not run inside Do: the library beneath starts a goroutine for every
// message, and each of them would cost a locked thread two switches, 2 ms in all.
func (r Ruleset) apply(ns *os.File) error {
	conn, err := openNftables(ns)
	if err != nil {
		return err
	}
	defer func() { _ = conn.CloseLasting() }()
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: r.Table})
	for _, name := range r.Counters {
		conn.AddObj(&nftables.NamedObj{
			Table: table, Name: name, Type: nftables.ObjTypeCounter, Obj: &expr.Counter{},
		})
	}
	for _, c := range r.Chains {
		if hooks[c.Hook] == nil || priorities[c.Priority] == nil || policies[c.Policy] == nil {
			return fmt.Errorf("chain %s: unknown hook %q, priority %q or policy %q", c.Name, c.Hook, c.Priority, c.Policy)
		}
		chain := conn.AddChain(&nftables.Chain{
			Table: table, Name: c.Name, Type: nftables.ChainTypeFilter,
			Hooknum: hooks[c.Hook], Priority: priorities[c.Priority], Policy: policies[c.Policy],
		})
		for _, rule := range c.Rules {
			exprs, err := rule.exprs()
			if err != nil {
				return fmt.Errorf("rule %q: %w", rule, err)
			}
			conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: exprs})
		}
	}
	err = conn.Flush()
	if err != nil {
		return fmt.Errorf("load nft table %s: %w", r.Table, err)
	}
	return nil
}

// The words of a ruleset in the kernel's terms.
var (
	hooks = map[Hook]*nftables.ChainHook{
		Prerouting: nftables.ChainHookPrerouting,
		Forward:    nftables.ChainHookForward,
	}
	priorities = map[Priority]*nftables.ChainPriority{
		Mangle: nftables.ChainPriorityMangle,
		Filter: nftables.ChainPriorityFilter,
	}
	policies = map[Verdict]*nftables.ChainPolicy{
		Accept: ptr(nftables.ChainPolicyAccept),
		Drop:   ptr(nftables.ChainPolicyDrop),
	}
	protos = map[Proto]byte{
		TCP:  unix.IPPROTO_TCP,
		UDP:  unix.IPPROTO_UDP,
		ICMP: unix.IPPROTO_ICMP,
	}
	verdicts = map[Verdict]expr.VerdictKind{
		Accept: expr.VerdictAccept,
		Drop:   expr.VerdictDrop,
	}
)

func ptr[T any](v T) *T { return new(v) }

// exprs is the rule in the kernel's terms: the same that nft(8) compiles the
// rule's text to, so that nft lists it as that text again.
func (r Rule) exprs() ([]expr.Any, error) {
	var e []expr.Any
	meta := func(key expr.MetaKey, op expr.CmpOp, data []byte) {
		e = append(e, &expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: data})
	}
	payload := func(base expr.PayloadBase, offset uint32, op expr.CmpOp, data []byte) {
		e = append(e,
			&expr.Payload{DestRegister: 1, Base: base, Offset: offset, Len: uint32(len(data))},
			&expr.Cmp{Op: op, Register: 1, Data: data})
	}
	if r.IPv6 {
		meta(expr.MetaKeyNFPROTO, expr.CmpOpEq, []byte{unix.NFPROTO_IPV6})
	}
	if r.NotIn != "" {
		name := make([]byte, unix.IFNAMSIZ)
		if copy(name, r.NotIn) == len(name) {
			return nil, fmt.Errorf("interface name %q is too long", r.NotIn)
		}
		meta(expr.MetaKeyIIFNAME, expr.CmpOpNeq, name)
	}
	if r.NotSrc.IsValid() {
		if !r.NotSrc.Is4() {
			return nil, fmt.Errorf("source %s is not IPv4", r.NotSrc)
		}
		meta(expr.MetaKeyNFPROTO, expr.CmpOpEq, []byte{unix.NFPROTO_IPV4})
		payload(expr.PayloadBaseNetworkHeader, 12, expr.CmpOpNeq, r.NotSrc.AsSlice())
	}
	for _, c := range []struct {
		proto Proto
		op    expr.CmpOp
	}{{r.Proto, expr.CmpOpEq}, {r.NotProto, expr.CmpOpNeq}} {
		if c.proto == "" {
			continue
		}
		number, ok := protos[c.proto]
		if !ok {
			return nil, fmt.Errorf("unknown protocol %q", c.proto)
		}
		meta(expr.MetaKeyL4PROTO, c.op, []byte{number})
	}
	if r.DstPort != 0 {
		if r.Proto != TCP && r.Proto != UDP {
			return nil, fmt.Errorf("port %d without a protocol that has ports", r.DstPort)
		}
		payload(expr.PayloadBaseTransportHeader, 2, expr.CmpOpEq, binaryutil.BigEndian.PutUint16(r.DstPort))
	}
	if r.Counter != "" {
		e = append(e, &expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: r.Counter})
	}
	if r.TProxy != 0 {
		e = append(e,
			&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(r.TProxy)},
			&expr.TProxy{Family: unix.NFPROTO_IPV4, RegPort: 1})
	}
	if r.Verdict != Continue {
		kind, ok := verdicts[r.Verdict]
		if !ok {
			return nil, fmt.Errorf("unknown verdict %q", r.Verdict)
		}
		e = append(e, &expr.Verdict{Kind: kind})
	}
	return e, nil
}

// Counters returns how many packets each counter of [Rules] has seen: "udp",
// "icmp" and "other" of what was refused, "spoofed" and "ipv6" of what was
// dropped.
func (g *Gate) Counters() (map[string]uint64, error) {
	conn, err := openNftables(g.ns)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.CloseLasting() }()
	objs, err := conn.GetNamedObjects(&nftables.Table{Family: nftables.TableFamilyINet, Name: Rules().Table})
	if err != nil {
		return nil, fmt.Errorf("read counters: %w", err)
	}
	counts := make(map[string]uint64, len(objs))
	for _, o := range objs {
		if named, ok := o.(*nftables.NamedObj); ok {
			if c, ok := named.Obj.(*expr.Counter); ok {
				counts[named.Name] = c.Packets
			}
		}
	}
	return counts, nil
}
