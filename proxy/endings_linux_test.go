package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/proxy/policy"
)

// TestEndings: however a tunnel ends, its record has the bytes of both
// directions and says why.
func TestEndings(t *testing.T) {
	const up, down = 300_000, 400_000 // enough to be spliced
	type ends struct {
		l               *lab
		agent, upstream *net.TCPConn
	}
	for _, test := range []struct {
		name   string
		end    func(e ends)
		change func(*Server)
		want   string // of the reason
	}{
		{"the agent first, in order", func(e ends) { e.agent.CloseWrite(); ended(t, e.upstream); e.upstream.Close() }, nil, ""},
		{"the upstream first, in order", func(e ends) { e.upstream.CloseWrite(); ended(t, e.agent); e.agent.Close() }, nil, ""},
		{"reset by the agent", func(e ends) { abort(e.agent) }, nil, "connection reset by peer"},
		{"reset by the upstream", func(e ends) { abort(e.upstream) }, nil, "connection reset by peer"},
		{"reset by the agent after its half", func(e ends) {
			e.agent.CloseWrite()
			ended(t, e.upstream)
			abort(e.agent)
			e.upstream.Write(make([]byte, 1))
		}, nil, "*"},
		{"idle", func(ends) {}, func(s *Server) { s.timeouts.idle = 100 * time.Millisecond }, errIdle.Error()},
		{"open for too long", func(ends) {}, func(s *Server) { s.timeouts.total = 300 * time.Millisecond }, errTotal.Error()},
		{"the server stops", func(e ends) { e.l.stop() }, nil, errStopped.Error()},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLab(t, tcpPolicy, withChange(test.change))
			accepted := make(chan *net.TCPConn, 1)
			hold := make(chan struct{})
			l.upstream(func(c *net.TCPConn) { accepted <- c; <-hold })
			defer close(hold)
			agent := l.dial(l.synthetic("raw.test"))
			agent.Write(make([]byte, up))
			upstream := <-accepted
			if _, err := io.CopyN(io.Discard, upstream, up); err != nil {
				t.Fatal(err)
			}
			upstream.Write(make([]byte, down))
			if _, err := io.CopyN(io.Discard, agent, down); err != nil {
				t.Fatal(err)
			}
			test.end(ends{l, agent, upstream})
			if !ended(t, agent) {
				t.Error("the agent gets more bytes")
			}
			l.waitOpen(0)
			closes := l.closes()
			if len(closes) != 1 {
				t.Fatalf("%d closes", len(closes))
			}
			r := closes[0]
			late := int64(0)
			if test.want == "*" { // the byte may be counted or not: the kernel decides
				late = r.BytesDown - down
				if late != 0 && late != 1 {
					t.Errorf("%d bytes too many", late)
				}
			} else if !strings.Contains(r.Reason, test.want) || (test.want == "") != (r.Reason == "") {
				t.Errorf("reason %q, want %q", r.Reason, test.want)
			}
			if r.BytesUp != up || r.BytesDown != down+late {
				t.Errorf("counted %d up, %d down", r.BytesUp, r.BytesDown)
			}
		})
	}
}

// TestHTTPEndings is the same for HTTP.
func TestHTTPEndings(t *testing.T) {
	const request = "GET / HTTP/1.1\r\nHost: good.test\r\n\r\n"
	const response = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
	for _, test := range []struct {
		name   string
		end    func(l *lab, agent, upstream *net.TCPConn)
		change func(*Server)
		want   string
	}{
		{"the agent resets", func(_ *lab, agent, _ *net.TCPConn) { abort(agent) }, nil, errAgentGone.Error()},
		{"the upstream resets", func(_ *lab, _, upstream *net.TCPConn) { abort(upstream) }, nil, "connection reset by peer"},
		{"the upstream stops early", func(_ *lab, _, upstream *net.TCPConn) { upstream.Close() }, nil, errBrokenOff.Error()},
		{"idle", func(*lab, *net.TCPConn, *net.TCPConn) {}, func(s *Server) { s.timeouts.idle = 100 * time.Millisecond }, errIdle.Error()},
		{"open for too long", func(*lab, *net.TCPConn, *net.TCPConn) {}, func(s *Server) { s.timeouts.total = 300 * time.Millisecond }, errTotal.Error()},
		{"the server stops", func(l *lab, _, _ *net.TCPConn) { l.stop() }, nil, errStopped.Error()},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLab(t, httpPolicy, withChange(test.change))
			accepted := make(chan *net.TCPConn, 1)
			hold := make(chan struct{})
			heads := make(chan string, 1)
			l.upstream(func(c *net.TCPConn) {
				var head strings.Builder
				in := bufio.NewReader(io.TeeReader(c, &head))
				http.ReadRequest(in)
				io.WriteString(c, response+"half")
				heads <- head.String()
				accepted <- c
				<-hold
			})
			defer close(hold)
			agent := l.dial(l.synthetic("good.test"))
			io.WriteString(agent, request)
			in := bufio.NewReader(agent)
			r, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(r.Body, make([]byte, 4)); err != nil {
				t.Fatal(err)
			}
			test.end(l, agent, <-accepted)
			if _, err := io.ReadAll(r.Body); err == nil {
				t.Error("the response ends in order")
			}
			l.waitOpen(0)
			closes := l.closes()
			if len(closes) != 1 || !strings.Contains(closes[0].Reason, test.want) {
				t.Fatalf("closes %v, want %q", closes, test.want)
			}
			if c := closes[0]; int(c.BytesUp) != len(<-heads) || int(c.BytesDown) != len(response)+4 {
				t.Errorf("counted %d up, %d down", c.BytesUp, c.BytesDown)
			}
		})
	}
}

// TestHTTPHalfClose: an agent that closes its half after the request gets the
// answer; one that goes away ends the request upstream.
func TestHTTPHalfClose(t *testing.T) {
	for _, test := range []struct {
		name, text string
		statuses   []int
	}{
		{"a request", "GET / HTTP/1.1\r\nHost: good.test\r\n\r\n", []int{200}},
		{"one that keeps the connection", "GET / HTTP/1.0\r\nHost: good.test\r\nConnection: keep-alive\r\n\r\n", []int{200}},
		{"a body", "POST / HTTP/1.1\r\nHost: good.test\r\nContent-Length: 4\r\n\r\nbody", []int{200}},
		{"pipelined", strings.Repeat("GET / HTTP/1.1\r\nHost: good.test\r\n\r\n", 3), []int{200, 200, 200}},
		{"half a body", "POST / HTTP/1.1\r\nHost: good.test\r\nContent-Length: 40\r\n\r\nbody", []int{400}},
		{"half a head", "GET / HTTP/1.1\r\nHost: go", []int{400}},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLab(t, httpPolicy)
			release := make(chan struct{})
			l.upstream(func(c *net.TCPConn) {
				<-release // the end of the agent's half is there before the answer
				(&webSink{}).serve(c)
			})
			conn := l.dial(l.synthetic("good.test"))
			io.WriteString(conn, test.text)
			conn.CloseWrite()
			go func() {
				l.waitAgentClosed(conn)
				close(release)
			}()
			statuses, bodies := exchange(t, conn, "", 4)
			if fmt.Sprint(statuses) != fmt.Sprint(test.statuses) {
				t.Errorf("got %v %q", statuses, bodies)
			}
		})
	}
	t.Run("gone", func(t *testing.T) {
		l := newLab(t, httpPolicy)
		cancelled := make(chan struct{})
		conns := make(chan *net.TCPConn, 1)
		l.upstream(func(c *net.TCPConn) {
			http.ReadRequest(bufio.NewReader(c))
			(<-conns).Close()
			if ended(t, c) {
				close(cancelled)
			}
		})
		conn := l.dial(l.synthetic("good.test"))
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: good.test\r\n\r\n")
		conn.SetLinger(0)
		conns <- conn
		select {
		case <-cancelled:
		case <-time.After(patience):
			t.Error("the upstream's request goes on")
		}
	})
}

// waitAgentClosed waits until the proxy's kernel has acknowledged the end of the
// agent's half.
func (l *lab) waitAgentClosed(conn *net.TCPConn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	const finWait2 = 5 // include/net/tcp_states.h
	for state := uint8(0); state != finWait2 && err == nil; {
		raw.Control(func(fd uintptr) {
			var info *unix.TCPInfo
			if info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
				state = info.State
			}
		})
		<-time.After(time.Millisecond)
	}
}

// TestKeepAlive: both sides of a connection are probed.
func TestKeepAlive(t *testing.T) {
	for _, protocol := range []policy.Protocol{policy.TCP, policy.HTTP} {
		t.Run(protocol.String(), func(t *testing.T) {
			text := tcpPolicy
			if protocol == policy.HTTP {
				text = strings.ReplaceAll(tcpPolicy, "protocol: tcp", "protocol: http")
			}
			l := newLab(t, text)
			reached := make(chan struct{})
			l.upstream(func(c *net.TCPConn) { close(reached); io.Copy(io.Discard, c) })
			conn := l.dial(l.synthetic("raw.test"))
			io.WriteString(conn, "GET / HTTP/1.1\r\nHost: raw.test\r\n\r\n")
			<-reached
			sides := 0
			for deadline := time.Now().Add(patience); sides != 2 && time.Now().Before(deadline); {
				sides = probed(l.port)
				<-time.After(time.Millisecond)
			}
			if sides != 2 {
				t.Errorf("%d sides are probed", sides)
			}
		})
	}
}

// probed counts the proxy's ends of connections that are probed as the proxy
// wants it.
func probed(port int) (n int) {
	for fd := 3; fd < 200; fd++ {
		local, err := unix.Getsockname(fd)
		if err != nil {
			continue
		}
		remote, err := unix.Getpeername(fd)
		if err != nil || !isEnd(local, remote, port) {
			continue
		}
		if count, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT); err == nil && count == keepAliveProbes.Count {
			n++
		}
	}
	return n
}

// isEnd reports whether a socket is one of the proxy's: the agent's connection is
// accepted at the port, the one to the upstream is made to it.
func isEnd(local, remote unix.Sockaddr, port int) bool {
	l4, ok := local.(*unix.SockaddrInet4)
	if ok {
		return l4.Port == port
	}
	r6, ok := remote.(*unix.SockaddrInet6)
	return ok && r6.Port == port
}
