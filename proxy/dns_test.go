package proxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/dns/dnsmessage"

	"cofferdam.dev/cofferdam/proxy/policy"
	"cofferdam.dev/cofferdam/proxy/record"
)

const dnsPolicy = `version: 1
network:
  rules:
    - allow: good.test
    - allow: "*.example.org"
    - {allow: raw.test, ports: [PORT], protocol: tcp}
    - deny: secret.example.org
    - allow: db
`

// buildQuery makes a query; change may edit the header and the OPT record is
// added if size is not 0.
func buildQuery(t testing.TB, name string, qtype dnsmessage.Type, class dnsmessage.Class, size int, change func(*dnsmessage.Message)) []byte {
	t.Helper()
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 4711, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: qtype, Class: class}},
	}
	if size > 0 {
		var h dnsmessage.ResourceHeader
		if err := h.SetEDNS0(size, 0, false); err != nil {
			t.Fatal(err)
		}
		m.Additionals = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.OPTResource{}}}
	}
	if change != nil {
		change(&m)
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// describe prints an answer in one line.
func describe(t testing.TB, b []byte) string {
	t.Helper()
	if b == nil {
		return "silence"
	}
	var m dnsmessage.Message
	if err := m.Unpack(b); err != nil {
		t.Fatalf("answer %x: %v", b, err)
	}
	rcode, ede := m.RCode, ""
	for _, r := range m.Additionals {
		if opt, ok := r.Body.(*dnsmessage.OPTResource); ok {
			rcode = r.Header.ExtendedRCode(rcode)
			for _, o := range opt.Options {
				ede += fmt.Sprintf(" ede %d %q", binary.BigEndian.Uint16(o.Data), o.Data[2:])
			}
		}
	}
	out := strings.TrimPrefix(rcode.String(), "RCode")
	for _, q := range m.Questions {
		out += " " + q.Name.String()
	}
	for _, r := range m.Answers {
		switch body := r.Body.(type) {
		case *dnsmessage.AResource:
			out += fmt.Sprintf(" %v ttl %d", body.A, r.Header.TTL)
		case *dnsmessage.PTRResource:
			out += fmt.Sprintf(" %v ttl %d", body.PTR, r.Header.TTL)
		default:
			t.Errorf("answer %v", r)
		}
	}
	for _, r := range m.Authorities {
		out += fmt.Sprintf(" soa %d", r.Body.(*dnsmessage.SOAResource).MinTTL)
	}
	if m.Truncated {
		out += " tc"
	}
	if !m.Response || m.ID != 4711 {
		out += " not an answer"
	}
	return out + ede
}

func TestDNSAnswers(t *testing.T) {
	const in = dnsmessage.ClassINET
	for _, test := range []struct {
		name   string
		qname  string
		qtype  dnsmessage.Type
		class  dnsmessage.Class
		size   int
		change func(*dnsmessage.Message)
		want   string
	}{
		{"allowed", "good.test.", dnsmessage.TypeA, in, 0, nil, "Success good.test. [127 64 0 1] ttl 60"},
		{"the case is echoed", "GooD.tEst.", dnsmessage.TypeA, in, 0, nil, "Success GooD.tEst. [127 64 0 1] ttl 60"},
		{"allowed on another port only", "raw.test.", dnsmessage.TypeA, in, 0, nil, "Success raw.test. [127 64 0 1] ttl 60"},
		{"AAAA of an allowed name", "good.test.", dnsmessage.TypeAAAA, in, 0, nil, "Success good.test. soa 5"},
		{"HTTPS of an allowed name", "good.test.", dnsmessage.TypeHTTPS, in, 0, nil, "Success good.test. soa 5"},
		{"TXT of an allowed name", "good.test.", dnsmessage.TypeTXT, in, 1232, nil, `Success good.test. soa 5 ede 15 "only addresses are resolved, not TXT"`},
		{"denied", "evil.test.", dnsmessage.TypeA, in, 0, nil, "NameError evil.test. soa 5"},
		{"denied, with EDNS", "evil.test.", dnsmessage.TypeA, in, 1232, nil, `NameError evil.test. soa 5 ede 15 "no rule allows it"`},
		{"denied by a rule", "secret.example.org.", dnsmessage.TypeAAAA, in, 1232, nil, `NameError secret.example.org. soa 5 ede 15 "a rule denies it: deny secret.example.org (line 7)"`},
		{"below a wildcard", "a.b.example.org.", dnsmessage.TypeA, in, 0, nil, "Success a.b.example.org. [127 64 0 1] ttl 60"},
		{"the apex of a wildcard", "example.org.", dnsmessage.TypeA, in, 0, nil, "NameError example.org. soa 5"},
		{"a single label", "api.", dnsmessage.TypeA, in, 0, nil, "NameError api. soa 5"},
		{"a single label with a rule", "db.", dnsmessage.TypeA, in, 0, nil, "Success db. [127 64 0 1] ttl 60"},
		{"a search suffix", "good.test.ns.svc.cluster.local.", dnsmessage.TypeA, in, 0, nil, "NameError good.test.ns.svc.cluster.local. soa 5"},
		{"localhost", "LocalHost.", dnsmessage.TypeA, in, 0, nil, "Success LocalHost. [127 0 0 1] ttl 60"},
		{"AAAA of localhost", "localhost.", dnsmessage.TypeAAAA, in, 0, nil, "Success localhost. soa 5"},
		{"below localhost", "x.localhost.", dnsmessage.TypeA, in, 0, nil, "Success x.localhost. [127 0 0 1] ttl 60"},
		{"its own name", "cofferdam.", dnsmessage.TypeA, in, 0, nil, "Success cofferdam. [127 0 0 1] ttl 60"},
		{"a name with localhost as search suffix", "evil.test.localhost.", dnsmessage.TypeA, in, 0, nil, "NameError evil.test.localhost. soa 5"},
		{"beside localhost", "xlocalhost.", dnsmessage.TypeA, in, 0, nil, "NameError xlocalhost. soa 5"},
		{"not a host name", "a b.good.test.", dnsmessage.TypeA, in, 0, nil, "NameError a b.good.test. soa 5"},
		{"an address as a name", "127.0.0.1.", dnsmessage.TypeA, in, 0, nil, "NameError 127.0.0.1. soa 5"},
		{"reverse", "1.0.64.127.in-addr.arpa.", dnsmessage.TypePTR, in, 0, nil, "NameError 1.0.64.127.in-addr.arpa. soa 5"},
		{"reverse of another address", "8.8.8.8.in-addr.arpa.", dnsmessage.TypePTR, in, 1232, nil, `NameError 8.8.8.8.in-addr.arpa. soa 5 ede 15 "no rule allows it"`},
		{"reverse of IPv6", strings.Repeat("0.", 32) + "ip6.arpa.", dnsmessage.TypePTR, in, 0, nil, "NameError " + strings.Repeat("0.", 32) + "ip6.arpa. soa 5"},
		{"multicast DNS", "printer.local.", dnsmessage.TypeA, in, 0, nil, "NameError printer.local. soa 5"},
		{"onion", "abc.onion.", dnsmessage.TypeA, in, 0, nil, "NameError abc.onion. soa 5"},
		{"invalid", "x.invalid.", dnsmessage.TypeA, in, 0, nil, "NameError x.invalid. soa 5"},
		{"home", "router.home.arpa.", dnsmessage.TypeA, in, 0, nil, "NameError router.home.arpa. soa 5"},
		{"internal", "metadata.google.internal.", dnsmessage.TypeA, in, 0, nil, "NameError metadata.google.internal. soa 5"},
		{"an unknown TLD", "x.nosuchtld.", dnsmessage.TypeA, in, 0, nil, "NameError x.nosuchtld. soa 5"},
		{"a canary for DNS over HTTPS", "use-application-dns.net.", dnsmessage.TypeA, in, 0, nil, "NameError use-application-dns.net. soa 5"},
		{"NAT64 discovery", "ipv4only.arpa.", dnsmessage.TypeAAAA, in, 0, nil, "NameError ipv4only.arpa. soa 5"},
		{"an allowed name with a wildcard as search suffix", "good.test.example.org.", dnsmessage.TypeA, in, 1232, nil, `NameError good.test.example.org. soa 5 ede 15 "it looks like good.test with a search suffix: allow *.example.org:443 tls (line 5)"`},
		{"SVCB of an allowed name", "good.test.", dnsmessage.TypeSVCB, in, 0, nil, "Success good.test. soa 5"},
		{"MX of an allowed name", "good.test.", dnsmessage.TypeMX, in, 0, nil, "Success good.test. soa 5"},
		{"SRV below an allowed name", "_x._tcp.good.test.", dnsmessage.TypeSRV, in, 0, nil, "NameError _x._tcp.good.test. soa 5"},
		{"SOA of an allowed name", "good.test.", dnsmessage.TypeSOA, in, 0, nil, "Success good.test. soa 5"},
		{"NS of an allowed name", "good.test.", dnsmessage.TypeNS, in, 0, nil, "Success good.test. soa 5"},
		{"NULL of an allowed name", "good.test.", 10, in, 0, nil, "Success good.test. soa 5"},
		{"a type that nobody knows", "good.test.", 65400, in, 0, nil, "Success good.test. soa 5"},
		{"NUL in a label", "good.test\x00.example.org.", dnsmessage.TypeA, in, 0, nil, "NameError good.test\x00.example.org. soa 5"},
		{"123 labels", strings.Repeat("a.", 121) + "example.org.", dnsmessage.TypeA, in, 0, nil, "Success " + strings.Repeat("a.", 121) + "example.org. [127 64 0 1] ttl 60"},
		{"an option that nobody knows", "good.test.", dnsmessage.TypeA, in, 1232, func(m *dnsmessage.Message) {
			m.Additionals[0].Body = &dnsmessage.OPTResource{Options: []dnsmessage.Option{{Code: 10, Data: []byte("cookie12")}}}
		}, "Success good.test. [127 64 0 1] ttl 60"},
		{"a small buffer", "good.test.", dnsmessage.TypeA, in, 1, nil, "Success good.test. [127 64 0 1] ttl 60"},
		{"the root", ".", dnsmessage.TypeNS, in, 0, nil, "NameError . soa 5"},
		{"ANY", "good.test.", dnsmessage.TypeALL, in, 0, nil, "Refused good.test."},
		{"AXFR", "good.test.", dnsmessage.TypeAXFR, in, 0, nil, "Refused good.test."},
		{"CHAOS", "version.bind.", dnsmessage.TypeTXT, dnsmessage.ClassCHAOS, 0, nil, "Refused version.bind."},
		{"any class", "good.test.", dnsmessage.TypeA, dnsmessage.ClassANY, 0, nil, "Refused good.test."},
		{"an answer", "good.test.", dnsmessage.TypeA, in, 0, func(m *dnsmessage.Message) { m.Response = true }, "silence"},
		{"a notify", "good.test.", dnsmessage.TypeSOA, in, 0, func(m *dnsmessage.Message) { m.OpCode = 4 }, "NotImplemented good.test."},
		{"no question", "good.test.", dnsmessage.TypeA, in, 0, func(m *dnsmessage.Message) { m.Questions = nil }, "FormatError"},
		{"two questions", "good.test.", dnsmessage.TypeA, in, 0, func(m *dnsmessage.Message) { m.Questions = append(m.Questions, m.Questions[0]) }, "FormatError good.test."},
		{"two OPT records", "good.test.", dnsmessage.TypeA, in, 512, func(m *dnsmessage.Message) { m.Additionals = append(m.Additionals, m.Additionals[0]) }, "FormatError good.test."},
		{"a later EDNS", "good.test.", dnsmessage.TypeA, in, 512, func(m *dnsmessage.Message) { m.Additionals[0].Header.TTL = 1 << 16 }, "16 good.test."},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLab(t, dnsPolicy)
			message := buildQuery(t, test.qname, test.qtype, test.class, test.size, test.change)
			got := describe(t, l.server.answer(message, maxUDP))
			if got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

// TestDNSMalformed: what no library makes.
func TestDNSMalformed(t *testing.T) {
	good := buildQuery(t, "good.test.", dnsmessage.TypeA, dnsmessage.ClassINET, 0, nil)
	head := func(questions, additionals byte) []byte {
		return []byte{4711 >> 8, 4711 & 0xff, 1, 0, 0, questions, 0, 0, 0, 0, 0, additionals}
	}
	for _, test := range []struct {
		name    string
		message []byte
		want    string
	}{
		{"nothing", nil, "silence"},
		{"half a header", good[:11], "silence"},
		{"a header alone", head(1, 0), "FormatError"},
		{"cut in the question", good[:len(good)-1], "FormatError"},
		{"a name that points at itself", append(head(1, 0), 0xc0, 12, 0, 1, 0, 1), "FormatError"},
		{"two that point at each other", append(head(1, 0), 0xc0, 14, 0xc0, 12, 0, 1, 0, 1), "FormatError"},
		{"one that points behind the message", append(head(1, 0), 0xff, 0xff, 0, 1, 0, 1), "FormatError"},
		{"a label of a reserved type", append(head(1, 0), 0x80, 1, 0, 0, 1, 0, 1), "FormatError"},
		{"a dot in a label", append(head(1, 0), 9, 'g', 'o', 'o', 'd', '.', 't', 'e', 's', 't', 0, 0, 1, 0, 1), "FormatError"},
		{"a name over 255 bytes", append(append(head(1, 0), bytes.Repeat([]byte{3, 'a', 'a', 'a'}, 64)...), 0, 0, 1, 0, 1), "FormatError"},
		{"more records than there are", append(head(1, 200), good[12:]...), "FormatError good.test."},
		{"65535 questions", append([]byte{4711 >> 8, 4711 & 0xff, 1, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0}, good[12:]...), "FormatError good.test."},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLab(t, dnsPolicy)
			if got := describe(t, l.server.answer(test.message, maxUDP)); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			if got := describe(t, l.server.answer(good, maxUDP)); got != "Success good.test. [127 64 0 1] ttl 60" {
				t.Errorf("afterwards: %s", got)
			}
			if got := l.records(); len(got) != 2 || !strings.HasPrefix(got[0], "decision deny dns") {
				t.Errorf("records %q", got)
			}
		})
	}
}

// TestDNSReverse: an address of the pool has the name that it stands for.
func TestDNSReverse(t *testing.T) {
	l := newLab(t, dnsPolicy)
	address := l.synthetic("good.test")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if got, err := l.resolver().LookupAddr(ctx, address); err != nil || len(got) != 1 || got[0] != "good.test." {
		t.Errorf("%s is %v, %v", address, got, err)
	}
	_, err := l.resolver().LookupAddr(ctx, "127.64.0.2")
	if e, ok := errors.AsType[*net.DNSError](err); !ok || !e.IsNotFound {
		t.Errorf("an address that stands for nothing: %v", err)
	}
}

// TestDNSTruncation: an answer with a long name and a long reason does not fit
// into 512 bytes of UDP. The client asks again over TCP, where it does.
func TestDNSTruncation(t *testing.T) {
	label := strings.Repeat("a", 61) + "."
	name := strings.Repeat(label, 3) + "example.org."
	l := newLab(t, "version: 1\nnetwork: {rules: [{allow: good.test}, {deny: \""+name+"\"}]}\n")
	message := buildQuery(t, name, dnsmessage.TypeA, dnsmessage.ClassINET, minUDP, nil)
	if got, want := describe(t, l.server.answer(message, maxUDP)), "NameError "+name+" tc"; got != want {
		t.Errorf("UDP: got  %s\nwant %s", got, want)
	}
	if got, want := describe(t, l.server.answer(message, 0xffff)), "NameError "+name+" soa 5 ede 15"; !strings.HasPrefix(got, want) {
		t.Errorf("TCP: got  %s\nwant %s", got, want)
	}
}

// TestDNSRecordsOnce: a name is recorded once, whatever the number of queries
// and addresses' types; other types of records count as one more.
func TestDNSRecordsOnce(t *testing.T) {
	l := newLab(t, dnsPolicy)
	for range 10 {
		for _, qtype := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA, dnsmessage.TypeHTTPS, dnsmessage.TypeTXT, dnsmessage.TypeMX} {
			l.server.answer(buildQuery(t, "good.test.", qtype, dnsmessage.ClassINET, 0, nil), maxUDP)
			l.server.answer(buildQuery(t, "EVIL.test.", qtype, dnsmessage.ClassINET, 0, nil), maxUDP)
		}
	}
	checkRecords(t, l.records(), []string{
		"decision allow dns good.test: a rule allows it",
		"decision deny dns evil.test: no rule allows it",
		"decision deny dns good.test: only addresses are resolved, not TXT",
		"decision deny dns evil.test: no rule allows it",
	})
}

// TestDNSFlood: 20 000 names do not fill the log, each is counted, what is
// remembered is bounded, and the rest still works.
func TestDNSFlood(t *testing.T) {
	const names = maxNotes + 4000
	l := newLab(t, dnsPolicy, withChange(func(s *Server) { // in no time
		s.denials.now = (&clock{now: time.Unix(1, 0)}).Now
	}))
	for i := range names {
		l.server.answer(buildQuery(t, fmt.Sprintf("x%d.evil.test.", i), dnsmessage.TypeA, dnsmessage.ClassINET, 0, nil), maxUDP)
	}
	if got := l.synthetic("good.test"); got != "127.64.0.1" {
		t.Errorf("good.test is %s", got)
	}
	if n := len(l.server.lookups.denied); n != maxNotes {
		t.Errorf("%d denials are remembered", n)
	}
	l.stop()
	denied, records := int64(0), 0
	for _, r := range readRecords(t, l.log) {
		if r.Verdict == "deny" {
			denied += max(r.Count, 1)
			records++
		}
	}
	if denied != names || records != maxSingles+maxKinds+1 {
		t.Errorf("%d denials in %d records", denied, records)
	}
}

func TestDNSOverUDPAndTCP(t *testing.T) {
	l := newLab(t, dnsPolicy)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	// UDP: Go's resolver accepts only answers from where it asked. A query to
	// another address of the same listener is answered from there.
	elsewhere := strings.Replace(l.dns, "127.0.0.1", "127.8.8.8", 1)
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		dialer := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}}
		return dialer.DialContext(ctx, network, elsewhere)
	}}
	if got, err := resolver.LookupHost(ctx, "good.test."); err != nil || len(got) != 1 || got[0] != "127.64.0.1" {
		t.Errorf("UDP: %v, %v", got, err)
	}
	_, err := resolver.LookupHost(ctx, "evil.test.")
	if e, ok := errors.AsType[*net.DNSError](err); !ok || !e.IsNotFound {
		t.Errorf("UDP, denied: %v", err)
	}
	// TCP: two queries on one connection.
	agent := streamTo(t, l.server)
	for range 2 {
		message := buildQuery(t, "good.test.", dnsmessage.TypeA, dnsmessage.ClassINET, 0, nil)
		agent.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...))
		head := make([]byte, 2)
		if _, err := io.ReadFull(agent, head); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, binary.BigEndian.Uint16(head))
		if _, err := io.ReadFull(agent, answer); err != nil {
			t.Fatal(err)
		}
		if got := describe(t, answer); got != "Success good.test. [127 64 0 1] ttl 60" {
			t.Errorf("TCP: %s", got)
		}
	}
	// Three more in one segment, and the half of a fourth: answered in their order.
	var all []byte
	for id := range uint16(4) {
		message := buildQuery(t, "good.test.", dnsmessage.TypeA, dnsmessage.ClassINET, 0, func(m *dnsmessage.Message) { m.ID = id })
		all = append(binary.BigEndian.AppendUint16(all, uint16(len(message))), message...)
	}
	half := len(all) - 20
	agent.Write(all[:half])
	for id := range uint16(4) {
		if id == 3 {
			agent.Write(all[half:])
		}
		head := make([]byte, 4)
		if _, err := io.ReadFull(agent, head); err != nil {
			t.Fatal(err)
		}
		if got := binary.BigEndian.Uint16(head[2:]); got != id {
			t.Errorf("answer %d has ID %d", id, got)
		}
		io.CopyN(io.Discard, agent, int64(binary.BigEndian.Uint16(head))-2)
	}
	agent.Write([]byte{0, 1, 0}) // shorter than a header
	if !ended(t, agent) {
		t.Error("a broken query is answered")
	}
}

// TestDNSOversized: what is far too long is told so, over TCP without reading it
// to its end.
func TestDNSOversized(t *testing.T) {
	l := newLab(t, dnsPolicy)
	message := append(buildQuery(t, "good.test.", dnsmessage.TypeA, dnsmessage.ClassINET, 0, nil), make([]byte, maxQuery)...)
	udp, err := net.Dial("udp4", l.dns)
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	udp.SetDeadline(time.Now().Add(patience))
	udp.Write(message)
	buf := make([]byte, maxQuery)
	n, err := udp.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	if got := describe(t, buf[:n]); got != "FormatError good.test." {
		t.Errorf("UDP: %s", got)
	}
	agent := streamTo(t, l.server)
	agent.Write(append([]byte{0xff, 0xff}, message...)) // and no more
	if _, err := io.ReadFull(agent, buf[:2]); err != nil {
		t.Fatal(err)
	}
	answer := buf[2 : 2+binary.BigEndian.Uint16(buf)]
	if _, err := io.ReadFull(agent, answer); err != nil {
		t.Fatal(err)
	}
	if got := describe(t, answer); got != "FormatError good.test." {
		t.Errorf("TCP: %s", got)
	}
	if !ended(t, agent) {
		t.Error("the stream goes on")
	}
	checkRecords(t, l.records(), []string{"decision deny dns: a DNS query of more than 4096 bytes"})
}

// TestDNSSearch: a resolver with a search list gets to the name that was meant,
// whatever it asks for first.
func TestDNSSearch(t *testing.T) {
	l := newLab(t, dnsPolicy)
	for _, name := range []string{"good.test", "a.example.org"} {
		for _, suffix := range []string{"ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "lan", "example.org", "corp.example.org"} {
			for _, qtype := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA} {
				message := buildQuery(t, name+"."+suffix+".", qtype, dnsmessage.ClassINET, 0, nil)
				if got := describe(t, l.server.answer(message, maxUDP)); !strings.HasPrefix(got, "NameError") {
					t.Errorf("%s: %s", name+"."+suffix, got)
				}
			}
		}
		l.synthetic(name)
	}
}

func streamTo(t *testing.T, s *Server) net.Conn {
	t.Helper()
	listener, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	agent, err := net.Dial("tcp4", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { agent.Close() })
	agent.SetDeadline(time.Now().Add(patience))
	tcp, err := listener.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	t.Cleanup(done.Wait)
	t.Cleanup(func() { agent.Close() })
	done.Go(func() {
		defer tcp.Close()
		(&conn{s: s, tcp: tcp}).serveDNSStream(t.Context())
	})
	return agent
}

// authority is a DNS server of the internet, on loopback: it answers A and AAAA
// with what the function says, by UDP and TCP.
type authority struct {
	mu     sync.Mutex // guards asked and change
	asked  []string
	change func(m *dnsmessage.Message, tcp bool) bool // of each answer, if not nil; false: there is none
	addr   netip.AddrPort
}

func newAuthority(t *testing.T, answer func(name string) []netip.Addr) *authority {
	t.Helper()
	listener, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(listener.Addr().(*net.TCPAddr).AddrPort()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	a := &authority{addr: conn.LocalAddr().(*net.UDPAddr).AddrPort()}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if b := a.reply(buf[:n], answer, false); b != nil {
				conn.WriteToUDPAddrPort(b, from)
			}
		}
	}()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			var size [2]byte
			io.ReadFull(conn, size[:])
			query := make([]byte, binary.BigEndian.Uint16(size[:]))
			io.ReadFull(conn, query)
			if b := a.reply(query, answer, true); b != nil {
				conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
			}
			conn.Close()
		}
	}()
	return a
}

func (a *authority) reply(query []byte, answer func(name string) []netip.Addr, tcp bool) []byte {
	var m dnsmessage.Message
	if m.Unpack(query) != nil || len(m.Questions) != 1 {
		return nil
	}
	name := m.Questions[0].Name
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, name.String())
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	for _, addr := range answer(name.String()) {
		h := dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET}
		switch {
		case addr.Is4() && m.Questions[0].Type == dnsmessage.TypeA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: addr.As4()}})
		case addr.Is6() && m.Questions[0].Type == dnsmessage.TypeAAAA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: addr.As16()}})
		}
	}
	if a.change != nil && !a.change(&m, tcp) {
		return nil
	}
	b, err := m.Pack()
	if err != nil {
		return nil
	}
	return b
}

func (a *authority) setChange(change func(*dnsmessage.Message, bool) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.change = change
}

func (a *authority) names() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked
}

func withResolver(a *authority) labOption {
	return func(cfg *Config, _ *lab) { cfg.Resolver = []netip.AddrPort{a.addr} }
}

// TestNothingIsResolvedBeforeADecision is invariant I3.
func TestNothingIsResolvedBeforeADecision(t *testing.T) {
	sink := newAuthority(t, func(string) []netip.Addr { return nil })
	l := newLab(t, strings.ReplaceAll(dnsPolicy, "allow: good.test", "{allow: good.test, ports: [PORT]}"), withResolver(sink))
	good := l.synthetic("good.test")
	raw := l.synthetic("raw.test")
	l.synthetic("tunnel-abcdef.example.org")
	for _, name := range []string{"evil.test", "secret.example.org", "data.evil.test"} {
		l.server.answer(buildQuery(t, name+".", dnsmessage.TypeA, dnsmessage.ClassINET, 0, nil), maxUDP)
		l.askTLS(literal, name, nil)
		l.askTLS(good, name, nil)
		exchange(t, l.dial(literal), "GET / HTTP/1.1\r\nHost: "+name+"\r\n\r\n", 1)
	}
	if asked := sink.names(); len(asked) != 0 {
		t.Fatalf("the resolver was asked for %q", asked)
	}
	// The control: what is allowed is resolved, and under its own name only.
	l.askTLS(good, "good.test", nil)
	l.refused(raw)
	for _, name := range sink.names() {
		if name != "good.test." && name != "raw.test." {
			t.Errorf("the resolver was asked for %s", name)
		}
	}
	if len(sink.names()) != 4 {
		t.Errorf("the resolver was asked for %q, want A and AAAA of two names", sink.names())
	}
}

// TestRebinding: a name that resolves to an address within is not dialled (D11).
func TestRebinding(t *testing.T) {
	for _, addr := range []string{
		"127.0.0.1", "169.254.169.254", "10.0.0.1", "172.16.3.4", "192.168.1.1", "100.100.100.200", "0.0.0.0", "224.0.0.1",
		"::1", "fe80::1", "fd00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::",
	} {
		t.Run(addr, func(t *testing.T) {
			a := netip.MustParseAddr(addr)
			sink := newAuthority(t, func(string) []netip.Addr { return []netip.Addr{a} })
			l := newLab(t, "version: 1\nnetwork: {rules: [{allow: good.test, ports: [PORT]}]}\n", withResolver(sink))
			l.upstream(func(*net.TCPConn) { t.Error("an address within was reached") })
			if got, err := l.askTLS(l.synthetic("good.test"), "good.test", nil); err == nil {
				t.Errorf("got %q", got)
			}
			got := l.records()
			if len(got) != 2 || !strings.HasPrefix(got[1], "decision deny tls good.test: address "+a.Unmap().String()+" is ") {
				t.Errorf("records %q", got)
			}
		})
	}
}

// TestTargets: only the global addresses of a name are dialled, and what a
// socket is about to connect to is decided again.
func TestTargets(t *testing.T) {
	answers := []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("93.184.216.34"), netip.MustParseAddr("127.0.0.1")}
	sink := newAuthority(t, func(string) []netip.Addr { return answers })
	l := newLab(t, "version: 1\nnetwork: {rules: [{allow: good.test}]}\n", withResolver(sink))
	name, _ := policy.ParseName("good.test")
	q := question{Request: policy.Request{Protocol: policy.TLS, Name: name, Port: 443}}
	d, targets, err := l.server.authorize(t.Context(), q)
	want := []netip.AddrPort{netip.MustParseAddrPort("93.184.216.34:443")}
	if diff := cmp.Diff(want, targets, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" || d.Verdict != policy.Allow || err != nil {
		t.Errorf("%v, %v: %s", d, err, diff)
	}
	for address, ok := range map[string]bool{
		"93.184.216.34:443": true, "93.184.216.34:80": false, "10.0.0.1:443": false, "[::ffff:127.0.0.1]:443": false, "x": false,
	} {
		if err := l.server.check(q, address); (err == nil) != ok {
			t.Errorf("check(%s) = %v", address, err)
		}
	}

	silent := newAuthority(t, func(string) []netip.Addr { return nil })
	l.server.servers, _ = newResolvers([]netip.AddrPort{silent.addr})
	if d, targets, err := l.server.authorize(t.Context(), q); d.Verdict != policy.Allow || len(targets) != 0 || err == nil {
		t.Errorf("no address: %v, %v, %v", d, targets, err)
	}
}

// TestOwnAddress: an address of this host is found without knowing its list.
func TestOwnAddress(t *testing.T) {
	if !isOwn(netip.MustParseAddr("127.0.0.1")) {
		t.Error("127.0.0.1 is not this host's")
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, _ := netip.AddrFromSlice(n.IP); !isOwn(ip.Unmap()) && !ip.IsLinkLocalUnicast() {
				t.Errorf("%s is not this host's", ip)
			}
		}
	}
	if isOwn(netip.MustParseAddr("93.184.216.34")) {
		t.Error("93.184.216.34 is this host's")
	}
}

func FuzzAnswer(f *testing.F) {
	for _, name := range []string{"good.test.", "evil.test.", ".", "localhost."} {
		f.Add(buildQuery(f, name, dnsmessage.TypeA, dnsmessage.ClassINET, 0, nil), true)
		f.Add(buildQuery(f, name, dnsmessage.TypeTXT, dnsmessage.ClassINET, 1232, nil), false)
	}
	f.Add([]byte{0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1}, true) // a name that points at itself
	f.Add([]byte{}, true)
	f.Add([]byte{0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 14, 0xc0, 12, 0, 1, 0, 1}, true)
	f.Add([]byte("\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x09good.test\x00\x00\x01\x00\x01"), true)
	f.Add(append([]byte{0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}, bytes.Repeat([]byte{1, 'a'}, 200)...), false)
	f.Add(buildQuery(f, "1.0.64.127.in-addr.arpa.", dnsmessage.TypePTR, dnsmessage.ClassINET, 512, nil), true)
	f.Add(buildQuery(f, "good.test.example.org.", dnsmessage.TypeSVCB, dnsmessage.ClassINET, 65535, func(m *dnsmessage.Message) {
		m.Additionals[0].Body = &dnsmessage.OPTResource{Options: []dnsmessage.Option{{Code: 10, Data: make([]byte, 40)}, {Code: 12, Data: make([]byte, 400)}}}
	}), true)
	p, err := policy.Parse("fuzz", []byte("version: 1\nnetwork: {rules: [{allow: good.test}, {allow: \"*.example.org\"}]}\n"))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, message []byte, udp bool) {
		s := &Server{cfg: Config{Policy: p, Records: newRecords(t, t.TempDir()+"/log", record.Limits{})}}
		s.policy.Store(p)
		s.denials = newDenials(s.cfg.Records, time.Now)
		var err error
		if s.names, err = openNames(openFile(t, t.TempDir()+"/names", 2), testPool); err != nil {
			t.Fatal(err)
		}
		limit := 0xffff
		if udp {
			limit = maxUDP
		}
		answer := s.answer(message, limit)
		if answer == nil {
			return
		}
		var m dnsmessage.Message
		if err := m.Unpack(answer); err != nil {
			t.Fatalf("answer to %x is %x: %v", message, answer, err)
		}
		if !m.Response || m.ID != binary.BigEndian.Uint16(message) || len(answer) > limit || len(m.Questions) > 1 {
			t.Fatalf("answer to %x is %+v", message, m)
		}
		// Only a name that the policy allows, or localhost, has an address.
		for _, r := range m.Answers {
			if r.Header.Type != dnsmessage.TypeA {
				t.Fatalf("answer %v before an address was given out", r)
			}
			name, err := policy.ParseWireName(strings.TrimSuffix(r.Header.Name.String(), "."))
			if err != nil {
				t.Fatalf("an address for %v", r.Header.Name)
			}
			if d := p.Decide(policy.Request{Protocol: policy.DNS, Name: name}); d.Verdict != policy.Allow && !isLocalhost(name) {
				t.Fatalf("an address for %s: %s", name, d.Reason)
			}
		}
	})
}

// TestLookupIsRecordedLater: an allowed name whose record the log could not take
// is recorded with the next query.
func TestLookupIsRecordedLater(t *testing.T) {
	ours, theirs := net.Pipe()
	var lines []string // of the log; written before they are acknowledged
	failing := make(chan bool, 1)
	failing <- true
	go func() { // ends with the writer
		in := bufio.NewReader(theirs)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			fails := <-failing
			if failing <- fails; fails {
				io.WriteString(theirs, "e")
				continue
			}
			lines = append(lines, line)
			io.WriteString(theirs, "k")
		}
	}()
	w := record.NewWriter(ours, "box-1", "test")
	defer w.Close()
	p, err := policy.Parse("test", []byte("version: 1\nnetwork: {rules: [{allow: good.test}]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{cfg: Config{Policy: p, Records: w}}
	s.policy.Store(p)
	s.denials = newDenials(w, time.Now)
	if s.names, err = openNames(openFile(t, t.TempDir()+"/names", os.O_RDWR|os.O_APPEND), testPool); err != nil {
		t.Fatal(err)
	}
	ask := func() {
		s.answer(buildQuery(t, "good.test.", dnsmessage.TypeA, dnsmessage.ClassINET, 0, nil), maxUDP)
	}
	ask()
	<-failing
	failing <- false
	if err := w.Write(record.Record{Kind: record.Proxy, Reason: "well again"}); err != nil {
		t.Fatal(err)
	}
	ask()
	ask()
	if len(lines) != 2 || !strings.Contains(lines[1], "good.test") {
		t.Errorf("the log holds %q", lines)
	}
}
