package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"cofferdam.dev/cofferdam/proxy/policy"
	"cofferdam.dev/cofferdam/proxy/record"
)

// reload gives the lab's server another policy.
func (l *lab) reload(text string) {
	l.t.Helper()
	p, err := policy.Parse("test", []byte(strings.ReplaceAll(text, "PORT", fmt.Sprint(l.port))))
	if err != nil {
		l.t.Fatal(err)
	}
	l.server.SetPolicy(p)
}

const (
	bothAllowed = `version: 1
network:
  rules:
    - {allow: raw.test, ports: [PORT], protocol: tcp, addresses: ["::1"]}
    - {allow: other.test, ports: [PORT], protocol: tcp, addresses: ["::1"]}
`
	otherAllowed = `version: 1
network:
  rules:
    - {allow: other.test, ports: [PORT], protocol: tcp, addresses: ["::1"]}
`
	otherElsewhere = `version: 1
network:
  rules:
    - {allow: raw.test, ports: [PORT], protocol: tcp, addresses: ["::1"]}
    - {allow: other.test, ports: [PORT], protocol: tcp, addresses: ["10.1.2.3"]}
`
	webAllowed = `version: 1
network:
  rules:
    - {allow: web.test, ports: [PORT], protocol: http, addresses: ["::1"]}
`
	nothing = "version: 1\n"
)

// TestPolicyChange: what a new policy denies is reset, with the reason; what it
// allows goes on; what it allows anew works, and what it denies does not.
func TestPolicyChange(t *testing.T) {
	for _, test := range []struct {
		name, to     string
		raw, other   bool // go on
		newRaw       bool // a new connection works
		closedReason string
	}{
		{"the same rules", bothAllowed, true, true, true, ""},
		{"a rule is gone", otherAllowed, false, true, false, "the policy has changed: no rule allows it"},
		{"a rule leads elsewhere", otherElsewhere, true, false, true, "the policy has changed: address ::1 is not one that the rule names"},
		{"a rule is of another protocol", strings.Replace(otherElsewhere, "protocol: tcp, addresses: [\"::1\"]", "protocol: ssh, addresses: [\"::1\"]", 1), false, false, false, "the policy has changed: the rule allows ssh only"},
		{"everything is gone", nothing, false, false, false, "the policy has changed: no policy allows anything"},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLab(t, bothAllowed)
			l.upstream(func(c *net.TCPConn) { io.Copy(c, c) })
			talk := func(c *net.TCPConn) error {
				c.SetDeadline(time.Now().Add(patience))
				if _, err := io.WriteString(c, "x"); err != nil {
					return err
				}
				_, err := io.ReadFull(c, make([]byte, 1))
				return err
			}
			address := l.synthetic("raw.test")
			raw, other := l.dial(address), l.dial(l.synthetic("other.test"))
			for _, c := range []*net.TCPConn{raw, other} {
				if err := talk(c); err != nil {
					t.Fatal(err)
				}
			}
			l.reload(test.to)
			if err := talk(raw); (err == nil) != test.raw {
				t.Errorf("the first connection: %v", err)
			}
			if err := talk(other); (err == nil) != test.other {
				t.Errorf("the second connection: %v", err)
			}
			if err := talk(l.dial(address)); (err == nil) != test.newRaw {
				t.Errorf("a new connection: %v", err)
			}
			found := test.closedReason == ""
			for _, r := range l.closes() {
				found = found || r.Reason == test.closedReason
			}
			if !found {
				t.Errorf("no closing record says %q", test.closedReason)
			}
		})
	}
}

// TestPolicyChangeHTTP: a request in flight is cut, an idle connection is decided
// anew at its next request, and no upstream of the old policy is used again.
func TestPolicyChangeHTTP(t *testing.T) {
	l := newLab(t, webAllowed)
	slow := make(chan struct{})
	l.upstream(func(c *net.TCPConn) {
		in := bufio.NewReader(c)
		for {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			if r.URL.Path == "/slow" {
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na")
				<-slow
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na")
		}
	})
	defer close(slow)
	address := l.synthetic("web.test")
	get := func(c *net.TCPConn, in *bufio.Reader, path string) (status int, err error) {
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: web.test:%d\r\n\r\n", path, l.port)
		r, err := http.ReadResponse(in, nil)
		if err != nil {
			return 0, err
		}
		_, err = io.ReadAll(r.Body)
		return r.StatusCode, err
	}
	idle, flying := l.dial(address), l.dial(address)
	in := bufio.NewReader(idle)
	if status, err := get(idle, in, "/"); status != 200 || err != nil {
		t.Fatal(status, err)
	}
	cut := make(chan error, 1)
	begun := make(chan struct{})
	go func() {
		fmt.Fprintf(flying, "GET /slow HTTP/1.1\r\nHost: web.test:%d\r\n\r\n", l.port)
		r, err := http.ReadResponse(bufio.NewReader(flying), nil)
		close(begun)
		if err == nil {
			_, err = io.ReadAll(r.Body)
		}
		cut <- err
	}()
	<-begun
	l.reload(webAllowed) // the same: nothing happens to either
	if status, err := get(idle, in, "/"); status != 200 || err != nil {
		t.Errorf("after the same policy: %d, %v", status, err)
	}
	l.reload(otherAllowed)
	if err := <-cut; err == nil {
		t.Error("a request in flight is not cut")
	}
	if status, err := get(idle, in, "/"); status != 403 || err != nil {
		t.Errorf("the next request on an idle connection: %d, %v", status, err)
	}
	reasons := map[string]int{}
	l.stop()
	for _, r := range readRecords(t, l.log) {
		if r.Kind == record.Close || r.Verdict == "deny" {
			reasons[r.Reason]++
		}
	}
	if reasons["the policy has changed: no rule allows it"] != 1 || reasons["no rule allows it"] != 1 {
		t.Errorf("reasons %v", reasons)
	}
}

// TestPolicyChangeOfAddressHTTP: what is in flight to an address that the name must
// not have any more is cut, as it is in other protocols.
func TestPolicyChangeOfAddressHTTP(t *testing.T) {
	elsewhere := strings.Replace(webAllowed, "::1", "10.1.2.3", 1)
	for _, test := range []struct{ name, request, more string }{
		{"a body", "POST / HTTP/1.1\r\nHost: web.test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", "1\r\nb\r\n"},
		{"a change of protocol", "GET / HTTP/1.1\r\nHost: web.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\na", "b"},
	} {
		for _, to := range []string{webAllowed, elsewhere} {
			t.Run(fmt.Sprint(test.name, " elsewhere ", to == elsewhere), func(t *testing.T) {
				l := newLab(t, webAllowed)
				got := make(chan byte, 1)
				l.upstream(func(c *net.TCPConn) {
					defer close(got)
					in := bufio.NewReader(c)
					r, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					body := bufio.NewReader(r.Body)
					if r.Header.Get("Upgrade") != "" {
						io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
						body = in
					}
					for {
						b, err := body.ReadByte()
						if err != nil {
							return
						}
						got <- b
					}
				})
				conn := l.dial(l.synthetic("web.test"))
				io.WriteString(conn, test.request)
				if b := <-got; b != 'a' {
					t.Fatalf("the upstream got %q", b)
				}
				l.reload(to)
				io.WriteString(conn, test.more)
				if b, goesOn := <-got; goesOn != (to == webAllowed) {
					t.Errorf("after the change the upstream got %q, %v", b, goesOn)
				}
				conn.Close()
				for _, r := range l.closes() {
					if to == elsewhere && r.Reason != "the policy has changed: address ::1 is not one that the rule names" {
						t.Errorf("closed with %q", r.Reason)
					}
				}
			})
		}
	}
}

// TestPolicyChangeBeforeUse: a change between the decision about a request and the
// choice of an upstream that is open already counts for that upstream.
func TestPolicyChangeBeforeUse(t *testing.T) {
	l := newLab(t, webAllowed)
	l.upstream(echo)
	c, err := net.DialTimeout("tcp6", fmt.Sprintf("[::1]:%d", l.port), patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	h := &httpConn{conn: &conn{s: l.server, tcp: l.dial(l.synthetic("web.test"))}}
	h.nowServing(question{Request: policy.Request{Protocol: policy.HTTP, Name: mustName(t, "web.test"), Port: uint16(l.port)}}, true)
	u := &httpUpstream{addr: addrOf(c.RemoteAddr()), stream: stream{tcp: c.(*net.TCPConn), buffers: &l.server.buffers}}
	l.reload(strings.Replace(webAllowed, "::1", "10.1.2.3", 1))
	h.stale.Store(true)
	_, isDenied := errors.AsType[*denied](h.use(u))
	if _, err := c.Write([]byte("x")); !isDenied || !errors.Is(err, net.ErrClosed) || h.current != nil {
		t.Errorf("denied %v, and then %v", isDenied, err)
	}
}

// TestPolicyChangeDuringDial: a connection that is being made when the policy
// changes is decided by the new one.
func TestPolicyChangeDuringDial(t *testing.T) {
	l := newLab(t, bothAllowed)
	l.upstream(func(c *net.TCPConn) { io.Copy(c, c) })
	q := question{Request: policy.Request{Protocol: policy.TCP, Name: mustName(t, "raw.test"), Port: uint16(l.port)}}
	ended := make(chan string, 1)
	l.server.SetPolicy(nil) // after it was allowed, before it is watched
	release := l.server.watch(&allowed{
		question: func() (question, bool) { return q, true }, changed: func() {},
		end: func(r *revoked) { ended <- r.Error() },
	})
	defer release()
	select {
	case reason := <-ended:
		if reason != "the policy has changed: no policy allows anything" {
			t.Errorf("ended with %q", reason)
		}
	default:
		t.Error("not ended")
	}
}

// TestDeniedWhileItWaits: a policy that changes between the decision and the
// connection denies at the last moment. The trail says so, and has an end.
func TestDeniedWhileItWaits(t *testing.T) {
	l := newLab(t, bothAllowed)
	l.upstream(func(*net.TCPConn) { t.Error("the upstream was reached") })
	for range cap(l.server.pending) { // nobody may dial
		l.server.pending <- struct{}{}
	}
	conn := l.dial(l.synthetic("raw.test"))
	for deadline := time.Now().Add(patience); len(tcpRecords(t, l)) == 0; <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no decision")
		}
	}
	l.reload(nothing)
	for range cap(l.server.pending) {
		<-l.server.pending
	}
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the connection goes on")
	}
	l.stop()
	var trail []string
	for _, r := range tcpRecords(t, l) {
		trail = append(trail, strings.TrimSpace(fmt.Sprint(r.Kind, " ", r.Verdict, " ", r.Conn)))
	}
	id := tcpRecords(t, l)[0].Conn
	want := []string{fmt.Sprint("decision allow ", id), fmt.Sprint("close  ", id), fmt.Sprint("decision deny ", id)}
	if diff := cmp.Diff(want, trail); diff != "" {
		t.Error(diff)
	}
}

func tcpRecords(t *testing.T, l *lab) (found []record.Record) {
	for _, r := range readRecords(t, l.log) {
		if r.Protocol == "tcp" {
			found = append(found, r)
		}
	}
	return found
}
