package proxy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/dns/dnsmessage"

	"cofferdam.dev/cofferdam/proxy/policy"
)

func mustName(t *testing.T, s string) policy.Name {
	t.Helper()
	name, err := policy.ParseName(s)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func addrs(texts ...string) []netip.Addr {
	list := make([]netip.Addr, len(texts))
	for i, text := range texts {
		list[i] = netip.MustParseAddr(text)
	}
	return list
}

var cmpAddrs = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func answers(*dnsmessage.Message, bool) bool   { return true }
func staysMute(*dnsmessage.Message, bool) bool { return false }

func answersWith(code dnsmessage.RCode) func(*dnsmessage.Message, bool) bool {
	return func(m *dnsmessage.Message, _ bool) bool {
		m.RCode, m.Answers = code, nil
		return true
	}
}

// onlyByTCP truncates what goes by UDP.
func onlyByTCP(m *dnsmessage.Message, tcp bool) bool {
	if !tcp {
		m.Truncated, m.Answers = true, nil
	}
	return true
}

// TestResolvers: the second server is asked when the first fails or is silent,
// and not when it has an answer, be it that there is no such name.
func TestResolvers(t *testing.T) {
	for _, test := range []struct {
		name          string
		first, second func(*dnsmessage.Message, bool) bool
		want          []netip.Addr
		err           string
		asksSecond    bool
	}{
		{"the first answers", answers, answers, addrs("93.184.216.1"), "", false},
		{"the first fails", answersWith(dnsmessage.RCodeServerFailure), answers, addrs("93.184.216.2"), "", true},
		{"the first refuses", answersWith(dnsmessage.RCodeRefused), answers, addrs("93.184.216.2"), "", true},
		{"the first is silent", staysMute, answers, addrs("93.184.216.2"), "", true},
		{"by TCP what does not fit", onlyByTCP, answers, addrs("93.184.216.1"), "", false},
		{"no such name", answersWith(dnsmessage.RCodeNameError), answers, nil, "resolve: no such host", false},
		{"no such name at the second", answersWith(dnsmessage.RCodeServerFailure), answersWith(dnsmessage.RCodeNameError), nil, "resolve: no such host", true},
		{"both fail", answersWith(dnsmessage.RCodeServerFailure), answersWith(dnsmessage.RCodeServerFailure), nil, "resolve: server misbehaving", true},
		{"both are silent", staysMute, staysMute, nil, "resolve: i/o timeout", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			first := newAuthority(t, func(string) []netip.Addr { return addrs("93.184.216.1") })
			second := newAuthority(t, func(string) []netip.Addr { return addrs("93.184.216.2") })
			first.setChange(test.first)
			second.setChange(test.second)
			servers, _ := newResolvers([]netip.AddrPort{first.addr, second.addr})
			s := &Server{servers: servers, timeouts: timeouts{resolve: patience, server: patience}}
			if strings.Contains(test.name, "silent") {
				s.timeouts.server = time.Millisecond
			}
			if strings.Contains(test.err, "timeout") {
				s.timeouts.resolve = 50 * time.Millisecond
			}
			got, err := s.lookup(t.Context(), mustName(t, "good.test"))
			if diff := cmp.Diff(test.want, got, cmpAddrs); diff != "" || fmt.Sprint(err) != test.err && (err != nil || test.err != "") {
				t.Errorf("error %v, want %q; addresses (-want +got):\n%s", err, test.err, diff)
			}
			if asked := len(second.names()) > 0; asked != test.asksSecond {
				t.Errorf("the second was asked: %v", asked)
			}
			for _, name := range slices.Concat(first.names(), second.names()) {
				if name != "good.test." {
					t.Errorf("%s was asked for", name)
				}
			}
		})
	}
}

// TestManyAnswers: what a resolver may have the proxy do is bounded.
func TestManyAnswers(t *testing.T) {
	var many []netip.Addr
	for i := range 250 {
		many = append(many, netip.AddrFrom4([4]byte{93, 184, 216, byte(i)}))
	}
	sink := newAuthority(t, func(string) []netip.Addr { return many })
	sink.setChange(onlyByTCP)
	l := newLab(t, "version: 1\nnetwork: {rules: [{allow: good.test}]}\n", withResolver(sink))
	if got, err := l.server.lookup(t.Context(), mustName(t, "good.test")); len(got) != maxAnswers || err != nil {
		t.Errorf("%d addresses, %v", len(got), err)
	}
	q := question{Request: policy.Request{Protocol: policy.TLS, Name: mustName(t, "good.test"), Port: 443}}
	if _, targets, err := l.server.authorize(t.Context(), q); len(targets) != maxTargets || err != nil {
		t.Errorf("%d targets, %v", len(targets), err)
	}
}

func TestInterleave(t *testing.T) {
	for _, test := range []struct{ in, want []netip.Addr }{
		{nil, nil},
		{addrs("1.1.1.1"), addrs("1.1.1.1")},
		{addrs("1.1.1.1", "1.1.1.2"), addrs("1.1.1.1", "1.1.1.2")},
		{addrs("2a00::1", "2a00::2", "2a00::3", "1.1.1.1"), addrs("2a00::1", "1.1.1.1", "2a00::2", "2a00::3")},
		{addrs("1.1.1.1", "1.1.1.2", "2a00::1", "2a00::2", "2a00::3"), addrs("1.1.1.1", "2a00::1", "1.1.1.2", "2a00::2", "2a00::3")},
	} {
		if diff := cmp.Diff(test.want, interleave(test.in), cmpAddrs); diff != "" {
			t.Errorf("%v (-want +got):\n%s", test.in, diff)
		}
	}
}
