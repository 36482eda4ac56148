package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// parsedRequest reads the head that text begins with.
func parsedRequest(text string) (*head, error) { return parsed(text, (*head).parseRequest) }

func parsedResponse(text string) (*head, error) { return parsed(text, (*head).parseResponse) }

func parsed(text string, parse func(*head, []byte) error) (*head, error) {
	line := 0
	n, err := headLength([]byte(text), &line)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, malformed("no end")
	}
	h := new(head)
	return h, parse(h, []byte(text)[:n])
}

// requestHeads are heads of requests, $ for CR LF, and what is wrong with them.
var requestHeads = []struct{ text, fault string }{
	{"GET / HTTP/1.1$Host: a$$", ""},
	{"GET / HTTP/1.0$$", ""},
	{"M-SEARCH * HTTP/1.1$Host:a$$", ""},
	{"GET http://a.test?x HTTP/1.1$Host: b$$", ""},
	{"GET /a%2Fb//../c?%zz&x=[|]{}\\\"^` HTTP/1.1$Host: a$$", ""},
	{"GET / HTTP/1.1$Host: a$X:$Y: \t b\tc \xe4\xff $$", ""},
	{"POST / HTTP/1.1$Host: a$content-LENGTH: 007$$", ""},
	{"POST / HTTP/1.1$Host: a$Transfer-Encoding:\tChunked $$", ""},
	{"GET / HTTP/1.1$Host: a$Connection: close, Keep-Alive,, X-A$X-A: 1$$", ""},
	{"GET / HTTP/1.1$Host: a$TE: gzip, trailers$Trailer: X-A$$", ""},

	{"$$", "the request line"},
	{"$GET / HTTP/1.1$Host: a$$", "the request line"},
	{"GET /$$", "the request line"},
	{"GET  HTTP/1.1$Host: a$$", "the request line"},
	{" GET / HTTP/1.1$Host: a$$", "the request line"},
	{"GET  / HTTP/1.1$Host: a$$", "the request target"},
	{"GET / / HTTP/1.1$Host: a$$", "the request target"},
	{"GET /\t HTTP/1.1$Host: a$$", "the request target"},
	{"GET /# HTTP/1.1$Host: a$$", "the request target"},
	{"GET /\x00 HTTP/1.1$Host: a$$", "the request target"},
	{"GET /\u00e4 HTTP/1.1$Host: a$$", "the request target"},
	{"GET /%2 HTTP/1.1$Host: a$$", "the request target"},
	{"GET /%xy HTTP/1.1$Host: a$$", "the request target"},
	{"GE(T / HTTP/1.1$Host: a$$", "the method"},
	{"GET\t/ HTTP/1.1$Host: a$$", "the request line"},
	{"GET / HTTP/1.2$Host: a$$", "a version other than HTTP/1.0 and HTTP/1.1"},
	{"GET / HTTP/2.0$Host: a$$", "a version other than HTTP/1.0 and HTTP/1.1"},
	{"GET / http/1.1$Host: a$$", "a version other than HTTP/1.0 and HTTP/1.1"},
	{"GET / HTTP/1.10$Host: a$$", "a version other than HTTP/1.0 and HTTP/1.1"},
	{"GET / HTTP/01.1$Host: a$$", "a version other than HTTP/1.0 and HTTP/1.1"},
	{"GET / HTTP/1.1 $Host: a$$", "the request target"},
	{"PRI * HTTP/2.0$$", "HTTP/2 without TLS"},

	{"GET / HTTP/1.1\nHost: a\n\n", "a line that does not end in CR LF"},
	{"GET / HTTP/1.1$Host: a\nX: b$$", "a line that does not end in CR LF"},
	{"GET / HTTP/1.1$Host: a\r$X: b$$", "the value of a field"},
	{"GET / HTTP/1.1$Host: a\rX: b$$", "the value of a field"},
	{"GET / HTTP/1.1$Host: a$ folded$$", "the name of a field"},
	{"GET / HTTP/1.1$Host: a$X: b$\tfolded: c$$", "the name of a field"},
	{"GET / HTTP/1.1$ Host: a$$", "the name of a field"},
	{"GET / HTTP/1.1$Host : a$$", "the name of a field"},
	{"GET / HTTP/1.1$Host\t: a$$", "the name of a field"},
	{"GET / HTTP/1.1$Host: a$: b$$", "the name of a field"},
	{"GET / HTTP/1.1$Host: a$no colon$$", "the name of a field"},
	{"GET / HTTP/1.1$Host: a$X\x00: b$$", "the name of a field"},
	{"GET / HTTP/1.1$Host: a$X\u00e4: b$$", "the name of a field"},
	{"GET / HTTP/1.1$Host: a$X: b\x00$$", "the value of a field"},
	{"GET / HTTP/1.1$Host: a$X: b\x0b$$", "the value of a field"},
	{"GET / HTTP/1.1$Host: a$X: b\x7f$$", "the value of a field"},

	{"GET / HTTP/1.1$$", "no Host field"},
	{"GET / HTTP/1.1$Host: a$host: a$$", "two Host fields"},
	{"GET / HTTP/1.0$Host: a$HOST: b$$", "two Host fields"},

	{"POST / HTTP/1.1$Host: a$Content-Length: 1$Content-Length: 1$$", "two Content-Length fields"},
	{"POST / HTTP/1.1$Host: a$Content-Length: 1$Content-Length: 2$$", "two Content-Length fields"},
	{"POST / HTTP/1.1$Host: a$Content-Length: 1, 1$$", "Content-Length is no number"},
	{"POST / HTTP/1.1$Host: a$Content-Length: +1$$", "Content-Length is no number"},
	{"POST / HTTP/1.1$Host: a$Content-Length: -1$$", "Content-Length is no number"},
	{"POST / HTTP/1.1$Host: a$Content-Length: 0x1$$", "Content-Length is no number"},
	{"POST / HTTP/1.1$Host: a$Content-Length: 1 1$$", "Content-Length is no number"},
	{"POST / HTTP/1.1$Host: a$Content-Length:$$", "Content-Length is no number"},
	{"POST / HTTP/1.1$Host: a$Content-Length: 18446744073709551617$$", "Content-Length is no number"},
	{"POST / HTTP/1.1$Host: a$Content-Length: 1$Transfer-Encoding: chunked$$", "both Content-Length and Transfer-Encoding"},
	{"POST / HTTP/1.0$Transfer-Encoding: chunked$$", "Transfer-Encoding in HTTP/1.0"},
	{"POST / HTTP/1.1$Host: a$Transfer-Encoding: chunked$Transfer-Encoding: chunked$$", "a Transfer-Encoding other than chunked"},
	{"POST / HTTP/1.1$Host: a$Transfer-Encoding: chunked, chunked$$", "a Transfer-Encoding other than chunked"},
	{"POST / HTTP/1.1$Host: a$Transfer-Encoding: gzip, chunked$$", "a Transfer-Encoding other than chunked"},
	{"POST / HTTP/1.1$Host: a$Transfer-Encoding: identity$$", "a Transfer-Encoding other than chunked"},
	{"POST / HTTP/1.1$Host: a$Transfer-Encoding: xchunked$$", "a Transfer-Encoding other than chunked"},
	{"POST / HTTP/1.1$Host: a$Transfer-Encoding: chunked;q=1$$", "a Transfer-Encoding other than chunked"},
	{"POST / HTTP/1.1$Host: a$Transfer-Encoding: \"chunked\"$$", "a Transfer-Encoding other than chunked"},
	{"POST / HTTP/1.1$Host: a$Transfer-Encoding: \x0bchunked$$", "the value of a field"},
	{"POST / HTTP/1.1$Host: a$Transfer-Encoding:$$", "a Transfer-Encoding other than chunked"},
	{"POST / HTTP/1.1$Host: a$Transfer_Encoding: chunked$$", "a field whose name some read as one that frames"},
	{"POST / HTTP/1.1$Host: a$CONTENT_LENGTH: 1$$", "a field whose name some read as one that frames"},
	{"POST / HTTP/1.1$Host: a$Connection: content-length$Content-Length: 1$$", "Connection names a field that it must not"},
	{"GET / HTTP/1.1$Host: a$Connection: close, Host$$", "Connection names a field that it must not"},
	{"POST / HTTP/1.1$Host: a$Connection: transfer-encoding$Transfer-Encoding: chunked$$", "Connection names a field that it must not"},
	{"POST / HTTP/1.1$Host: a$Transfer-Encoding: chunked$Trailer: Content-Length$$", "Trailer names a field that it must not"},
	{"GET / HTTP/1.1$Host: a$Connection: " + strings.Repeat("x,", maxOptions+1) + "$$", "Connection names too many fields"},
	{"GET / HTTP/1.1$Host: a$" + strings.Repeat("X: y$", maxFields) + "$", "too many fields"},
}

func TestParseRequest(t *testing.T) {
	for _, test := range requestHeads {
		text := strings.ReplaceAll(test.text, "$", "\r\n")
		_, err := parsedRequest(text)
		if got := fmt.Sprint(err); got != test.fault && (err != nil || test.fault != "") {
			t.Errorf("%.100q: %v, want %q", text, err, test.fault)
		}
		checkRequest(t, text)
	}
}

// checkRequest: whatever is accepted net/http reads in the same way, and so what is
// written anew of it.
func checkRequest(t *testing.T, text string) {
	t.Helper()
	r, err := parsedRequest(text)
	if err != nil {
		return
	}
	for _, forward := range []bool{false, true} {
		h := &httpConn{conn: &conn{dest: netip.MustParseAddrPort("127.9.9.9:80")}, forward: forward}
		if q := h.ask(r); q.problem != "" {
			continue
		}
		other, err := http.ReadRequest(bufioReader(text))
		if err != nil {
			t.Fatalf("net/http does not accept %q: %v", text, err)
		}
		if other.Method != string(r.method) || other.RequestURI != string(r.target) || other.ProtoMinor != int(r.minor) || other.Host != h.asked.authority {
			t.Fatalf("%q: net/http reads %s %q HTTP/1.%d of %q", text, other.Method, other.RequestURI, other.ProtoMinor, other.Host)
		}
		sameFraming(t, text, r, other.ContentLength, other.TransferEncoding)
		sameFields(t, text, r, other.Header, nil)

		wire := string(r.appendRequest(nil, h.asked.field))
		anew, err := http.ReadRequest(bufioReader(wire))
		if err != nil {
			t.Fatalf("%q is sent as %q: %v", text, wire, err)
		}
		if anew.Method != string(r.method) || anew.ProtoMinor != 1 || anew.Host != h.asked.field || anew.URL.Host != "" {
			t.Fatalf("%q is sent as %q: %+v", text, wire, anew)
		}
		if want := strings.TrimPrefix(string(r.path), "/"); strings.TrimPrefix(anew.RequestURI, "/") != want && (anew.RequestURI != "*" || want != "") {
			t.Fatalf("%q is sent as %q, to %q", text, wire, anew.RequestURI)
		}
		sameFraming(t, wire, r, anew.ContentLength, anew.TransferEncoding)
		sameFields(t, wire, r, anew.Header, r.options)
		again, err := parsedRequest(wire)
		if err != nil {
			t.Fatalf("%q is sent as %q: %v", text, wire, err)
		}
		if again.hosts != 1 || again.framing != r.framing || again.length != r.length {
			t.Fatalf("%q is sent as %q: %+v", text, wire, again)
		}
	}
}

func sameFraming(t *testing.T, text string, h *head, length int64, codings []string) {
	t.Helper()
	same := false
	switch h.framing {
	case byChunks:
		same = length == -1 && slices.Equal(codings, []string{"chunked"})
	default:
		same = length == h.length && len(codings) == 0
	}
	if !same {
		t.Fatalf("%q is framed as %d %d, by net/http as %d %q", text, h.framing, h.length, length, codings)
	}
}

// sameFields compares the values of all fields that are passed on, but for those
// that are dropped.
func sameFields(t *testing.T, text string, h *head, other http.Header, dropped [][]byte) {
	t.Helper()
	fields := http.Header{}
	for _, f := range h.fields {
		name := http.CanonicalHeaderKey(string(f.name))
		if f.kind != endToEnd && f.kind != isAccept || name == "Cache-Control" { // net/http adds one to Pragma
			continue
		}
		if !slices.ContainsFunc(dropped, func(d []byte) bool { return http.CanonicalHeaderKey(string(d)) == name }) {
			fields[name] = append(fields[name], string(f.value))
		}
	}
	got := http.Header{}
	for name, values := range other {
		if k := kindOf([]byte(strings.ToLower(name))); (k == endToEnd || k == isAccept) && name != "Cache-Control" {
			got[name] = values
		}
	}
	if diff := cmp.Diff(fields, got); diff != "" {
		t.Fatalf("%q: net/http reads other fields (-ours +its):\n%s", text, diff)
	}
}

func TestParseResponse(t *testing.T) {
	for _, test := range []struct{ text, fault string }{
		{"HTTP/1.1 200 OK$$", ""},
		{"HTTP/1.1 200 $$", ""},
		{"HTTP/1.1 200$Content-Length: 5$$", ""},
		{"HTTP/1.0 999 a \xe4\t$Content-Length: 5$content-length: 5$$", ""},
		{"HTTP/1.1 200 OK$Connection: Transfer-Encoding$Transfer-Encoding: chunked$$", ""},
		{"HTTP/1.1 200 OK$content_length: 1$$", ""},
		{"HTTP/1.1 304 Not Modified$Content-Length: 5$$", ""},

		{"$$", "a version other than HTTP/1.0 and HTTP/1.1"},
		{"HTTP/2 200$$", "a version other than HTTP/1.0 and HTTP/1.1"},
		{"ICY 200 OK$$", "a version other than HTTP/1.0 and HTTP/1.1"},
		{"HTTP/1.1 20 OK$$", "the status"},
		{"HTTP/1.1 2000 OK$$", "the status"},
		{"HTTP/1.1 +20 OK$$", "the status"},
		{"HTTP/1.1 099 OK$$", "the status"},
		{"HTTP/1.1  200 OK$$", "the status"},
		{"HTTP/1.1 200 O\x00K$$", "the reason behind the status"},
		{"HTTP/1.1 200 O\rK$$", "the reason behind the status"},
		{"HTTP/1.1 200 OK\n\n", "a line that does not end in CR LF"},
		{"HTTP/1.1 200 OK$X: a\nSet-Cookie: b$$", "a line that does not end in CR LF"},
		{"HTTP/1.1 200 OK$X: a\rSet-Cookie: b$$", "the value of a field"},
		{"HTTP/1.1 200 OK$X: a$ folded$$", "the name of a field"},
		{"HTTP/1.1 200 OK$X : a$$", "the name of a field"},
		{"HTTP/1.1 200 OK$Content-Length: 5$Content-Length: 6$$", "two Content-Length fields"},
		{"HTTP/1.1 200 OK$Content-Length: 5, 5$$", "Content-Length is no number"},
		{"HTTP/1.1 200 OK$Content-Length: 5$Transfer-Encoding: chunked$$", "both Content-Length and Transfer-Encoding"},
		{"HTTP/1.0 200 OK$Transfer-Encoding: chunked$$", "Transfer-Encoding in HTTP/1.0"},
		{"HTTP/1.1 200 OK$Transfer-Encoding: gzip, chunked$$", "a Transfer-Encoding other than chunked"},
	} {
		text := strings.ReplaceAll(test.text, "$", "\r\n")
		_, err := parsedResponse(text)
		if got := fmt.Sprint(err); got != test.fault && (err != nil || test.fault != "") {
			t.Errorf("%q: %v, want %q", text, err, test.fault)
		}
		checkResponse(t, text)
	}
}

// checkResponse is checkRequest for answers.
func checkResponse(t *testing.T, text string) {
	t.Helper()
	r, err := parsedResponse(text)
	if err != nil {
		return
	}
	get := &http.Request{Method: http.MethodGet}
	other, err := http.ReadResponse(bufioReader(text), get)
	if err != nil {
		t.Fatalf("net/http does not accept %q: %v", text, err)
	}
	x := &httpExchange{minor: 1, response: *r}
	_, framing := x.framings()
	wire := r.appendFields(r.appendStatus(nil, 1))
	wire = append(appendFraming(wire, framing, r.length), "\r\n"...)
	anew, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(wire)), get)
	if err != nil {
		t.Fatalf("%q is sent as %q: %v", text, wire, err)
	}
	for _, a := range []*http.Response{other, anew} {
		if a.StatusCode != r.status || strings.TrimSpace(strings.TrimPrefix(a.Status, fmt.Sprint(r.status))) != strings.TrimSpace(string(r.reason)) {
			t.Fatalf("%q: net/http reads %q", text, a.Status)
		}
	}
	sameFields(t, text, r, other.Header, nil)
	sameFields(t, string(wire), r, anew.Header, r.options)
	switch {
	case framing == noBody || r.status < 200:
	case r.framing == noBody: // until the end of the connection; to the agent in chunks
		if other.ContentLength != -1 || len(other.TransferEncoding) > 0 {
			t.Fatalf("%q has no length, to net/http %d", text, other.ContentLength)
		}
	default:
		sameFraming(t, text, r, other.ContentLength, other.TransferEncoding)
		sameFraming(t, string(wire), r, anew.ContentLength, anew.TransferEncoding)
	}
}

// TestHeadLength: the end of a head is found wherever the bytes are cut.
func TestHeadLength(t *testing.T) {
	const text = "GET / HTTP/1.1\r\nHost: a\r\n\r\nrest\n"
	line := 0
	for cut := range len(text) {
		n, err := headLength([]byte(text)[:cut], &line)
		if want := len("GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil || n != 0 && n != want || (n == 0) != (cut < want) {
			t.Fatalf("of %d bytes: %d, %v", cut, n, err)
		}
		if n > 0 {
			return
		}
	}
}

// FuzzRequestHead: see checkRequest. Where the bytes are cut makes no difference.
func FuzzRequestHead(f *testing.F) {
	for _, test := range requestHeads {
		if len(test.text) < 1000 {
			f.Add(strings.ReplaceAll(test.text, "$", "\r\n"))
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		checkCut(t, text)
		checkRequest(t, text)
	})
}

// FuzzResponseHead is the same of answers.
func FuzzResponseHead(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "HTTP/1.0 304\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close, x\r\nX: y\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "HTTP/1.1 200 OK\r\nX: a\nY: b\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		checkCut(t, text)
		checkResponse(t, text)
	})
}

// checkCut: a head has the same end, or fault, however its bytes come.
func checkCut(t *testing.T, text string) {
	t.Helper()
	whole := 0
	want, fault := headLength([]byte(text), &whole)
	line := 0
	for cut := range min(len(text), 600) + 1 {
		n, err := headLength([]byte(text)[:cut], &line)
		if n > 0 || err != nil {
			if n != want || (err == nil) != (fault == nil) {
				t.Fatalf("%q: head of %d bytes, %v; of its first %d bytes: %d, %v", text, want, fault, cut, n, err)
			}
			return
		}
	}
}
