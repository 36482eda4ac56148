package proxy

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestSmuggling tries to get a second request past the proxy within a first one, or
// to have the two sides see the end of one in different places. What is refused
// leaves nothing upstream that could be a request; what passes is one request there,
// whatever its body looks like.
func TestSmuggling(t *testing.T) {
	const evil = "GET /evil HTTP/1.1$Host: evil.test$$"
	evilLength := len(strings.ReplaceAll(evil, "$", "\r\n"))
	asBody := fmt.Sprintf("Content-Length: %d$$%s", evilLength, evil)
	asChunk := fmt.Sprintf("Transfer-Encoding: chunked$$%x$%s$0$$", evilLength, evil)
	for _, test := range []struct {
		name, text string // behind "POST / HTTP/1.1$Host: good.test$"
		statuses   []int
		passes     int // requests that the upstream sees
	}{
		{"control: a length", asBody, []int{200}, 1},
		{"control: chunks", asChunk, []int{200}, 1},
		{"control: two requests", "Content-Length: 0$$GET /next HTTP/1.1$Host: good.test$$", []int{200, 200}, 2},
		{"control: another host follows", "Content-Length: 0$$" + evil, []int{200, 403}, 1},

		{"CL.TE", "Content-Length: 6$Transfer-Encoding: chunked$$0$$G", []int{400}, 0},
		{"TE.CL", fmt.Sprintf("Transfer-Encoding: chunked$Content-Length: 4$$%x$%s$0$$", evilLength, evil), []int{400}, 0},
		{"CL.CL", "Content-Length: 0$" + asBody, []int{400}, 0},
		{"CL, CL", "Content-Length: 0, " + fmt.Sprint(evilLength) + "$$" + evil, []int{400}, 0},
		{"TE.TE", "Transfer-Encoding: chunked$Transfer-Encoding: identity$$0$$" + evil, []int{400}, 0},
		{"TE.TE: a list", "Transfer-Encoding: identity, chunked$$0$$" + evil, []int{400}, 0},
		{"TE with a tab", "Transfer-Encoding:\tchunked$$0$$" + evil, []int{200, 403}, 1},
		{"TE with a vertical tab", "Transfer-Encoding: \x0bchunked$$0$$" + evil, []int{400}, 0},
		{"TE with a parameter", "Transfer-Encoding: chunked;x=y$$0$$" + evil, []int{400}, 0},
		{"TE with a byte behind it", "Transfer-Encoding: chunked\x00$$0$$" + evil, []int{400}, 0},
		{"TE quoted", "Transfer-Encoding: 'chunked'$$0$$" + evil, []int{400}, 0},
		{"TE with a space before the colon", "Transfer-Encoding : chunked$" + asBody, []int{400}, 0},
		{"TE with a space before it", " Transfer-Encoding: chunked$" + asBody, []int{400}, 0},
		{"TE folded", "Transfer-Encoding:$ chunked$" + asBody, []int{400}, 0},
		{"TE behind a bare line feed", "X: y\nTransfer-Encoding: chunked$" + asBody, []int{400}, 0},
		{"TE behind a bare carriage return", "X: y\rTransfer-Encoding: chunked$" + asBody, []int{400}, 0},
		{"TE with an underscore", "Transfer_Encoding: chunked$" + asBody, []int{400}, 0},
		{"TE with a dot", "Transfer.Encoding: chunked$" + asBody, []int{400}, 0},
		{"CL with a tilde", "content~Length: 4$" + asBody, []int{400}, 0},
		{"control: a field as long as TE", "Transfer0Encoding: chunked$" + asBody, []int{200}, 1},
		{"TE with a byte that is no token's", "Transfer-Encoding\x80: chunked$" + asBody, []int{400}, 0},
		{"TE named by Connection", "Connection: Transfer-Encoding$" + asChunk, []int{400}, 0},
		{"CL named by Connection", "Connection: Content-Length$" + asBody, []int{400}, 0},
		{"Host named by Connection", "Connection: Host$Content-Length: 0$$", []int{400}, 0},
		{"CL with a sign", "Content-Length: +4$$body", []int{400}, 0},
		{"CL that overflows", "Content-Length: 18446744073709551620$$body", []int{400}, 0},
		{"CL in hexadecimal", "Content-Length: 0x4$$body", []int{400}, 0},
		{"CL with a space in it", "Content-Length: 1 0$$body", []int{400}, 0},
		{"CL.0: no framing", "$" + evil, []int{200, 403}, 1},
		{"a second Host", "Host: evil.test$Content-Length: 0$$", []int{400}, 0},
		{"a second Host folded", " Host: evil.test$Content-Length: 0$$", []int{400}, 0},

		{"a chunk size with a sign", "Transfer-Encoding: chunked$$+4$body$0$$", []int{400}, 0},
		{"a chunk size with a space", "Transfer-Encoding: chunked$$4 $body$0$$", []int{400}, 0},
		{"a chunk size with 0x", "Transfer-Encoding: chunked$$0x4$body$0$$", []int{400}, 0},
		{"a chunk size that overflows", "Transfer-Encoding: chunked$$10000000000000000$$" + evil, []int{400}, 0},
		{"chunks with bare line feeds", "Transfer-Encoding: chunked$$4\nbody\n0\n\n" + evil, []int{400}, 0},
		{"a chunk extension with a bare line feed", "Transfer-Encoding: chunked$$4;\nx$" + evil, []int{400}, 0},
		{"a chunk extension that looks like a chunk", "Transfer-Encoding: chunked$$4;0\"$body$0$$", []int{200}, 1},
		{"a chunk with another end", "Transfer-Encoding: chunked$$4$bodyXX0$$" + evil, []int{400}, 0},
		{"a trailer that frames", "Transfer-Encoding: chunked$$0$Content-Length: 4$$body", []int{400}, 0},
		{"a trailer that is a request", "Transfer-Encoding: chunked$$0$" + evil, []int{400}, 0},
		{"a trailer that is a Host", "Transfer-Encoding: chunked$$0$Host: evil.test$$", []int{400}, 0},
		{"behind the last chunk", "Transfer-Encoding: chunked$$0$$" + evil, []int{200, 403}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLab(t, httpPolicy)
			sink := &webSink{}
			l.upstream(sink.serve)
			text := strings.ReplaceAll("POST / HTTP/1.1$Host: good.test$"+test.text, "$", "\r\n")
			conn := l.dial(l.synthetic("good.test"))
			io.WriteString(conn, text)
			conn.CloseWrite()
			statuses, bodies := exchange(t, conn, "", 3)
			if fmt.Sprint(statuses) != fmt.Sprint(test.statuses) {
				t.Errorf("got %v %q", statuses, bodies)
			}
			conn.Close()
			l.stop()
			sink.mu.Lock()
			defer sink.mu.Unlock()
			for _, host := range sink.hosts {
				if host != "good.test" {
					t.Errorf("a request for %s has left", host)
				}
			}
			if len(sink.hosts) != test.passes {
				t.Errorf("%d requests have left, want %d: %q", len(sink.hosts), test.passes, sink.received.String())
			}
		})
	}
}

// TestSmugglingLate is the same with a body that comes after its head, when that
// has left already.
func TestSmugglingLate(t *testing.T) {
	for name, chunks := range map[string]string{
		"a size with a sign": "+4\r\nbody\r\n0\r\n\r\n",
		"a bare line feed":   "4\nbody\r\n0\r\n\r\n",
		"a trailer":          "0\r\nTransfer-Encoding: chunked\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, httpPolicy)
			sink := &webSink{}
			l.upstream(sink.serve)
			conn := l.dial(l.synthetic("good.test"))
			io.WriteString(conn, "POST / HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
			for deadline := time.Now().Add(patience); !strings.Contains(sink.saw(), "ok") && time.Now().Before(deadline); {
				<-time.After(time.Millisecond)
			}
			statuses, bodies := exchange(t, conn, chunks, 1)
			if fmt.Sprint(statuses) != "[400]" {
				t.Errorf("got %v %q", statuses, bodies)
			}
			records := l.records()
			if len(records) != 4 || !strings.HasPrefix(records[2], "decision deny http good.test: malformed HTTP request: ") {
				t.Errorf("records %q", records)
			}
			want := "POST / HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"
			if diff := cmp.Diff(want, sink.saw()); diff != "" {
				t.Errorf("the upstream saw (-want +got):\n%s", diff)
			}
		})
	}
}

// TestBodiesWithoutUse: a server may ignore the body of a method that has no use for one, and then
// take it for the next request. It is told to close instead, before it comes to that.
func TestBodiesWithoutUse(t *testing.T) {
	const evil = "GET /evil HTTP/1.1\r\nHost: evil.test\r\n\r\n"
	for head, closes := range map[string]bool{
		fmt.Sprintf("GET / HTTP/1.1\r\nHost: good.test\r\nContent-Length: %d\r\n", len(evil)):     true,
		fmt.Sprintf("OPTIONS / HTTP/1.1\r\nHost: good.test\r\nContent-Length: %d\r\n", len(evil)): true,
		fmt.Sprintf("POST / HTTP/1.1\r\nHost: good.test\r\nContent-Length: %d\r\n", len(evil)):    false,
	} {
		t.Run(head[:4], func(t *testing.T) {
			l := newLab(t, httpPolicy)
			sink := &webSink{}
			l.upstream(sink.serve)
			exchange(t, l.dial(l.synthetic("good.test")), head+"\r\n"+evil, 1)
			if got := strings.Contains(sink.saw(), "\r\nConnection: close\r\n"); got != closes {
				t.Errorf("told to close: %v, want %v: %q", got, closes, sink.saw())
			}
		})
	}
}
