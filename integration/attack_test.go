//go:build linux

package integration

import (
	"bufio"
	"cmp"
	"crypto/rand"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cofferdam.dev/cofferdam/integration/attack"
	"cofferdam.dev/cofferdam/integration/lab"
	"cofferdam.dev/cofferdam/integration/outcome"
)

// onlyGood is the policy that agents attack under.
const onlyGood = `version: 1
network:
  unknown: deny
  rules:
    - allow: good.test
    - {allow: good.test, ports: [80], protocol: http}
    - {allow: ssh.good.test, ports: [22], protocol: ssh}
    - deny: bad.good.test
`

// permitted is the policy of attack.Permitted. HOST stands for the port of the host's service.
const permitted = `version: 1
network:
  unknown: deny
  rules:
    - {allow: good.test, ports: [443, 8443]}
    - {allow: "*.good.test", ports: [443, HOST]}
    - {allow: evil.test}
    - {allow: dns.google}
    - {allow: good.test, ports: [80, 8080], protocol: http}
    - {allow: evil.test, ports: [80], protocol: http}
    - {allow: ssh.good.test, ports: [22], protocol: ssh}
`

// greedy asks for what an agent must not have; the shim drops it.
var greedy = []string{
	"--allow-new-privs", "--cap-add", "CAP_NET_ADMIN", "--cap-add", "CAP_NET_RAW", "--cap-add", "CAP_SYS_ADMIN",
	"--cap-add", "CAP_BPF", "--cap-add", "CAP_PERFMON", "--cap-add", "CAP_SYS_PTRACE", "--net-host",
}

// A servant is a probe that makes the attempts that it is told, inside or where the wall is down.
type servant struct {
	in    io.Writer
	out   *bufio.Reader
	place attack.Place
}

// serve starts a command that ends as a probe that serves.
func serve(t testing.TB, cmd *exec.Cmd, place attack.Place) *servant {
	t.Helper()
	cmd.Stderr, cmd.Cancel = &note{t: t}, endsByItself
	in, out := talk(t, cmd)
	t.Cleanup(func() {
		in.Close() // it ends
		late := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		defer late.Stop()
		_ = cmd.Wait() // what it left running has been killed
	})
	return &servant{in, bufio.NewReaderSize(out, 1<<20), place}
}

// endsByItself is the Cancel of a command that is not killed when its test's context ends, just before it is cleaned up.
func endsByItself() error { return os.ErrProcessDone }

// note keeps what a command says on standard error for the log of a test.
type note struct{ t testing.TB }

func (n *note) Write(b []byte) (int, error) {
	n.t.Logf("stderr: %s", b)
	return len(b), nil
}

// try makes one attempt.
func (s *servant) try(t testing.TB, words []string) outcome.Outcome {
	t.Helper()
	line, err := json.Marshal(words)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.in.Write(append(line, '\n')); err != nil {
		t.Fatal(err)
	}
	answer, err := s.out.ReadBytes('\n')
	if err != nil {
		t.Fatalf("the probe is gone: %v", err)
	}
	got, err := outcome.Parse(answer)
	if err != nil {
		t.Fatal(err)
	}
	if got.Unknown {
		t.Fatalf("the probe knows no %q", words)
	}
	return got
}

// listen has the probe listen on a port while it serves. Its own copy is where a set-user-ID one is sought.
func (s *servant) listen(t testing.TB, port string) {
	t.Helper()
	got := s.try(t, []string{"sh", s.place.SUID + " listen " + port + " >/dev/null 2>&1 & echo $!"})
	if !got.OK {
		t.Fatal(got)
	}
	t.Cleanup(func() { s.try(t, []string{"sh", "kill " + got.Reply}) })
	eventually(t, "it listens", func() bool { return s.try(t, []string{"tcp", "127.0.0.1:" + port}).OK })
}

// A front is a way to have an agent between the walls, or without them.
type front struct {
	name string
	up   func(t testing.TB, r *ground, policy string) *servant
	down func(t testing.TB, r *ground, where attack.Down) *servant
}

// A ground is what attacks are made on.
type ground struct {
	lab    *lab.Lab
	host   *lab.Host
	canary string
	secret string
}

const untouched = "untouched\n"

// newGround makes a canary: a folder of the host that every user may read and write, with a secret in it.
func newGround(t testing.TB) *ground {
	t.Helper()
	dir, err := os.MkdirTemp("/srv", "canary-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &ground{lab: lab.Get(t), host: startHost(t), canary: dir, secret: rand.Text()}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	r.restore(t)
	return r
}

// restore makes the canary what it was.
func (r *ground) restore(t testing.TB) {
	t.Helper()
	entries, err := os.ReadDir(r.canary)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(r.canary, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"secret": r.secret, "target": untouched} {
		file := filepath.Join(r.canary, name)
		if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

// spoiled tells what has become of the canary, or nothing.
func (r *ground) spoiled(t testing.TB) string {
	t.Helper()
	entries, err := os.ReadDir(r.canary)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"secret": r.secret, "target": untouched} {
		file := filepath.Join(r.canary, name)
		st, err := os.Lstat(file)
		if err != nil {
			return err.Error()
		}
		if b, err := os.ReadFile(file); err != nil || string(b) != text || st.Mode() != 0o666 {
			return fmt.Sprintf("%s is %v with %q, %v", name, st.Mode(), b, err)
		}
	}
	if len(entries) != 2 {
		return fmt.Sprint(entries)
	}
	return ""
}

func (r *ground) place(workspace, suid string) attack.Place {
	return attack.Place{Host: r.host.TCP, Canary: r.canary, Secret: filepath.Join(r.canary, "secret"), SUID: suid, Workspace: workspace}
}

// seen is what the world saw of one attempt.
type seen struct {
	events  []lab.Event
	host    int    // connections
	secret  bool   // the probe says it
	spoiled string // how
}

// watch makes the attempts and looks at the world. The canary is as before afterwards.
func (r *ground) watch(t testing.TB, s *servant, attempts ...[]string) (got outcome.Outcome, saw seen) {
	t.Helper()
	mark, before := r.lab.Mark(t), r.host.Seen()
	for _, words := range attempts {
		got = s.try(t, words)
		saw.secret = saw.secret || strings.Contains(got.Reply+got.Detail, r.secret)
	}
	saw.events, saw.host, saw.spoiled = r.lab.Since(t, mark), r.host.Seen()-before, r.spoiled(t)
	if saw.spoiled != "" {
		r.restore(t)
	}
	return got, saw
}

// calm waits until what was sent before has come to its end: a connection that a proxy keeps or closes is seen a little later.
func calm(t testing.TB, l *lab.Lab) {
	t.Helper()
	eventually(t, "the internet is calm", func() bool {
		mark := l.Mark(t)
		<-time.After(300 * time.Millisecond)
		return len(l.Since(t, mark)) == 0
	})
}

// failed begins what is said of a control that shows nothing.
const failed = "FAILED"

// unknown are the answers of a kernel that has no such thing: there is no way out there, with or without a wall.
var unknown = []string{"ENOSYS", "EAFNOSUPPORT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT", "ENOTSUP"}

// control makes the control of an attack, and tells how it went, and whether it shows what it must.
func (r *ground) control(t testing.TB, s *servant, a attack.Attack) (says string, ok bool) {
	t.Helper()
	mark := r.lab.Mark(t)
	got, saw := r.watch(t, s, a.ControlWords(s.place)...)
	if a.Shows == attack.Internet && len(a.Within) > 0 { // what is more than a packet is seen a little later
		for deadline := time.Now().Add(time.Second); len(beyond(saw.events, s.place, a.Within)) == 0 && time.Now().Before(deadline); {
			saw.events = r.lab.Since(t, mark)
		}
	}
	switch {
	case !got.OK && slices.Contains(unknown, got.Errno):
		return "this kernel has no such thing: " + got.Errno, true
	case a.Shows == attack.Internet && len(beyond(saw.events, s.place, a.Within)) > 0 && (got.OK || a.Mute()):
		return "it reached the internet", true
	case a.Shows == attack.Host && saw.host > 0 && got.OK:
		return "it reached the host", true
	case a.Shows == attack.Secret && saw.secret:
		return "it read the secret", true
	case a.Shows == attack.Spoiled && saw.spoiled != "":
		return "it wrote to the host", true
	case a.Shows == attack.Answer && got.OK:
		return "it was done", true
	}
	return fmt.Sprintf(failed+": %s; the internet saw %d events", got, len(saw.events)), false
}

// contained makes an attack between the walls, with flags for the probe, and tells how it went, and what of it went through.
func (r *ground) contained(t testing.TB, s *servant, a attack.Attack, flags ...string) (says string, escaped []string) {
	t.Helper()
	mark := r.lab.Mark(t)
	got, saw := r.watch(t, s, append(flags, a.Words(s.place)...))
	if len(a.Within) > 0 { // the same: what is seen still later is found with the next attack
		for n := -1; n < len(saw.events); {
			n = len(saw.events)
			<-time.After(5 * time.Millisecond)
			saw.events = r.lab.Since(t, mark)
		}
		a.Answered = true
	}
	if events := beyond(saw.events, s.place, a.Within); len(events) > 0 {
		escaped = append(escaped, "the internet saw\n"+lab.Join(events))
	}
	if saw.host > 0 {
		escaped = append(escaped, fmt.Sprintf("the host's service saw %d connections", saw.host))
	}
	if saw.secret {
		escaped = append(escaped, "it knows the secret")
	}
	if saw.spoiled != "" {
		escaped = append(escaped, "the host's files: "+saw.spoiled)
	}
	acts := slices.Contains([]attack.Evidence{attack.Internet, attack.Host, attack.Answer}, a.Shows)
	switch {
	case a.Answered:
	case got.OK && acts:
		escaped = append(escaped, fmt.Sprintf("it succeeded: %s", got))
	case len(a.Refused) > 0 && !slices.Contains(slices.Concat(a.Refused, unknown), got.Errno):
		escaped = append(escaped, fmt.Sprintf("got %s, want one of %v", got, a.Refused))
	case a.At > 0 && got.Elapsed.Milliseconds() > int64(a.At):
		escaped = append(escaped, fmt.Sprintf("the refusal took %v, want at most %d ms", got.Elapsed, a.At))
	}
	switch {
	case len(escaped) > 0:
		return "ESCAPED", escaped
	case got.Errno != "":
		return "refused: " + got.Errno, nil
	case got.OK:
		return "nothing was seen", nil
	}
	return "refused", nil
}

// beyond returns the events that the names which an attack is within do not account for: packets to their own addresses and ports, handshakes and requests
// for them, and questions about them, byte for byte as the policy spells them, to the host's resolver.
func beyond(events []lab.Event, p attack.Place, within []string) (others []lab.Event) {
	if len(within) == 0 {
		return events
	}
	for _, e := range events {
		name, kind, _ := strings.Cut(e.Detail, " ")
		at, port := e.Dst.Addr().String(), strconv.Itoa(int(e.Dst.Port()))
		resolver := at == lab.Resolver && port == "53"
		shell := at == lab.SSH && port == "22" && slices.Contains(within, "ssh.good.test")
		theirs := at == lab.Good && slices.Contains([]string{"80", "443", p.Host}, port)
		fine := false
		switch e.Kind {
		case "frame":
			fine = (theirs || shell) && e.Proto == "tcp" || resolver
		case "ssh":
			fine = shell && (e.Detail == `""` || strings.HasPrefix(e.Detail, `"SSH-2.0-`))
		case "dns":
			fine = resolver && slices.Contains(within, name) && (kind == "A" || kind == "AAAA")
		case "tls":
			fine = theirs && slices.Contains(within, strings.ToLower(e.Detail))
		case "http":
			to, err := url.Parse(kind)
			fine = theirs && err == nil && slices.Contains(within, strings.TrimSuffix(to.Host, ":80"))
		}
		if !fine {
			others = append(others, e)
		}
	}
	return others
}

// inTurn returns attacks in the order in which they are made: last those of which the world may see something, which comes to its end a little later.
func inTurn(attacks []attack.Attack) []attack.Attack {
	return slices.SortedStableFunc(slices.Values(attacks), func(a, b attack.Attack) int {
		return cmp.Compare(min(len(a.Within), 1), min(len(b.Within), 1))
	})
}

// results of this run, for -attacks.
var (
	resultsMu sync.Mutex
	results   []attack.Result

	attacksFile = flag.String("attacks", "", "write a table of attacks, fronts, outcomes and controls to this file")
)

func keep(r attack.Result) {
	resultsMu.Lock()
	defer resultsMu.Unlock()
	results = append(results, r)
}

// writeResults writes the table that was asked for.
func writeResults() error {
	if *attacksFile == "" || len(results) == 0 {
		return nil
	}
	f, err := os.Create(*attacksFile)
	if err != nil {
		return err
	}
	defer f.Close()
	return attack.Table(f, results)
}

// inTime leaves out what make test has no time for: the attacks on what the proxy reads on other fronts than two. make attack makes them on all.
func inTime(front string, attacks []attack.Attack) []attack.Attack {
	if *attacksFile != "" || front == "shim-v2" || front == "run-user" {
		return attacks
	}
	return slices.DeleteFunc(slices.Clone(attacks), attack.Attack.Parsed)
}

// TestAttacks makes every attack on every front, and before that all controls, where the wall is down. The attacks on a workspace, each of which
// needs a repository, are TestAWorkspaceCannotStrikeBack.
func TestAttacks(t *testing.T) {
	Require(t, needShim, needImage)
	against := inTurn(slices.DeleteFunc(attack.All(), func(a attack.Attack) bool { return !a.Alone() }))
	for _, f := range fronts {
		t.Run(f.name, func(t *testing.T) { f.attack(t, inTime(f.name, against)) })
	}
	// Whatever else is broken, nothing reaches the internet or the host.
	against = slices.DeleteFunc(against, func(a attack.Attack) bool { return a.Shows != attack.Internet && a.Shows != attack.Host })
	for i := range against {
		against[i].Refused, against[i].At, against[i].Answered = nil, 0, true
	}
	t.Run(broken.name, func(t *testing.T) { broken.attack(t, inTime(broken.name, against)) })
}

func (f front) attack(t *testing.T, against []attack.Attack) {
	r := newGround(t)
	box := f.up(t, r, onlyGood)
	open := map[attack.Down]*servant{
		attack.Outside:   f.down(t, r, attack.Outside),
		attack.Private:   f.down(t, r, attack.Private),
		attack.Permitted: f.up(named{t, t.Name() + "-permitted"}, r, strings.Replace(permitted, "HOST", r.host.TCP, 1)),
	}
	for _, other := range []*servant{f.up(named{t, t.Name() + "-neighbour"}, r, onlyGood), open[attack.Outside]} {
		other.listen(t, "7777")
	}
	controls := map[string]string{}
	for _, a := range against {
		t.Run("control/"+a.ID, func(t *testing.T) {
			says, ok := r.control(t, open[a.Down], a)
			if controls[a.ID] = says; !ok {
				t.Errorf("the control shows nothing: %s", says)
			}
		})
	}
	calm(t, r.lab)
	for _, a := range against {
		t.Run(a.ID, func(t *testing.T) {
			in := box
			if a.Lax {
				in = open[attack.Permitted]
			}
			said, escaped := r.contained(t, in, a)
			for _, e := range escaped {
				t.Error(e)
			}
			control := controls[a.ID]
			keep(attack.Result{ID: a.ID, Front: f.name, Outcome: said, Control: control, Failed: len(escaped) > 0 || strings.HasPrefix(control, failed)})
		})
	}
	calm(t, r.lab)
	// A wall without a gate would be silent, too.
	if got := box.try(t, []string{"https", "good.test:443", "good.test"}); !got.OK {
		t.Errorf("what is allowed is not reached: %s", got)
	}
}
