package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"cofferdam.dev/cofferdam/proxy/policy"
	"cofferdam.dev/cofferdam/proxy/record"
)

// clock is moved by hand.
type clock struct {
	mu  sync.Mutex // guards now
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// TestMeterWindow: whatever is taken when, in no window more than the quota is,
// and all of it comes back.
func TestMeterWindow(t *testing.T) {
	const window = 16 * time.Second
	q := policy.Quota{Most: 10, Per: window}
	type use struct {
		at time.Duration
		n  int64
	}
	for _, test := range []struct {
		name  string
		every time.Duration
		want  int64 // at the least, of a demand without end over ten windows
	}{
		{"a greedy one", time.Millisecond * 100, 90},
		{"at the edges of slots", time.Second, 90},
		{"with pauses longer than the window", 33 * time.Second, 40},
	} {
		t.Run(test.name, func(t *testing.T) {
			var m meter
			var uses []use
			total := int64(0)
			for at := time.Duration(0); at < 10*window; at += test.every {
				if n := m.left(q, at); n > 0 {
					m.take(n)
					uses = append(uses, use{at, n})
					total += n
				} else if wait := m.wait(q, at); wait <= 0 || wait > window+window/meterSlots {
					t.Fatalf("at %v the wait is %v", at, wait)
				}
				sum := int64(0)
				for _, u := range uses {
					if u.at > at-window {
						sum += u.n
					}
				}
				if sum > q.Most {
					t.Fatalf("%d within the window that ends at %v", sum, at)
				}
			}
			if total < test.want {
				t.Errorf("%d were let through, want at least %d", total, test.want)
			}
		})
	}
	var life meter
	life.take(10)
	if left := life.left(policy.Quota{Most: 10}, 1000*time.Hour); left != 0 {
		t.Errorf("of a quota without window %d are left", left)
	}
}

// TestZeroQuota is invariant I6.
func TestZeroQuota(t *testing.T) {
	b := newBudgets(time.Now)
	if over := b.admit(policy.Budgets{policy.User: {Connections: &policy.Quota{}}}, true, false); over == nil {
		t.Error("a connection is admitted")
	}
	if n, err := b.up(policy.Budgets{policy.User: {Up: &policy.Quota{}}})(1); n != 0 || err == nil {
		t.Errorf("%d bytes are let through, %v", n, err)
	}
	if over := b.admit(policy.Budgets{}, true, true); over != nil {
		t.Errorf("without budget: %v", over)
	}
}

// budgetLab is a lab with a clock of its own.
func budgetLab(t *testing.T, protocol, budget string) (*lab, *clock) {
	c := &clock{now: time.Unix(0, 0)}
	return newLab(t, fmt.Sprintf(`version: 1
network:
  rules:
    - {allow: "*.raw.test", ports: [PORT], protocol: %s, addresses: ["::1"], budget: %s}
    - {allow: free.test, ports: [PORT], protocol: %s, addresses: ["::1"]}
`, protocol, budget, protocol), withChange(func(s *Server) { s.budgets = newBudgets(c.Now) })), c
}

// sink counts what upstreams were sent.
type sink struct {
	mu  sync.Mutex // guards got
	got int
}

func (s *sink) serve(conn *net.TCPConn) {
	n, _ := io.Copy(io.Discard, conn)
	s.mu.Lock()
	s.got += int(n)
	s.mu.Unlock()
}

func (l *lab) closes() (closes []record.Record) {
	l.stop()
	for _, r := range readRecords(l.t, l.log) {
		if r.Kind == record.Close {
			closes = append(closes, r)
		}
	}
	return closes
}

// TestBudgetUp: of the rule's names together exactly the budget leaves, and the
// connection that crosses it is cut, with its reason; a new one is refused until
// the window has passed. Another rule is not affected.
func TestBudgetUp(t *testing.T) {
	l, c := budgetLab(t, "tcp", "{up: 100KiB/1m}")
	up := &sink{}
	l.upstream(up.serve)
	a, b := l.synthetic("a.raw.test"), l.synthetic("b.raw.test")
	first := l.dial(a)
	first.Write(make([]byte, 60<<10))
	first.CloseWrite()
	if !ended(t, first) {
		t.Error("got bytes")
	}
	l.waitOpen(0)
	second := l.dial(b)
	_, werr := second.Write(make([]byte, 1<<20))
	if _, err := second.Read(make([]byte, 1)); err == nil || werr == nil && err == io.EOF { // one of them gets the reset
		t.Errorf("the connection is not cut: %v, %v", werr, err)
	}
	l.waitOpen(0)
	if !l.refused(a) {
		t.Error("a new connection is not refused")
	}
	free := l.dial(l.synthetic("free.test"))
	free.Write(make([]byte, 1<<20))
	free.CloseWrite()
	ended(t, free)
	l.waitOpen(0)
	c.pass(2 * time.Minute)
	again := l.dial(a)
	again.Write(make([]byte, 100<<10)) // all of it, and not a byte more
	again.CloseWrite()
	ended(t, again)

	closes := l.closes()
	sum := map[string]int64{}
	for _, r := range closes {
		sum[r.Name] += r.BytesUp
	}
	if len(closes) != 4 || sum["a.raw.test"] != 160<<10 || sum["b.raw.test"] != 40<<10 || sum["free.test"] != 1<<20 {
		t.Errorf("counted %v", sum)
	}
	for i, want := range []string{"", "the rule's budget is used up: up 100KiB/1m", "", ""} {
		if closes[i].Reason != want || (want != "") != (closes[i].Rule != "") {
			t.Errorf("close %d says %q of rule %q", i, closes[i].Reason, closes[i].Rule)
		}
	}
	up.mu.Lock()
	defer up.mu.Unlock()
	if most := 200<<10 + 1<<20; up.got > most {
		t.Errorf("%d bytes have left, more than %d", up.got, most)
	}
	denials := 0
	for _, r := range readRecords(t, l.log) {
		if r.Verdict == "deny" {
			denials++
			if r.Reason != "the rule's budget is used up: up 100KiB/1m" || !strings.HasPrefix(r.Rule, "allow *.raw.test") {
				t.Errorf("denied: %v", r)
			}
		}
	}
	if denials != 1 {
		t.Errorf("%d denials", denials)
	}
}

// TestBudgetDown: what a server sends beyond the budget does not arrive.
func TestBudgetDown(t *testing.T) {
	l, _ := budgetLab(t, "tcp", "{down: 600KiB}")
	l.upstream(func(c *net.TCPConn) {
		io.ReadFull(c, make([]byte, 1)) // else the end may come before the agent's connect(2) has returned
		c.Write(make([]byte, 2<<20))
		io.Copy(io.Discard, c)
	})
	conn := l.dial(l.synthetic("a.raw.test"))
	conn.Write([]byte("x"))
	var got bytes.Buffer
	if _, err := io.Copy(&got, conn); err == nil {
		t.Error("the connection ends in order")
	}
	if got.Len() > 600<<10 {
		t.Errorf("got %d bytes", got.Len())
	}
	closes := l.closes()
	if len(closes) != 1 || closes[0].BytesDown != 600<<10 || closes[0].Reason != "the rule's budget is used up: down 600KiB" {
		t.Errorf("%v", closes)
	}
}

func TestBudgetConnections(t *testing.T) {
	for _, protocol := range []string{"tcp", "tls"} {
		t.Run(protocol, func(t *testing.T) {
			l, c := budgetLab(t, protocol, "{connections: 2/1m}")
			l.upstream(func(c *net.TCPConn) {
				if protocol == "tls" {
					tlsUpstream(c)
				} else {
					io.WriteString(c, "hello from a.raw.test")
				}
			})
			address := l.synthetic("a.raw.test")
			try := func() bool {
				if protocol == "tls" {
					got, _ := l.askTLS(address, "a.raw.test", nil)
					return got != ""
				}
				return !l.refused(address)
			}
			for i, want := range []bool{true, true, false, false} {
				if got := try(); got != want {
					t.Errorf("connection %d: %v", i, got)
				}
			}
			c.pass(65 * time.Second)
			if !try() {
				t.Error("refused after the window")
			}
			denied := 0
			for _, line := range l.records() {
				if strings.HasSuffix(line, "the rule's budget is used up: connections 2/1m") {
					denied++
				}
			}
			if denied != 2 {
				t.Errorf("%d denials", denied)
			}
		})
	}
}

// TestBudgetHTTP: the client is told, and told to wait where that helps.
func TestBudgetHTTP(t *testing.T) {
	get := "GET / HTTP/1.1\r\nHost: a.raw.test\r\n\r\n"
	post := "POST / HTTP/1.1\r\nHost: a.raw.test\r\nContent-Length: 2000\r\n\r\n" + strings.Repeat("x", 2000)
	for _, test := range []struct {
		name, budget, text string
		statuses           []int
		reason             string
	}{
		{"requests", "{requests: 2/1m}", get + get + get, []int{200, 200, 429}, "requests 2/1m"},
		{"requests for life", "{requests: 1}", get + get, []int{200, 403}, "requests 1"},
		{"connections", "{connections: 1}", get + get, []int{200, 200}, ""},
		{"up", "{up: 1KiB/1h}", get + post, []int{200, 429}, "up 1KiB/1h"},
		{"up for life", "{up: 1KiB}", post, []int{403}, "up 1KiB"},
		{"enough", "{up: 4KiB, down: 4KiB, connections: 1, requests: 2}", get + post, []int{200, 200}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, _ := budgetLab(t, "http", test.budget)
			web := &webSink{}
			l.upstream(web.serve)
			conn := l.dial(l.synthetic("a.raw.test"))
			statuses, bodies := exchange(t, conn, test.text, len(test.statuses))
			if fmt.Sprint(statuses) != fmt.Sprint(test.statuses) {
				t.Fatalf("got %v %q", statuses, bodies)
			}
			if last := bodies[len(bodies)-1]; test.reason != "" && !strings.Contains(last, "the rule's budget is used up: "+test.reason+"\nrule:   allow *.raw.test") {
				t.Errorf("the last answer is %q", last)
			}
			conn.Close()
			l.stop()
			said := false
			for _, r := range readRecords(t, l.log) {
				said = said || r.Reason == "the rule's budget is used up: "+test.reason
			}
			if said != (test.reason != "") {
				t.Errorf("records %v", readRecords(t, l.log))
			}
			if saw := len(web.saw()); strings.HasPrefix(test.budget, "{up: 1KiB") && saw > 1<<10 {
				t.Errorf("%d bytes have left", saw)
			}
		})
	}
}

// TestBudgetHTTPDown: a response that crosses the budget breaks off visibly, one
// without a length too.
func TestBudgetHTTPDown(t *testing.T) {
	l, _ := budgetLab(t, "http", "{down: 100KiB}")
	l.upstream(func(c *net.TCPConn) {
		io.ReadFull(c, make([]byte, 16))
		io.WriteString(c, "HTTP/1.0 200 OK\r\n\r\n")
		c.Write(make([]byte, 1<<20))
	})
	conn := l.dial(l.synthetic("a.raw.test"))
	io.WriteString(conn, "GET / HTTP/1.0\r\nHost: a.raw.test\r\n\r\n")
	got, err := io.ReadAll(conn)
	if err == nil || len(got) > 101<<10 {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	statuses, _ := exchange(t, l.dial(l.synthetic("a.raw.test")), "GET / HTTP/1.1\r\nHost: a.raw.test\r\n\r\n", 1)
	if len(statuses) != 1 || statuses[0] != http.StatusForbidden {
		t.Errorf("a further request gets %v", statuses)
	}
	closes := l.closes()
	if len(closes) != 1 || closes[0].BytesDown != 100<<10 || closes[0].Reason != "the rule's budget is used up: down 100KiB" {
		t.Errorf("%v", closes)
	}
}

// TestBudgetWebSocket: after the change of protocol bytes count as before, and
// what crosses is reset.
func TestBudgetWebSocket(t *testing.T) {
	for _, test := range []struct{ budget, reason string }{
		{"{up: 10KiB, down: 1MiB}", "the rule's budget is used up: up 10KiB"},
		{"{up: 1MiB, down: 10KiB}", "the rule's budget is used up: down 10KiB"},
	} {
		t.Run(test.budget, func(t *testing.T) {
			l, _ := budgetLab(t, "http", test.budget)
			l.upstream((&webSink{}).serve)
			conn := l.dial(l.synthetic("a.raw.test"))
			io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a.raw.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			_, werr := conn.Write(make([]byte, 20<<10))
			got, err := io.ReadAll(conn)
			if err == nil && werr == nil {
				t.Errorf("got %d bytes and an end in order", len(got))
			}
			l.waitOpen(0)
			closes := l.closes()
			if len(closes) != 1 || closes[0].Reason != test.reason || max(closes[0].BytesUp, closes[0].BytesDown) > 21<<10 || min(closes[0].BytesUp, closes[0].BytesDown) > 10<<10 {
				t.Errorf("%+v", closes)
			}
		})
	}
}

// TestMeterOtherWindow: a window that a reload makes longer or shorter forgets
// nothing and is not stuck.
func TestMeterOtherWindow(t *testing.T) {
	for _, test := range []struct{ before, after time.Duration }{
		{time.Minute, 24 * time.Hour}, {24 * time.Hour, time.Minute}, {0, time.Minute}, {time.Minute, 0},
	} {
		var m meter
		at := 10 * 24 * time.Hour
		m.left(policy.Quota{Most: 10, Per: test.before}, at)
		m.take(7)
		q := policy.Quota{Most: 10, Per: test.after}
		if left := m.left(q, at); left != 3 {
			t.Errorf("from %v to %v %d are left, want 3", test.before, test.after, left)
		}
		if at += 2 * test.after; test.after > 0 && m.left(q, at) != 10 {
			t.Errorf("from %v to %v %d are left two windows later", test.before, test.after, m.left(q, at))
		}
	}
}

// TestBudgetReload: what is open when a rule's budget changes is charged to the
// new one from then on, or is reset: nothing goes on uncounted.
func TestBudgetReload(t *testing.T) {
	const used = 100 << 10
	for _, test := range []struct {
		name, before, after string
		ports               string // after; empty for the same
		more                int    // bytes in each direction that still pass; -1: it is reset at once
		reason              string
	}{
		{"the same", "{up: 200KiB}", "{up: 200KiB}", "", 100 << 10, "the rule's budget is used up: up 200KiB"},
		{"more", "{up: 110KiB, down: 1GiB}", "{up: 300KiB}", "", 200 << 10, "the rule's budget is used up: up 300KiB"},
		{"less", "{up: 1GiB}", "{up: 150KiB}", "", 50 << 10, "the rule's budget is used up: up 150KiB"},
		{"less than is used", "{up: 1GiB}", "{up: 50KiB}", "", -1, "the policy has changed: the rule's budget is used up: up 50KiB"},
		{"one at all", "", "{up: 1GiB}", "", -1, "the policy has changed: the rule has another budget"},
		{"in another direction", "{up: 1GiB}", "{up: 1GiB, down: 1GiB}", "", -1, "the policy has changed: the rule has another budget"},
		{"of a rule with more ports", "{up: 1GiB}", "{up: 1GiB}", "[PORT, 1]", -1, "the policy has changed: the rule has another budget"},
		{"of connections, to what bytes had none", "", "{connections: 1}", "", -1, "the policy has changed: the rule has another budget"},
		{"none any more", "{up: 200KiB}", "", "", 100 << 10, "the rule's budget is used up: up 200KiB"},
	} {
		t.Run(test.name, func(t *testing.T) {
			text := func(budget, ports string) string {
				if budget != "" {
					budget = ", budget: " + budget
				}
				if ports == "" {
					ports = "[PORT]"
				}
				return fmt.Sprintf("version: 1\nnetwork:\n  rules:\n    - {allow: raw.test, ports: %s, protocol: tcp, addresses: [\"::1\"]%s}\n", ports, budget)
			}
			l := newLab(t, text(test.before, ""))
			l.upstream(func(c *net.TCPConn) { io.Copy(c, c) })
			conn := l.dial(l.synthetic("raw.test"))
			conn.Write(make([]byte, used))
			if _, err := io.CopyN(io.Discard, conn, used); err != nil {
				t.Fatal(err)
			}
			l.reload(text(test.after, test.ports))
			if test.more > 0 {
				conn.Write(make([]byte, test.more))
				if n, err := io.CopyN(io.Discard, conn, int64(test.more)); err != nil {
					t.Errorf("%d bytes pass: %v", n, err)
				}
			}
			conn.Write(make([]byte, 1))
			if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
				t.Error("a further byte passes")
			}
			closes := l.closes()
			if len(closes) != 1 || closes[0].Reason != test.reason || closes[0].BytesUp != int64(used+max(test.more, 0)) {
				t.Errorf("closes %+v", closes)
			}
		})
	}
}

// TestBudgetReloadHTTP: the same for a request in flight; the next one on an idle
// connection is charged to the new budget.
func TestBudgetReloadHTTP(t *testing.T) {
	const text = "version: 1\nnetwork:\n  rules:\n    - {allow: raw.test, ports: [PORT], protocol: http, addresses: [\"::1\"]%s}\n"
	for _, inFlight := range []bool{true, false} {
		t.Run(fmt.Sprintf("in flight %v", inFlight), func(t *testing.T) {
			l := newLab(t, fmt.Sprintf(text, ""))
			began, hold := make(chan struct{}, 1), make(chan struct{})
			l.upstream(func(c *net.TCPConn) {
				in := bufio.NewReader(c)
				for {
					r, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					if r.URL.Path == "/slow" {
						began <- struct{}{}
						<-hold
					}
					io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n"+strings.Repeat("x", 2000))
				}
			})
			defer close(hold)
			conn := l.dial(l.synthetic("raw.test"))
			in := bufio.NewReader(conn)
			get := func(path string) (int, error) {
				io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: raw.test\r\n\r\n")
				r, err := http.ReadResponse(in, nil)
				if err != nil {
					return 0, err
				}
				_, err = io.Copy(io.Discard, r.Body)
				return r.StatusCode, err
			}
			if status, err := get("/"); status != http.StatusOK || err != nil {
				t.Fatal(status, err)
			}
			want := "the rule's budget is used up: down 1KiB"
			if inFlight {
				want = "the policy has changed: the rule has another budget"
				go func() {
					<-began
					l.reload(fmt.Sprintf(text, ", budget: {down: 1KiB}"))
				}()
				if _, err := get("/slow"); err == nil {
					t.Error("the request in flight goes on")
				}
			} else {
				l.reload(fmt.Sprintf(text, ", budget: {down: 1KiB}"))
				if _, err := get("/"); err == nil {
					t.Error("more than the budget passes")
				}
			}
			if closes := l.closes(); len(closes) != 1 || closes[0].Reason != want {
				t.Errorf("closes %+v", closes)
			}
		})
	}
}
