package proxy

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestAnswers: what an agent gets of an answer, byte by byte.
func TestAnswers(t *testing.T) {
	const get, old, head = "GET / HTTP/1.1$Host: good.test$Connection: close$$", "GET / HTTP/1.0$Host: good.test$$", "HEAD / HTTP/1.1$Host: good.test$Connection: close$$"
	for _, test := range []struct{ name, request, answer, want string }{
		{
			"a length", get, "HTTP/1.1 200 Fine$Content-Length: 5$X:  y $Connection: x-hop$X-Hop: 1$Keep-Alive: 5$$hello",
			"HTTP/1.1 200 Fine$X: y$Content-Length: 5$Connection: close$$hello",
		},
		{
			"a length for HTTP/1.0", old, "HTTP/1.1 200 OK$Content-Length: 5$$hello",
			"HTTP/1.0 200 OK$Content-Length: 5$Connection: close$$hello",
		},
		{
			"a length for HTTP/1.0 that goes on", strings.Replace(old, "$$", "$Connection: keep-alive$$", 1), "HTTP/1.1 200 OK$Content-Length: 5$$hello",
			"HTTP/1.0 200 OK$Content-Length: 5$Connection: keep-alive$$hello",
		},
		{"no length of nothing", get, "HTTP/1.1 200$Content-Length: 0$$", "HTTP/1.1 200 $Content-Length: 0$Connection: close$$"},
		{
			"more than the length", get, "HTTP/1.1 200 OK$Content-Length: 5$$hello, and HTTP/1.1 200 OK$$",
			"HTTP/1.1 200 OK$Content-Length: 5$Connection: close$$hello",
		},
		{
			"chunks", get, "HTTP/1.1 200 OK$Transfer-Encoding: chunked$Trailer: X-T$$2;x$he$003$llo$0$X-T:  1$$",
			"HTTP/1.1 200 OK$Trailer: X-T$Transfer-Encoding: chunked$Connection: close$$5$hello$0$X-T: 1$$",
		},
		{"chunks for HTTP/1.0", old, "HTTP/1.1 200 OK$Transfer-Encoding: chunked$$2$he$3$llo$0$X-T: 1$$", "HTTP/1.0 200 OK$Connection: close$$hello"},
		{"until the end", get, "HTTP/1.1 200 OK$$hello", "HTTP/1.1 200 OK$Transfer-Encoding: chunked$Connection: close$$5$hello$0$$"},
		{"until the end for HTTP/1.0", old, "HTTP/1.0 200 OK$$hello", "HTTP/1.0 200 OK$Connection: close$$hello"},
		{"nothing until the end", get, "HTTP/1.0 200 OK$$", "HTTP/1.1 200 OK$Transfer-Encoding: chunked$Connection: close$$0$$"},
		{"HEAD with a length", head, "HTTP/1.1 200 OK$Content-Length: 5$$", "HTTP/1.1 200 OK$Content-Length: 5$Connection: close$$"},
		{"HEAD with chunks", head, "HTTP/1.1 200 OK$Transfer-Encoding: chunked$$", "HTTP/1.1 200 OK$Connection: close$$"},
		{"HEAD with a body", head, "HTTP/1.1 200 OK$Content-Length: 5$$hello", "HTTP/1.1 200 OK$Content-Length: 5$Connection: close$$"},
		{"204", get, "HTTP/1.1 204 No Content$Content-Length: 5$$hello", "HTTP/1.1 204 No Content$Connection: close$$"},
		{"304", get, "HTTP/1.1 304 Not Modified$Content-Length: 5$$", "HTTP/1.1 304 Not Modified$Content-Length: 5$Connection: close$$"},
		{
			"interim answers", get, "HTTP/1.1 100 Continue$$HTTP/1.1 103 Early Hints$Link: x$Content-Length: 3$$HTTP/1.1 200 OK$Content-Length: 2$$ok",
			"HTTP/1.1 100 Continue$$HTTP/1.1 103 Early Hints$Link: x$$HTTP/1.1 200 OK$Content-Length: 2$Connection: close$$ok",
		},
		{
			"interim answers for HTTP/1.0", old, "HTTP/1.1 100 Continue$$HTTP/1.1 200 OK$Content-Length: 2$$ok",
			"HTTP/1.0 200 OK$Content-Length: 2$Connection: close$$ok",
		},
		{"a twofold length", get, "HTTP/1.1 200 OK$Content-Length: 2$Content-Length: 2$$ok", "HTTP/1.1 200 OK$Content-Length: 2$Connection: close$$ok"},

		{"two lengths", get, "HTTP/1.1 200 OK$Content-Length: 2$Content-Length: 3$$ok!", "502 the response is malformed: two Content-Length fields"},
		{"a length beside chunks", get, "HTTP/1.1 200 OK$Content-Length: 2$Transfer-Encoding: chunked$$0$$", "502 the response is malformed: both Content-Length and Transfer-Encoding"},
		{"another coding", get, "HTTP/1.1 200 OK$Transfer-Encoding: gzip, chunked$$0$$", "502 the response is malformed: a Transfer-Encoding other than chunked"},
		{"a folded line", get, "HTTP/1.1 200 OK$X: a$ b$Content-Length: 2$$ok", "502 the response is malformed: the name of a field"},
		{"a bare line feed", get, "HTTP/1.1 200 OK$X: a\nSet-Cookie: b$Content-Length: 2$$ok", "502 the response is malformed: a line that does not end in CR LF"},
		{"no HTTP", get, "SSH-2.0-x$", "502 it closed the connection instead of answering"},
		{"HTTP/2", get, "HTTP/2 200 OK$$", "502 the response is malformed: a version other than HTTP/1.0 and HTTP/1.1"},
		{"nothing", get, "", "502 it closed the connection instead of answering"},
		{"half a head", get, "HTTP/1.1 200 OK$Content-Le", "502 it closed the connection instead of answering"},
		{"a change that nobody asked for", get, "HTTP/1.1 101 Switching Protocols$Upgrade: websocket$Connection: Upgrade$$", "502 the response is malformed: a change of protocol that nobody asked for"},
		{"interim answers without end", get, strings.Repeat("HTTP/1.1 102 Processing$$", maxInterims+1), "502 the response is malformed: too many interim answers"},
		{"a long head", get, "HTTP/1.1 200 OK$X: " + strings.Repeat("x", maxResponseHead) + "$$", "502 the response is malformed: the head is too long"},
		{"a bad chunk", get, "HTTP/1.1 200 OK$Transfer-Encoding: chunked$$+5$hello$0$$", "reset"},
		{"half a chunk", get, "HTTP/1.1 200 OK$Transfer-Encoding: chunked$$5$he", "reset"},
		{"half a length", get, "HTTP/1.1 200 OK$Content-Length: 5$$he", "reset"},
		{"half a chunk for HTTP/1.0", old, "HTTP/1.1 200 OK$Transfer-Encoding: chunked$$5$he", "reset"},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLab(t, httpPolicy)
			l.upstream(func(c *net.TCPConn) {
				http.ReadRequest(bufio.NewReader(c))
				io.WriteString(c, strings.ReplaceAll(test.answer, "$", "\r\n"))
				c.CloseWrite()
				io.Copy(io.Discard, c)
			})
			conn := l.dial(l.synthetic("good.test"))
			io.WriteString(conn, strings.ReplaceAll(test.request, "$", "\r\n"))
			conn.CloseWrite()
			data, err := io.ReadAll(conn)
			got := string(data)
			if err != nil {
				got = "reset"
			} else if strings.HasPrefix(test.want, "502 ") {
				if i := strings.Index(got, "reason: \""); i >= 0 && strings.HasPrefix(got, "HTTP/1.1 502 ") {
					got, _, _ = strings.Cut("502 "+got[i+len("reason: \""):], "\"")
				}
			}
			if interims := strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", maxInterims); strings.HasPrefix(string(data), interims) {
				got = test.want // what follows is covered by the rest
			}
			if diff := cmp.Diff(strings.ReplaceAll(test.want, "$", "\r\n"), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// webServer serves requests one after the other, and counts connections.
type webServer struct {
	conns  atomic.Int32
	asked  atomic.Int32
	answer func(c *net.TCPConn, conn, request int, r *http.Request) (more bool)
}

func (s *webServer) serve(c *net.TCPConn) {
	n := int(s.conns.Add(1))
	in := bufio.NewReader(c)
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		io.Copy(io.Discard, r.Body)
		if !s.answer(c, n, int(s.asked.Add(1)), r) {
			return
		}
	}
}

const okAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// TestAnswerBelongsToItsRequest: what a server sends beyond an answer, with it or
// later, is the answer to nothing.
func TestAnswerBelongsToItsRequest(t *testing.T) {
	const forged = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
	for name, extra := range map[string]func(c *net.TCPConn, read <-chan struct{}){
		"at once": func(c *net.TCPConn, _ <-chan struct{}) { io.WriteString(c, okAnswer+forged) },
		"later": func(c *net.TCPConn, read <-chan struct{}) {
			io.WriteString(c, okAnswer)
			<-read
			io.WriteString(c, forged)
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, httpPolicy)
			read, sent := make(chan struct{}), make(chan struct{}, 2)
			server := &webServer{answer: func(c *net.TCPConn, _, _ int, _ *http.Request) bool {
				extra(c, read)
				sent <- struct{}{}
				return true
			}}
			l.upstream(server.serve)
			conn := l.dial(l.synthetic("good.test"))
			in := bufio.NewReader(conn)
			for i := range 2 {
				io.WriteString(conn, "GET / HTTP/1.1\r\nHost: good.test\r\n\r\n")
				r, err := http.ReadResponse(in, nil)
				if err != nil {
					t.Fatal(err)
				}
				if body, _ := io.ReadAll(r.Body); string(body) != "ok" {
					t.Errorf("request %d gets %q", i, body)
				}
				if i == 0 {
					close(read)
				}
				<-sent
			}
			if n := server.conns.Load(); n != 2 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// TestReusesUpstream: requests of one connection share one to the server, until
// that says otherwise or has closed it.
func TestReusesUpstream(t *testing.T) {
	for _, test := range []struct {
		name, second string
		answer       func(c *net.TCPConn, conn, request int, r *http.Request) bool
		statuses     []int
		conns, asked int32
	}{
		{"kept", "GET", func(c *net.TCPConn, _, _ int, _ *http.Request) bool { io.WriteString(c, okAnswer); return true }, []int{200, 200}, 1, 2},
		{"announced", "POST", func(c *net.TCPConn, _, _ int, _ *http.Request) bool {
			io.WriteString(c, strings.Replace(okAnswer, "\r\n", "\r\nConnection: close\r\n", 1))
			return true
		}, []int{200, 200}, 2, 2},
		{"closed without a word", "POST", func(c *net.TCPConn, _, _ int, _ *http.Request) bool { io.WriteString(c, okAnswer); return false }, []int{200, 200}, 2, 2},
		{"closed at the second request", "GET", func(c *net.TCPConn, _, request int, _ *http.Request) bool {
			if request != 2 {
				io.WriteString(c, okAnswer)
			}
			return request != 2
		}, []int{200, 200}, 2, 3},
		{"closed at the second request, which must not be repeated", "POST", func(c *net.TCPConn, _, request int, _ *http.Request) bool {
			if request != 2 {
				io.WriteString(c, okAnswer)
			}
			return request != 2
		}, []int{200, 502}, 1, 2},
		{"closed within the second answer", "GET", func(c *net.TCPConn, _, request int, _ *http.Request) bool {
			if request == 2 {
				io.WriteString(c, "HTTP/1.1 2")
				return false
			}
			io.WriteString(c, okAnswer)
			return true
		}, []int{200, 502}, 1, 2},
		{"closed at every request", "GET", func(c *net.TCPConn, _, request int, _ *http.Request) bool {
			if request == 1 {
				io.WriteString(c, okAnswer)
			}
			return request == 1
		}, []int{200, 502}, 2, 3},
		{"a body that nobody expects", "GET body", func(c *net.TCPConn, _, _ int, _ *http.Request) bool { io.WriteString(c, okAnswer); return true }, []int{200, 200, 200}, 2, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLab(t, httpPolicy)
			closed := make(chan struct{}, 4)
			server := &webServer{answer: test.answer}
			l.upstream(func(c *net.TCPConn) {
				server.serve(c)
				c.Close()
				closed <- struct{}{}
			})
			conn := l.dial(l.synthetic("good.test"))
			var got []int
			for i := range test.statuses {
				request := "GET / HTTP/1.1\r\nHost: good.test\r\n\r\n"
				if method, _, ok := strings.Cut(test.second, " "); i > 0 {
					request = strings.Replace(request, "GET", method, 1)
					if ok && i == 1 {
						request = strings.Replace(request, "\r\n\r\n", "\r\nContent-Length: 4\r\n\r\nbody", 1)
					}
				}
				statuses, bodies := exchange(t, conn, request, 1)
				if got = append(got, statuses...); len(statuses) == 0 {
					t.Fatalf("no answer to request %d: %q", i, bodies)
				}
				if test.name == "closed without a word" && i == 0 {
					<-closed
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(test.statuses) || server.conns.Load() != test.conns || server.asked.Load() != test.asked {
				t.Errorf("got %v by %d connections and %d requests", got, server.conns.Load(), server.asked.Load())
			}
		})
	}
}

// TestExpectContinue: the server's word decides whether the body is sent.
func TestExpectContinue(t *testing.T) {
	for _, willing := range []bool{true, false} {
		t.Run(fmt.Sprint(willing), func(t *testing.T) {
			l := newLab(t, httpPolicy)
			l.upstream(func(c *net.TCPConn) {
				in := bufio.NewReader(c)
				r, err := http.ReadRequest(in)
				if err != nil || r.Header.Get("Expect") != "100-continue" {
					return
				}
				if !willing {
					io.WriteString(c, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
					io.Copy(io.Discard, in)
					return
				}
				io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
				body, _ := io.ReadAll(r.Body)
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
			})
			conn := l.dial(l.synthetic("good.test"))
			io.WriteString(conn, "POST / HTTP/1.1\r\nHost: good.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
			in := bufio.NewReader(conn)
			line, _ := in.ReadString('\n')
			if !willing {
				if rest, err := io.ReadAll(in); !strings.HasPrefix(line, "HTTP/1.1 401") || !strings.Contains(string(rest), "Connection: close") || err != nil {
					t.Errorf("got %q%q, %v", line, rest, err)
				}
				return
			}
			if blank, _ := in.ReadString('\n'); line != "HTTP/1.1 100 Continue\r\n" || blank != "\r\n" {
				t.Fatalf("got %q%q", line, blank)
			}
			io.WriteString(conn, "body")
			r, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			if body, _ := io.ReadAll(r.Body); string(body) != "body" || r.Close {
				t.Errorf("got %q of %+v", body, r)
			}
		})
	}
}

// TestEarlyAnswer: a server that answers before it has read the body is heard, and
// what is left of the body is not taken for a request.
func TestEarlyAnswer(t *testing.T) {
	l := newLab(t, httpPolicy)
	l.upstream(func(c *net.TCPConn) {
		http.ReadRequest(bufio.NewReaderSize(c, 1))
		io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
		io.Copy(io.Discard, c)
	})
	conn := l.dial(l.synthetic("good.test"))
	fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: good.test\r\nContent-Length: %d\r\n\r\n", 64<<20)
	go func() {
		for {
			if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: other.test\r\n\r\n"); err != nil {
				return
			}
		}
	}()
	r, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, _ := io.ReadAll(r.Body); r.StatusCode != 413 || string(body) != "no" || !r.Close {
		t.Errorf("got %q of %+v", body, r)
	}
	conn.Close()
	checkRecords(t, l.records(), []string{
		"decision allow dns good.test: a rule allows it",
		"decision allow http good.test: a rule allows it",
		"close http good.test",
	})
}

// TestStreams: both directions at once, and each piece as it comes.
func TestStreams(t *testing.T) {
	l := newLab(t, httpPolicy)
	l.upstream(func(c *net.TCPConn) {
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
		buf := make([]byte, 16)
		for {
			n, err := r.Body.Read(buf)
			if n > 0 {
				fmt.Fprintf(c, "%x\r\n%s\r\n", n, buf[:n])
			}
			if err != nil {
				io.WriteString(c, "0\r\n\r\n")
				return
			}
		}
	})
	conn := l.dial(l.synthetic("good.test"))
	io.WriteString(conn, "POST / HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: chunked\r\n\r\n")
	var r *http.Response
	for i := range 5 {
		piece := fmt.Sprintf("piece %d", i)
		fmt.Fprintf(conn, "%x\r\n%s\r\n", len(piece), piece)
		if r == nil {
			var err error
			if r, err = http.ReadResponse(bufio.NewReader(conn), nil); err != nil {
				t.Fatal(err)
			}
		}
		got := make([]byte, len(piece))
		if _, err := io.ReadFull(r.Body, got); err != nil || string(got) != piece {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	io.WriteString(conn, "0\r\n\r\n")
	if rest, err := io.ReadAll(r.Body); len(rest) > 0 || err != nil {
		t.Errorf("at the end %q, %v", rest, err)
	}
}

// TestBigBodies: large bodies arrive whole in both directions, spliced or in chunks,
// and are counted to the byte.
func TestBigBodies(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 300<<10) // 4.7 MiB
	sum := sha256.Sum256(content)
	for _, chunked := range []bool{false, true} {
		t.Run(fmt.Sprint("chunked ", chunked), func(t *testing.T) {
			l := newLab(t, httpPolicy)
			var down atomic.Int64
			l.upstream(func(c *net.TCPConn) {
				in := bufio.NewReader(c)
				for {
					r, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					body, err := io.ReadAll(r.Body)
					if err != nil || sha256.Sum256(body) != sum {
						return
					}
					answer := &http.Response{StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1, Body: io.NopCloser(bytes.NewReader(content)), ContentLength: int64(len(content))}
					if chunked {
						answer.ContentLength, answer.TransferEncoding = -1, []string{"chunked"}
					}
					var wire bytes.Buffer
					answer.Write(&wire)
					n, _ := c.Write(wire.Bytes())
					down.Add(int64(n))
				}
			})
			conn := l.dial(l.synthetic("good.test"))
			in := bufio.NewReader(conn)
			for i := range 3 {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://good.test/", bytes.NewReader(content))
				if err != nil {
					t.Fatal(err)
				}
				if chunked {
					r.ContentLength = -1
				}
				if err := r.Write(conn); err != nil {
					t.Fatal(err)
				}
				a, err := http.ReadResponse(in, r)
				if err != nil {
					t.Fatal(err)
				}
				if body, err := io.ReadAll(a.Body); err != nil || sha256.Sum256(body) != sum || a.Close {
					t.Fatalf("answer %d has %d bytes, %v", i, len(body), err)
				}
			}
			conn.Close()
			l.waitOpen(0)
			closes := l.closes()
			if len(closes) != 1 || closes[0].BytesDown != down.Load() || closes[0].BytesUp < 3*int64(len(content)) || closes[0].Reason != "" {
				t.Errorf("%d down, %+v", down.Load(), closes)
			}
			if len(l.server.splices) != 0 {
				t.Error("splices are still counted")
			}
		})
	}
}

// TestHTTPTimes: a connection that asks for nothing more ends in order, and one
// whose head does not end does too.
func TestHTTPTimes(t *testing.T) {
	for _, test := range []struct{ name, text, more, want string }{
		{"between requests", "GET / HTTP/1.1\r\nHost: good.test\r\n\r\n", "", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"},
		{"within the second head", "GET / HTTP/1.1\r\nHost: good.test\r\n\r\nGET /", "X", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"},
		{"within the first head", "GET / HTTP/1.1\r\nHost:", " ", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLab(t, httpPolicy, withChange(func(s *Server) { s.timeouts.keep, s.timeouts.head = 200*time.Millisecond, 200*time.Millisecond }))
			server := &webServer{answer: func(c *net.TCPConn, _, _ int, _ *http.Request) bool { io.WriteString(c, okAnswer); return true }}
			l.upstream(server.serve)
			conn := l.dial(l.synthetic("good.test"))
			io.WriteString(conn, test.text)
			go func() { // byte by byte it is no faster
				for test.more != "" {
					if _, err := io.WriteString(conn, test.more); err != nil {
						return
					}
					<-time.After(20 * time.Millisecond)
				}
			}()
			got, _ := io.ReadAll(conn)
			if string(got) != test.want {
				t.Errorf("got %q", got)
			}
			for _, r := range l.closes() {
				if r.Reason != "" {
					t.Errorf("closed with %q", r.Reason)
				}
			}
		})
	}
}

// TestLongHead: a head that does not fit is refused.
func TestLongHead(t *testing.T) {
	l := newLab(t, httpPolicy)
	sink := &webSink{}
	l.upstream(sink.serve)
	for size, want := range map[int]int{maxRequestHead - 100: 200, maxRequestHead: 400} {
		conn := l.dial(l.synthetic("good.test"))
		statuses, bodies := exchange(t, conn, "GET / HTTP/1.1\r\nHost: good.test\r\nX: "+strings.Repeat("x", size)+"\r\n\r\n", 1)
		if len(statuses) != 1 || statuses[0] != want {
			t.Errorf("%d bytes: got %v %.300q", size, statuses, bodies)
		}
		conn.Close()
	}
}

// TestKeepsBusyConnection: waiting for long, between requests and within one, does
// no harm to what follows.
func TestKeepsBusyConnection(t *testing.T) {
	l := newLab(t, httpPolicy)
	server := &webServer{answer: func(c *net.TCPConn, _, _ int, _ *http.Request) bool {
		<-time.After(2 * lullAfter)
		io.WriteString(c, okAnswer)
		return true
	}}
	l.upstream(server.serve)
	conn := l.dial(l.synthetic("good.test"))
	for i := range 3 {
		if statuses, _ := exchange(t, conn, "GET / HTTP/1.1\r\nHost: good.test\r\n\r\n", 1); fmt.Sprint(statuses) != "[200]" {
			t.Fatalf("request %d gets %v", i, statuses)
		}
		<-time.After(2 * lullAfter)
	}
	if n := server.conns.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestAgentLeaves: an agent that resets its connection ends what is done for it,
// whatever that is.
func TestAgentLeaves(t *testing.T) {
	for _, test := range []struct {
		name, text string
		host       string
	}{
		{"while a name is resolved", "GET / HTTP/1.1\r\nHost: slow.test\r\n\r\n", "slow.test"},
		{"while the server is silent", "GET / HTTP/1.1\r\nHost: good.test\r\n\r\n", "good.test"},
		{"within a body", "POST / HTTP/1.1\r\nHost: good.test\r\nContent-Length: 10\r\n\r\nbody", "good.test"},
		{"within a large body", "POST / HTTP/1.1\r\nHost: good.test\r\nContent-Length: 10000000\r\n\r\nbody", "good.test"},
		{"within chunks", "POST / HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbo", "good.test"},
	} {
		t.Run(test.name, func(t *testing.T) {
			release := make(chan struct{})
			defer close(release)
			asked := make(chan struct{}, 8)
			slow := newAuthority(t, func(string) []netip.Addr { asked <- struct{}{}; <-release; return nil })
			l := newLab(t, httpPolicy+"    - {allow: slow.test, ports: [PORT], protocol: http}\n", withResolver(slow))
			ends := make(chan bool, 1)
			l.upstream(func(c *net.TCPConn) {
				http.ReadRequest(bufio.NewReaderSize(c, 1))
				asked <- struct{}{}
				_, err := io.Copy(io.Discard, c)
				ends <- err != nil
			})
			conn := l.dial(l.synthetic(test.host))
			io.WriteString(conn, test.text)
			<-asked
			abort(conn)
			l.waitOpen(0)
			if test.host == "good.test" && !<-ends {
				t.Error("the server sees an end in order")
			}
			if closes := l.closes(); len(closes) != 1 || closes[0].Reason != errAgentGone.Error() {
				t.Errorf("closes %v", closes)
			}
		})
	}
}

// TestBudgetWithinBody: what crosses a budget after the head has left does not
// leave, and the agent is told.
func TestBudgetWithinBody(t *testing.T) {
	l, _ := budgetLab(t, "http", "{up: 1KiB/1h}")
	sink := &webSink{}
	l.upstream(sink.serve)
	conn := l.dial(l.synthetic("a.raw.test"))
	io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a.raw.test\r\nContent-Length: 5000\r\n\r\n")
	for deadline := time.Now().Add(patience); sink.saw() == "" && time.Now().Before(deadline); {
		<-time.After(time.Millisecond)
	}
	statuses, bodies := exchange(t, conn, strings.Repeat("x", 5000), 1)
	if fmt.Sprint(statuses) != "[429]" || !strings.Contains(bodies[0], "the rule's budget is used up: up 1KiB/1h") {
		t.Errorf("got %v %q", statuses, bodies)
	}
	l.waitOpen(0)
	if closes := l.closes(); len(closes) != 1 || closes[0].BytesUp != 1<<10 || closes[0].Reason != "the rule's budget is used up: up 1KiB/1h" {
		t.Errorf("closes %v", closes)
	}
}

// TestBudgetOfRepeated: a request that leaves twice is counted twice.
func TestBudgetOfRepeated(t *testing.T) {
	for most, want := range map[int]string{2: "[200 429] after 2", 3: "[200 200] after 3"} {
		t.Run(want, func(t *testing.T) {
			l, _ := budgetLab(t, "http", fmt.Sprintf("{requests: %d/1h}", most))
			server := &webServer{answer: func(c *net.TCPConn, _, request int, _ *http.Request) bool {
				if request != 2 {
					io.WriteString(c, okAnswer)
				}
				return request != 2
			}}
			l.upstream(server.serve)
			conn := l.dial(l.synthetic("a.raw.test"))
			var statuses []int
			for range 2 {
				got, _ := exchange(t, conn, "GET / HTTP/1.1\r\nHost: a.raw.test\r\n\r\n", 1)
				statuses = append(statuses, got...)
			}
			if got := fmt.Sprint(statuses, " after ", server.asked.Load()); got != want {
				t.Errorf("got %s requests", got)
			}
		})
	}
}

// TestManyHosts: a connection keeps few others open, each for its own host.
func TestManyHosts(t *testing.T) {
	l := newLab(t, "version: 1\nnetwork: {rules: [{allow: \"*.web.test\", ports: [PORT], protocol: http, addresses: [\"::1\"]}]}\n")
	hosts := make(chan string, 16)
	server := &webServer{answer: func(c *net.TCPConn, conn, _ int, r *http.Request) bool {
		hosts <- fmt.Sprint(conn, r.Host)
		io.WriteString(c, okAnswer)
		return true
	}}
	l.upstream(server.serve)
	conn := l.dial(literal)
	var got []string
	for _, host := range []string{"a", "b", "a", "c", "a", "b", "c"} {
		if statuses, bodies := exchange(t, conn, "GET / HTTP/1.1\r\nHost: "+host+".web.test\r\n\r\n", 1); fmt.Sprint(statuses) != "[200]" {
			t.Fatalf("%s gets %v %q", host, statuses, bodies)
		}
		got = append(got, strings.TrimSuffix(<-hosts, ".web.test"))
	}
	if diff := cmp.Diff([]string{"1a", "2b", "1a", "3c", "1a", "4b", "5c"}, got); diff != "" {
		t.Errorf("connections and hosts (-want +got):\n%s", diff)
	}
}

// TestHTTPTimesNobodyReads: an agent that does not read what it asked for has no more time than others, whatever it
// keeps the proxy from sending.
func TestHTTPTimesNobodyReads(t *testing.T) {
	long := "X: " + strings.Repeat("x", maxResponseHead-200) + "\r\n\r\n"
	for _, test := range []struct{ name, request, answer string }{
		{"an answer", "GET / HTTP/1.1\r\nHost: good.test\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n" + long},
		{"an interim answer", "GET / HTTP/1.1\r\nHost: good.test\r\n\r\n", strings.Repeat("HTTP/1.1 103 Early Hints\r\n"+long, maxInterims-1)},
		{"a change of protocol", "GET / HTTP/1.1\r\nHost: good.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + long},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLab(t, httpPolicy, func(_ *Config, l *lab) { l.idle = 200 * time.Millisecond })
			l.upstream(func(c *net.TCPConn) {
				http.ReadRequest(bufio.NewReader(c))
				io.WriteString(c, test.answer)
				io.Copy(c, zeros{})
			})
			// Segments as short as on a real link: the kernel makes its buffers by that.
			dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) (err error) {
				return errors.Join(raw.Control(func(fd uintptr) {
					err = errors.Join(syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 536), syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 2048))
				}), err)
			}}
			conn, err := dialer.DialContext(t.Context(), "tcp4", net.JoinHostPort(l.synthetic("good.test"), fmt.Sprint(l.port)))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			io.WriteString(conn, test.request)
			l.waitOpen(1)
			l.waitOpen(0)
			if closes := l.closes(); len(closes) != 1 || closes[0].Reason != errIdle.Error() {
				t.Errorf("closes %v", closes)
			}
		})
	}
}
