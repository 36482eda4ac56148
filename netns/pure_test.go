package netns

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite testdata")

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got); -update rewrites it:\n%s", file, diff)
	}
}

func TestRulesAsText(t *testing.T) { golden(t, "testdata/gate.nft", Rules().String()) }

func TestSysctlsAsText(t *testing.T) {
	golden(t, "testdata/gate.sysctl", GateSysctls().String())
	golden(t, "testdata/box.sysctl", BoxSysctls().String())
}

func TestSysctlKeysAreUnique(t *testing.T) {
	for name, list := range map[string]Sysctls{"gate": GateSysctls(), "box": BoxSysctls()} {
		seen := map[string]bool{}
		for _, c := range list {
			if seen[c.Key] {
				t.Errorf("%s: %s is set twice", name, c.Key)
			}
			seen[c.Key] = true
		}
	}
}

// A rule can only count with a counter that exists.
func TestRulesDeclareTheirCounters(t *testing.T) {
	r := Rules()
	used := map[string]bool{}
	for _, c := range r.Chains {
		for _, rule := range c.Rules {
			if rule.Counter != "" {
				used[rule.Counter] = true
			}
		}
	}
	for _, name := range r.Counters {
		if !used[name] {
			t.Errorf("counter %q is unused", name)
		}
		delete(used, name)
	}
	for name := range used {
		t.Errorf("counter %q is undeclared", name)
	}
}

func TestCheckID(t *testing.T) {
	for _, id := range []string{
		"a", "7", "web-1", "default:web-1", "k8s.io:0f3a_b.c", strings.Repeat("x", 160),
	} {
		if err := CheckID(id); err != nil {
			t.Errorf("CheckID(%q) = %v, want none", id, err)
		}
	}
	for _, id := range []string{
		"", ".", "..", ".hidden", "-rf", "_a", ":a", "a/b", "../a", "a b", "a\x00", "a\n", "é", "a*", strings.Repeat("x", 161),
	} {
		if CheckID(id) == nil {
			t.Errorf("CheckID(%q) passes, want an error", id)
		}
	}
}

func TestCheckLinks(t *testing.T) {
	lo := link{name: "lo", kind: "device", index: 1, peerNS: -1, up: true}
	eth0 := link{name: "eth0", kind: "veth", index: 2, peer: 3, peerNS: 0, up: true}
	gate := link{name: "gate", kind: "veth", index: 3, peer: 2, peerNS: 5, up: true}
	with := func(l link, change func(*link)) link { change(&l); return l }
	tunl0 := link{name: "tunl0", kind: "ipip", index: 4, peerNS: -1}

	for _, row := range []struct {
		name      string
		box, gate []link
		ns        int
		want      string // "": no error
	}{
		{"the two ends", []link{lo, eth0}, []link{lo, gate}, 5, ""},
		{"idle fallback tunnels", []link{lo, tunl0, eth0}, []link{lo, tunl0, gate}, 5, ""},
		{"nothing", nil, nil, 5, `box has no interface "eth0"`},
		{"no veth yet", []link{lo}, []link{lo}, -1, `box has no interface "eth0"`},
		{"no end in gate", []link{lo, eth0}, []link{lo}, 5, `gate has no interface "gate"`},
		{
			"a stranger in box",
			[]link{lo, eth0, {name: "eth1", kind: "veth", index: 4}},
			[]link{lo, gate},
			5,
			`box has an extra interface "eth1"`,
		},
		{
			"a stranger in gate",
			[]link{lo, eth0},
			[]link{lo, gate, {name: "wan", kind: "macvlan", index: 4}},
			5,
			`gate has an extra interface "wan"`,
		},
		{
			"a renamed end",
			[]link{lo, with(eth0, func(l *link) { l.name = "net0" })},
			[]link{lo, gate},
			5,
			`box has an extra interface "net0"`,
		},
		{
			"eth0 of another kind",
			[]link{lo, with(eth0, func(l *link) { l.kind = "macvlan" })},
			[]link{lo, gate},
			5,
			`box interface "eth0" is no veth but of kind "macvlan"`,
		},
		{
			"eth0 of another pair",
			[]link{lo, with(eth0, func(l *link) { l.index = 9 })},
			[]link{lo, gate},
			5,
			`box interface "eth0" is not the other end of "gate"`,
		},
		{
			"the other end elsewhere",
			[]link{lo, eth0},
			[]link{lo, with(gate, func(l *link) { l.peerNS = 6 })},
			5,
			`box interface "eth0" is not the other end of "gate"`,
		},
		{
			"box has no ID in gate",
			[]link{lo, eth0},
			[]link{lo, with(gate, func(l *link) { l.peerNS = -1 })},
			-1,
			`box interface "eth0" is not the other end of "gate"`,
		},
		{
			"a tunnel that is up",
			[]link{lo, eth0, with(tunl0, func(l *link) { l.up = true })},
			[]link{lo, gate},
			5,
			`box has an extra interface "tunl0"`,
		},
		{
			"a tunnel of another namespace",
			[]link{lo, eth0, with(tunl0, func(l *link) { l.peerNS = 0 })},
			[]link{lo, gate},
			5,
			`box has an extra interface "tunl0"`,
		},
		{
			"a veth called as a tunnel",
			[]link{lo, eth0, with(tunl0, func(l *link) { l.kind = "veth" })},
			[]link{lo, gate},
			5,
			`box has an extra interface "tunl0"`,
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := ""
			if err := checkLinks(row.box, row.gate, row.ns); err != nil {
				got = err.Error()
			}
			if got != row.want {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
}
