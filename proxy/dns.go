package proxy

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/net/ipv4"

	"cofferdam.dev/cofferdam/proxy/policy"
	"cofferdam.dev/cofferdam/proxy/record"
)

const (
	answerTTL   = 60 // seconds; the mapping outlives it anyway
	negativeTTL = 5  // seconds; a policy may be changed
	maxUDP      = 1232
	minUDP      = 512
	maxQuery    = 4096 // bytes; one question and its options need a tenth of it

	// Types and classes that dnsmessage has no name for.
	typeIXFR, typeMAILB, typeMAILA = dnsmessage.Type(251), dnsmessage.Type(253), dnsmessage.Type(254)
	rcodeBADVERS                   = dnsmessage.RCode(16) // RFC 6891, 9
	optionEDE                      = 15                   // RFC 8914, 2
	edeOther, edeBlocked           = 0, 15                // RFC 8914, 4
)

// serveDNS answers queries until ctx ends. Each answer is computed from memory
// at once, so one goroutine is enough and a flood queues in the socket only, see
// paceQuery.
func (s *Server) serveDNS(ctx context.Context) error {
	buf := make([]byte, maxQuery+1)
	for {
		n, cm, from, err := s.dns.ReadFrom(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			if temporary(err) || errors.Is(err, syscall.ECONNREFUSED) { // an ICMP error of an earlier answer
				continue
			}
			return fmt.Errorf("receive queries: %w", err)
		}
		if peer := addrOf(from); peer != s.cfg.Box {
			s.note("peer "+peer.String(), record.Record{
				Verdict: policy.Deny.String(), Protocol: policy.DNS.String(), Reason: "a query from " + peer.String() + ", which is not the agent's address",
			})
			continue
		}
		s.paceQuery(ctx)
		var answer []byte
		if n <= maxQuery {
			answer = s.answer(buf[:n], maxUDP)
		} else {
			answer = s.answerOversized(buf[:n])
		}
		if answer == nil {
			continue
		}
		reply := &ipv4.ControlMessage{}
		if cm != nil {
			reply.Src = cm.Dst // it must come from where the query went to
		}
		s.dns.WriteTo(answer, reply, from) // a lost answer is asked for again
	}
}

// serveStream answers queries on a connection, if there are not too many others.
func (c *conn) serveStream(ctx context.Context) {
	select {
	case c.s.streams <- struct{}{}:
		defer func() { <-c.s.streams }()
		c.serveDNSStream(ctx)
	default:
		c.s.reached(fmt.Sprintf("%d connections for DNS are open: further ones are reset", cap(c.s.streams)))
		c.reset()
	}
}

// serveDNSStream answers queries on a connection (RFC 7766) in their order, until
// the agent closes it or falls silent.
func (c *conn) serveDNSStream(ctx context.Context) {
	var head [2]byte
	in := bufio.NewReader(c.tcp)
	for {
		c.tcp.SetDeadline(time.Now().Add(c.s.timeouts.dns))
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return
		}
		size := int(binary.BigEndian.Uint16(head[:]))
		query := make([]byte, min(size, maxQuery))
		if _, err := io.ReadFull(in, query); err != nil {
			return
		}
		c.s.paceQuery(ctx)
		var answer []byte
		if size <= maxQuery {
			answer = c.s.answer(query, 0xffff)
		} else {
			answer = c.s.answerOversized(query)
		}
		if answer == nil {
			return
		}
		framed := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(answer)), uint16(len(answer)))
		if _, err := c.tcp.Write(append(framed, answer...)); err != nil || size > maxQuery {
			return
		}
	}
}

// query is what is answered.
type query struct {
	header   dnsmessage.Header
	question dnsmessage.Question
	edns     bool
	version  uint8 // of EDNS
	size     int   // largest UDP answer that the client takes
}

// reply is the answer, before it is a message. The zero reply says that the name
// exists and has no such records.
type reply struct {
	rcode  dnsmessage.RCode
	addr   netip.Addr  // the answer to A
	ptr    policy.Name // the answer to PTR
	bare   bool        // nothing but the header and the question
	ede    uint16
	reason string // text of the extended error; empty for none
}

// answer returns the message that answers another, or nil if nothing may be
// said: to what is shorter than a header, and to what is itself an answer. limit
// is the transport's limit in bytes.
func (s *Server) answer(message []byte, limit int) []byte {
	q, ok, err := parseQuery(message)
	if !ok {
		s.note("not a query", record.Record{
			Verdict: policy.Deny.String(), Protocol: policy.DNS.String(), Reason: "not a DNS query: ignored",
		})
		return nil
	}
	var r reply
	switch {
	case err != nil:
		r = reply{rcode: dnsmessage.RCodeFormatError, bare: true}
		s.note("malformed", record.Record{
			Verdict: policy.Deny.String(), Protocol: policy.DNS.String(), Reason: "malformed DNS query",
		})
	case q.header.OpCode != 0:
		r = reply{rcode: dnsmessage.RCodeNotImplemented, bare: true}
		s.note("opcode", record.Record{
			Verdict: policy.Deny.String(), Protocol: policy.DNS.String(), Reason: "a DNS operation other than a query",
		})
	case q.edns && q.version != 0:
		r = reply{rcode: rcodeBADVERS}
	default:
		r = s.resolve(q.question)
	}
	if limit == maxUDP {
		limit = min(max(q.size, minUDP), maxUDP)
	}
	return q.build(r, limit)
}

// answerOversized answers a query that is longer than maxQuery, given its
// beginning.
func (s *Server) answerOversized(beginning []byte) []byte {
	q, ok, _ := parseQuery(beginning)
	if !ok {
		return nil
	}
	s.note("oversized", record.Record{
		Verdict: policy.Deny.String(), Protocol: policy.DNS.String(), Reason: fmt.Sprintf("a DNS query of more than %d bytes", maxQuery),
	})
	return q.build(reply{rcode: dnsmessage.RCodeFormatError, bare: true}, minUDP)
}

// parseQuery reads a query strictly: one question, at most one OPT record, and
// every record well-formed. ok is false if there is nothing to answer to; err is
// set if the answer is a format error.
func parseQuery(message []byte) (q query, ok bool, err error) {
	var p dnsmessage.Parser
	if q.header, err = p.Start(message); err != nil || q.header.Response {
		return q, false, nil
	}
	if q.question, err = p.Question(); err != nil {
		return q, true, err
	}
	if _, err = p.Question(); !errors.Is(err, dnsmessage.ErrSectionDone) {
		return q, true, errors.New("more than one question")
	}
	if err = p.SkipAllAnswers(); err != nil {
		return q, true, err
	}
	if err = p.SkipAllAuthorities(); err != nil {
		return q, true, err
	}
	for {
		h, err := p.AdditionalHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return q, true, nil
		}
		if err != nil {
			return q, true, err
		}
		if h.Type == dnsmessage.TypeOPT {
			if q.edns {
				return q, true, errors.New("more than one OPT record")
			}
			q.edns, q.version, q.size = true, uint8(h.TTL>>16), int(h.Class)
		}
		if err := p.SkipAdditional(); err != nil {
			return q, true, err
		}
	}
}

// resolve decides about a question.
func (s *Server) resolve(q dnsmessage.Question) reply {
	text := string(q.Name.Data[:q.Name.Length])
	kind := "other"
	switch q.Type {
	case dnsmessage.TypeA, dnsmessage.TypeAAAA, dnsmessage.TypeHTTPS, dnsmessage.TypeSVCB:
		kind = "address"
	}
	refuse := func(name, reason string, r reply) reply {
		s.note(kind+" "+strings.ToLower(name), record.Record{
			Verdict: policy.Deny.String(), Protocol: policy.DNS.String(), Name: name, Reason: reason,
		})
		r.ede, r.reason = edeBlocked, reason
		return r
	}
	switch q.Type {
	case dnsmessage.TypeALL, dnsmessage.TypeAXFR, typeIXFR, typeMAILA, typeMAILB:
		return refuse(text, "queries for all records are refused", reply{rcode: dnsmessage.RCodeRefused})
	}
	if q.Class != dnsmessage.ClassINET {
		return refuse(text, "classes other than IN are refused", reply{rcode: dnsmessage.RCodeRefused})
	}
	name, err := policy.ParseWireName(text)
	if err != nil {
		return refuse(text, err.Error(), reply{rcode: dnsmessage.RCodeNameError})
	}
	// RFC 6761, 6.3. Images without /etc/hosts ask for it, or for their own name, and it never leaves.
	if isLocalhost(name) {
		if q.Type == dnsmessage.TypeA {
			return reply{addr: netip.AddrFrom4([4]byte{127, 0, 0, 1})}
		}
		return reply{}
	}
	if q.Type == dnsmessage.TypePTR {
		if ptr := s.names.name(reverse(name)); !ptr.IsZero() {
			return reply{ptr: ptr} // what the agent was told before
		}
	}
	d := s.decide(question{Request: policy.Request{Protocol: policy.DNS, Name: name}})
	if d.Verdict != policy.Allow {
		s.note(kind+" "+name.String(), record.Record{
			Verdict: d.Verdict.String(), Protocol: policy.DNS.String(), Name: name.String(), Reason: d.Reason, Rule: d.Rule,
		})
		reason := d.Reason
		if d.Rule != "" {
			reason += ": " + d.Rule
		}
		return reply{rcode: dnsmessage.RCodeNameError, ede: edeBlocked, reason: reason}
	}
	if kind != "address" {
		return refuse(name.String(), "only addresses are resolved, not "+typeText(q.Type), reply{})
	}
	addr, err := s.names.address(name)
	if err != nil {
		if errors.Is(err, errNamesFull) {
			s.reached(fmt.Sprintf("%d names have an address: further ones get none", s.names.count()))
		}
		s.note("no address", record.Record{
			Verdict: policy.Deny.String(), Protocol: policy.DNS.String(), Name: name.String(), Reason: err.Error(),
		})
		return reply{rcode: dnsmessage.RCodeServerFailure, ede: edeOther, reason: err.Error()}
	}
	s.note(name.String(), record.Record{
		Verdict: d.Verdict.String(), Protocol: policy.DNS.String(), Name: name.String(), Reason: d.Reason, Rule: d.Rule,
	})
	if q.Type != dnsmessage.TypeA {
		return reply{} // IPv4 only; no keys for ECH, no QUIC, no other endpoint
	}
	return reply{addr: addr}
}

// ownName is the host name of an agent without an engine, which an image has in no /etc/hosts. It has no point: programs that find no search
// list, Go's resolver among them, take what stands behind the first one for theirs.
const ownName = "cofferdam"

// isLocalhost knows the names of RFC 6761, 6.3, and the agent's own. Of those below localhost it knows the ones with one label more: where that is a
// search domain, as programs take it from a host name that an engine gives, every denied name would have an address else.
func isLocalhost(name policy.Name) bool {
	if name.String() == ownName {
		return true
	}
	below, ok := strings.CutSuffix(name.String(), "localhost")
	return ok && (below == "" || strings.IndexByte(below, '.') == len(below)-1)
}

// reverse returns the IPv4 address that a name below in-addr.arpa is about (RFC
// 1035, 3.5), or the zero Addr.
func reverse(name policy.Name) netip.Addr {
	text, ok := strings.CutSuffix(name.String(), ".in-addr.arpa")
	if !ok {
		return netip.Addr{}
	}
	labels := strings.Split(text, ".")
	slices.Reverse(labels)
	addr, err := netip.ParseAddr(strings.Join(labels, "."))
	if err != nil {
		return netip.Addr{}
	}
	return addr
}

func typeText(t dnsmessage.Type) string { return strings.TrimPrefix(t.String(), "Type") }

// build makes the message. The question is echoed byte for byte, since clients
// compare its case. An answer over the limit is cut to the question, with TC.
func (q query) build(r reply, limit int) []byte {
	message, err := q.pack(r, false)
	if err == nil && len(message) > limit {
		message, err = q.pack(reply{rcode: r.rcode, bare: r.bare}, true)
	}
	if err != nil {
		return nil // what was parsed can be packed; if not, silence is safe
	}
	return message
}

func (q query) pack(r reply, truncated bool) ([]byte, error) {
	b := dnsmessage.NewBuilder(make([]byte, 0, minUDP), dnsmessage.Header{
		ID: q.header.ID, Response: true, OpCode: q.header.OpCode, Truncated: truncated,
		RecursionDesired: q.header.RecursionDesired, RecursionAvailable: true,
		CheckingDisabled: q.header.CheckingDisabled, RCode: r.rcode & 0xf,
	})
	b.EnableCompression()
	if q.question.Name.Length > 0 {
		if err := errors.Join(b.StartQuestions(), b.Question(q.question)); err != nil {
			return nil, err
		}
	}
	if r.bare {
		return b.Finish()
	}
	owner := dnsmessage.ResourceHeader{Name: q.question.Name, Class: dnsmessage.ClassINET}
	switch {
	case truncated:
	case r.addr.IsValid():
		owner.TTL = answerTTL
		if err := errors.Join(b.StartAnswers(), b.AResource(owner, dnsmessage.AResource{A: r.addr.As4()})); err != nil {
			return nil, err
		}
	case !r.ptr.IsZero():
		name, err := dnsmessage.NewName(r.ptr.String() + ".")
		owner.TTL = answerTTL
		if err := errors.Join(err, b.StartAnswers(), b.PTRResource(owner, dnsmessage.PTRResource{PTR: name})); err != nil {
			return nil, err
		}
	case r.rcode == dnsmessage.RCodeSuccess || r.rcode == dnsmessage.RCodeNameError:
		// Negative answers are cached by their SOA (RFC 2308, 5).
		owner.TTL = negativeTTL
		soa := dnsmessage.SOAResource{
			NS: dnsmessage.MustNewName("cofferdam.invalid."), MBox: dnsmessage.MustNewName("."),
			Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, MinTTL: negativeTTL,
		}
		if err := errors.Join(b.StartAuthorities(), b.SOAResource(owner, soa)); err != nil {
			return nil, err
		}
	}
	if q.edns {
		var h dnsmessage.ResourceHeader
		if err := h.SetEDNS0(maxUDP, r.rcode, false); err != nil {
			return nil, err
		}
		var opt dnsmessage.OPTResource
		if r.reason != "" {
			data := binary.BigEndian.AppendUint16(nil, r.ede)
			opt.Options = []dnsmessage.Option{{Code: optionEDE, Data: append(data, r.reason...)}}
		}
		if err := errors.Join(b.StartAdditionals(), b.OPTResource(h, opt)); err != nil {
			return nil, err
		}
	}
	return b.Finish()
}

// maxNotes bounds the denials of DNS that are remembered.
const maxNotes = 1 << 14

// lookups remembers what was recorded of DNS.
type lookups struct {
	mu      sync.Mutex // guards the rest
	allowed map[string]struct{}
	denied  map[string]struct{}
}

// note records a decision of DNS the first time that it is made. Allowed names
// have an address each, which bounds them. Once maxNotes denials are remembered,
// each further one is recorded again and again, by counts. An allowed name whose
// record could not be written is refused when it is dialled: decide sees that the
// log has stopped.
func (s *Server) note(key string, r record.Record) {
	r.Kind = record.Decision
	allow := r.Verdict == policy.Allow.String()
	s.lookups.mu.Lock()
	seen := &s.lookups.denied
	if allow {
		seen = &s.lookups.allowed
	}
	_, known := (*seen)[key]
	if !known && (allow || len(*seen) < maxNotes) {
		if *seen == nil {
			*seen = make(map[string]struct{})
		}
		(*seen)[key] = struct{}{}
	}
	s.lookups.mu.Unlock()
	switch {
	case known:
	case allow:
		if s.cfg.Records.Write(r) != nil { // the next query tries again
			s.lookups.mu.Lock()
			delete(s.lookups.allowed, key)
			s.lookups.mu.Unlock()
		}
	default:
		s.denials.add(r)
	}
}

// addrOf is the address of a peer, without port, zone or IPv6 wrapping.
func addrOf(a net.Addr) netip.Addr {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.UDPAddr:
		ap = a.AddrPort()
	case *net.TCPAddr:
		ap = a.AddrPort()
	}
	return ap.Addr().Unmap().WithZone("")
}
