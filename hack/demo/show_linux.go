package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cofferdam.dev/cofferdam/integration/ctrd"
	"cofferdam.dev/cofferdam/proxy/record"
)

// show holds the demonstration, in the world, and reports whether every promise is kept.
func show(a artefacts, name, runtime string) (kept bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dir := filepath.Join(os.TempDir(), "demo") // the world's: it is empty
	if err := os.Mkdir(dir, 0o755); err != nil {
		return false, err
	}
	// The proxy, which is not root, must be able to execute from there; /tmp may be mounted noexec.
	bin := filepath.Join(dir, "bin")
	if err := copyBinaries(a.Bin, bin); err != nil {
		return false, err
	}
	d, err := ctrd.New(a.Engine, name, bin)
	if err != nil {
		return false, err
	}
	defer func() {
		_, stopErr := d.Stop()
		err = errors.Join(err, stopErr)
	}()
	if err := d.Import(a.Archive); err != nil {
		return false, err
	}
	cofferdam := filepath.Join(bin, "cofferdam")

	walled, err := newScene(ctx, runtime, "agent-1", filepath.Join(dir, "walled"))
	if err != nil {
		return false, err
	}
	defer walled.ears.close()
	intro(os.Stdout, walled)
	if err := walled.play(ctx, d, cofferdam); err != nil {
		return false, err
	}
	title(os.Stdout, "What the agent says")
	indent(os.Stdout, walled.output)

	control, err := newScene(ctx, ctrd.Stock, "agent-2", filepath.Join(dir, "control"))
	if err != nil {
		return false, err
	}
	defer control.ears.close()
	if err := control.play(ctx, d, cofferdam); err != nil {
		return false, err
	}
	kept, err = judge(os.Stdout, walled, control)
	if err != nil {
		return false, err
	}
	if runtime == ctrd.Cofferdam {
		title(os.Stdout, "cofferdam log "+walled.id)
		indent(os.Stdout, walled.log)
		title(os.Stdout, "cofferdam inspect "+walled.id+", while it ran; in part")
		indent(os.Stdout, short(walled.inspect))
	}
	fmt.Println()
	if kept {
		fmt.Println("Every promise is kept.")
	} else {
		fmt.Println("A promise is not kept: see LEAK above.")
	}
	return kept, nil
}

func title(w io.Writer, text string) { fmt.Fprintf(w, "\n%s\n", text) }

func indent(w io.Writer, text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintf(w, "  %s\n", strings.TrimRight(line, "\n"))
	}
}

func intro(w io.Writer, s *scene) {
	title(w, "The call asks for the workspace, and for more than an agent should have: the home, the host's network, the host's processes")
	f := s.flags()
	fmt.Fprintf(w, "  ctr run --rm --runtime %s \\\n    %s \\\n    %s \\\n    %s \\\n    %s %s %s\n", s.runtime,
		strings.Join(f[:2], " "), strings.Join(f[2:4], " "), strings.Join(f[4:], " "), imageName, s.id, strings.Join(command, " "))
	title(w, "Policy web")
	indent(w, s.policy())
}

// A promise is checked by what is known outside.
type promise struct {
	text  string
	wall  bool // something is kept from the agent; otherwise it is given something
	check func(s *scene) (kept bool, evidence string, err error)
}

var promises = []promise{
	{"it works in its workspace", false, func(s *scene) (bool, string, error) {
		got := strings.TrimSpace(s.file("report.txt"))
		return got == s.token, fmt.Sprintf("on the host, report.txt says %q", got), nil
	}},
	{"it reaches the name that is allowed", false, func(s *scene) (bool, string, error) {
		want := fmt.Sprintf("web.test:%d", s.ears.web)
		n := 0
		for _, h := range s.ears.requested() {
			if h == want || h == "web.test" {
				n++
			}
		}
		return n > 0, fmt.Sprintf("the web server got %s with Host: web.test", count(n, "request")), nil
	}},
	{"it reaches no other name", true, func(s *scene) (bool, string, error) {
		n := 0
		for _, h := range s.ears.requested() {
			if !strings.HasPrefix(h, "web.test") {
				n++
			}
		}
		return n == 0, fmt.Sprintf("the web server got %s with another Host", count(n, "request")), nil
	}},
	{"it is told why, and so are you", false, func(s *scene) (bool, string, error) {
		denied := func(protocol string) bool {
			return slices.ContainsFunc(s.records, func(r record.Record) bool {
				return r.Kind == record.Decision && r.Verdict == "deny" && r.Protocol == protocol && r.Name == "other.test" && r.Reason != ""
			})
		}
		_, told, _ := strings.Cut(s.file("answers"), "cofferdam: access denied")
		_, reason, _ := strings.Cut(told, `reason: `)
		reason, _, found := strings.Cut(reason, `\n`)
		if !found || !denied("dns") || !denied("http") {
			return false, "no reason inside, or no record outside", nil
		}
		return true, fmt.Sprintf("%q in the refusal and in the log", reason), nil
	}},
	{"it sees no other file of the host", true, func(s *scene) (bool, string, error) {
		all, err := s.everywhere()
		if err != nil {
			return false, "", err
		}
		// Besides the workspace there are only files that say which resolver to ask.
		foreign := slices.DeleteFunc(slices.Clone(s.mounts), func(dir string) bool {
			return dir == "/workspace" || dir == "/etc/resolv.conf" && s.runtime == ctrd.Cofferdam
		})
		if strings.Contains(all, s.secret) {
			return false, "it has got the secret of " + s.secretFile(), nil
		}
		return len(foreign) == 0, "the secret is nowhere; mounted of the host: " + strings.Join(s.mounts, ", "), nil
	}},
	{"it sees no process of the host", true, func(s *scene) (bool, string, error) {
		seen := s.file("processes")
		if !strings.Contains(seen, "agent.sh") {
			return false, "", errors.New("the agent has not even listed itself")
		}
		own := "another PID namespace than ours"
		if !s.ownPIDs {
			own = "the host's PID namespace"
		}
		foreign := strings.Contains(seen, "/config.toml") // containerd's argument
		list := "its list has none of ours"
		if foreign {
			list = "it lists containerd"
		}
		return s.ownPIDs && !foreign, own + "; " + list, nil
	}},
	{"no TCP connection to the host", true, silent("connection", "on every address", "tcp")},
	{"no UDP to the host", true, silent("datagram", "on every address", "udp")},
	{"no ping, no raw packet", true, silent("packet", "on raw sockets", "icmp", "raw")},
}

// silent is the promise that ears have heard nothing.
func silent(what, where string, kinds ...string) func(*scene) (bool, string, error) {
	return func(s *scene) (bool, string, error) {
		n := s.ears.count(kinds...)
		return n == 0, fmt.Sprintf("the host heard %s %s", count(n, what), where), nil
	}
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// judge prints how each promise fared, and beside it under the stock runtime.
func judge(w io.Writer, s, control *scene) (kept bool, err error) {
	const row = "  %-37s %-6s %-12s %s\n"
	title(w, "What is so, seen from outside; and the same call under the stock runtime, "+control.runtime)
	fmt.Fprintf(w, row, "", "walls", "stock", "evidence")
	kept = true
	for _, p := range promises {
		ok, evidence, err := p.check(s)
		if err != nil {
			return false, fmt.Errorf("%s: %w", p.text, err)
		}
		without, _, err := p.check(control)
		if err != nil {
			return false, fmt.Errorf("%s, under the stock runtime: %w", p.text, err)
		}
		verdict, other := "ok", "ok"
		if !ok {
			verdict, kept = "LEAK", false
			if !p.wall {
				verdict = "FAILED"
			}
		}
		if !without {
			other = "not so"
		}
		fmt.Fprintf(w, row, p.text, verdict, other, evidence)
	}
	return kept, nil
}

// short is what an inspection says of the sandbox, and of what the call asked for and did not get.
func short(inspect string) string {
	var b strings.Builder
	head, rest, _ := strings.Cut(inspect, "\n\n")
	for line := range strings.Lines(head + "\n") {
		if f := strings.Fields(line); len(f) > 0 && slices.Contains([]string{"files", "network", "proxy", "refused"}, f[0]) {
			b.WriteString(line)
		}
	}
	changes, _, _ := strings.Cut(rest, "\n\n")
	for line := range strings.Lines(changes + "\n") {
		if !strings.HasPrefix(line, "  ") || strings.Contains(line, "/host") || strings.Contains(line, "linux.namespaces[") || strings.Contains(line, "capabilities.bounding") {
			b.WriteString(line)
		}
	}
	return b.String()
}
