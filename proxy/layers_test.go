package proxy

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"cofferdam.dev/cofferdam/proxy/policy"
	"cofferdam.dev/cofferdam/proxy/record"
)

// layered is a policy of three layers. A rule has the lab's port and upstream.
func (l *lab) layered(admin, user, project string) *policy.Policy {
	l.t.Helper()
	var sources []policy.Source
	for i, rules := range []string{admin, user, project} {
		text := "version: 1\nnetwork:\n  rules:\n"
		for rule := range strings.SplitSeq(rules, "; ") {
			text += fmt.Sprintf("    - {allow: %s, protocol: tcp, ports: [%d], addresses: ['::1']}\n", rule, l.port)
		}
		sources = append(sources, policy.Source{Layer: policy.Admin - policy.Layer(i), Name: "test", Text: []byte(text)})
	}
	p, err := policy.ParseLayers(sources)
	if err != nil {
		l.t.Fatal(err)
	}
	return p
}

// TestLayers: what each layer allows is reached, and every layer's budget is
// charged; a layer that changes ends what it denies now.
func TestLayers(t *testing.T) {
	const wide = `"*.raw.test"`
	l := newLab(t, "")
	up := &sink{}
	l.upstream(func(c *net.TCPConn) {
		c.Write([]byte{'.'})
		up.serve(c)
	})
	l.server.SetPolicy(l.layered(`"*.raw.test", budget: {up: 100KiB}`, wide, `a.raw.test, budget: {up: 60KiB}; b.raw.test`))
	if addrs, err := l.resolver().LookupHost(t.Context(), "c.raw.test"); err == nil {
		t.Errorf("a name that the project does not allow is %v", addrs)
	}
	for _, name := range []string{"a.raw.test", "b.raw.test"} {
		conn := l.dial(l.synthetic(name))
		conn.Write(make([]byte, 1<<20))
		ended(t, conn)
		l.waitOpen(0)
	}
	if !l.refused(l.synthetic("b.raw.test")) {
		t.Error("the budget of the administrator is not used up")
	}

	l.server.SetPolicy(l.layered(wide, wide, `d.raw.test`))
	conn := l.dial(l.synthetic("d.raw.test"))
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal("control: ", err)
	}
	l.server.SetPolicy(l.layered(wide, wide, `a.raw.test`))
	ended(t, conn)
	l.stop()

	var closes []string
	for _, r := range readRecords(t, l.log) {
		switch {
		case r.Kind == record.Close:
			closes = append(closes, fmt.Sprintf("%s %d %s (%s)", r.Name, r.BytesUp>>10, r.Reason, r.Rule))
		case r.Verdict == "deny" && r.Name != "c.raw.test":
			closes = append(closes, fmt.Sprintf("%s denied %s (%s)", r.Name, r.Reason, r.Rule))
		}
	}
	rule := fmt.Sprintf(":%d tcp", l.port)
	want := []string{
		"a.raw.test 60 the rule's budget is used up: up 60KiB (project policy: allow a.raw.test" + rule + ")",
		"b.raw.test 40 the rule's budget is used up: up 100KiB (admin policy: allow *.raw.test" + rule + ")",
		"b.raw.test denied the rule's budget is used up: up 100KiB (admin policy: allow *.raw.test" + rule + ")",
		"d.raw.test 0 the policy has changed: project policy: no rule allows it ()",
	}
	if strings.Join(closes, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(closes, "\n"), strings.Join(want, "\n"))
	}
	if up.got != 100<<10 {
		t.Errorf("%d bytes have left", up.got)
	}
}
