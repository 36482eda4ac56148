package proxy

import (
	"bytes"
	"io"
	"net/http/httputil"
	"strings"
	"testing"
)

// dechunk decodes a body that comes in pieces of a size. It returns the content,
// what follows the body, and whether that has ended.
func dechunk(data []byte, piece int) (content, rest []byte, d body, err error) {
	d.framing = byChunks
	data = bytes.Clone(data)
	for len(data) > 0 && !d.whole() {
		n := min(piece, len(data))
		got, used, err := d.decode(data[:n])
		if err != nil {
			return nil, nil, d, err
		}
		content = append(content, got...)
		data = data[used:]
	}
	return content, data, d, nil
}

func TestChunks(t *testing.T) {
	for _, test := range []struct{ text, content, fields, rest, fault string }{
		{"0$$", "", "", "", ""},
		{"4$body$0$$GET /", "body", "", "GET /", ""},
		{"2$bo$002$dy$00$$", "body", "", "", ""},
		{"A$0123456789$a;x=\"y\";z$0123456789$0;end$$", "01234567890123456789", "", "", ""},
		{"1$a$0$X-A:b $x-b: \tc$$", "a", "X-A: b$x-b: c$", "", ""},
		{"4$\r\n\r\n$0$$", "\r\n\r\n", "", "", ""},

		{"$", "", "", "", "the size of a chunk"},
		{"g$", "", "", "", "the size of a chunk"},
		{"+4$body$", "", "", "", "the size of a chunk"},
		{"-4$body$", "", "", "", "the size of a chunk"},
		{"0x4$body$", "", "", "", "the size of a chunk"},
		{" 4$body$", "", "", "", "the size of a chunk"},
		{"4 $body$", "", "", "", "the size of a chunk"},
		{"4\t;x$body$", "", "", "", "the size of a chunk"},
		{"4_0$body$", "", "", "", "the size of a chunk"},
		{";x$body$", "", "", "", "the size of a chunk"},
		{"4\nbody\n0\n\n", "", "", "", "the size of a chunk"},
		{"4\rbody", "", "", "", "the size of a chunk"},
		{"4;x\nbody", "", "", "", "the extension of a chunk"},
		{"4;\rx$body", "", "", "", "the size of a chunk"},
		{"4;\x00$body", "", "", "", "the extension of a chunk"},
		{"8000000000000000$", "", "", "", "the size of a chunk"},
		{"10000000000000004$body", "", "", "", "the size of a chunk"},
		{strings.Repeat("0", 17) + "4$body", "", "", "", "the size of a chunk"},
		{"4;" + strings.Repeat("x", maxChunkLine) + "$body", "", "", "", "the extension of a chunk"},
		{strings.Repeat("1;"+strings.Repeat("x", 400)+"$a$", 60), "", "", "", "the extension of a chunk"},
		{"4$bodyX$0$$", "", "", "", "the end of a chunk"},
		{"4$body\n0$$", "", "", "", "the end of a chunk"},
		{"4$body\rX", "", "", "", "the end of a chunk"},
		{"3$body$0$$", "", "", "", "the end of a chunk"},
		{"5$body$0$$", "", "", "", "the end of a chunk"},
		{"0$X: a\n$", "", "", "", "a line that does not end in CR LF"},
		{"0$X: a$ folded$$", "", "", "", "the name of a field"},
		{"0$X : a$$", "", "", "", "the name of a field"},
		{"0$GET / HTTP/1.1$Host: evil.test$$", "", "", "", "the name of a field"},
		{"0$X: a\rb$$", "", "", "", "the value of a field"},
		{"0$Content-Length: 4$$", "", "", "", "a trailer that is no trailer's"},
		{"0$Transfer-Encoding: chunked$$", "", "", "", "a trailer that is no trailer's"},
		{"0$Host: evil.test$$", "", "", "", "a trailer that is no trailer's"},
		{"0$Connection: close$$", "", "", "", "a trailer that is no trailer's"},
		{"0$X: " + strings.Repeat("a", maxTrailer) + "$$", "", "", "", "a trailer that is too long"},
	} {
		text := strings.ReplaceAll(test.text, "$", "\r\n")
		for _, piece := range []int{1, 2, 3, 7, len(text)} {
			content, rest, d, err := dechunk([]byte(text), piece)
			if test.fault != "" {
				if err == nil || err.Error() != test.fault {
					t.Errorf("%.100q by %d: %v, want %q", text, piece, err, test.fault)
				}
				continue
			}
			fields := strings.ReplaceAll(string(d.chunks.fields), "\r\n", "$")
			if err != nil || !d.whole() || string(content) != test.content || fields != test.fields || string(rest) != test.rest {
				t.Errorf("%q by %d: %q, %q, %q, %v", text, piece, content, fields, rest, err)
			}
		}
		checkChunks(t, []byte(text), 3)
	}
}

// checkChunks: a body that is accepted is the same to net/http, and so is what is
// written anew of it; and where it is cut makes no difference.
func checkChunks(t *testing.T, data []byte, piece int) {
	t.Helper()
	content, rest, d, err := dechunk(data, len(data))
	again, _, d2, err2 := dechunk(data, piece)
	if (err == nil) != (err2 == nil) || !bytes.Equal(content, again) || d.whole() != d2.whole() {
		t.Fatalf("%q is %q, %v; in pieces of %d %q, %v", data, content, err, piece, again, err2)
	}
	if err != nil || !d.whole() {
		return
	}
	if !bytes.HasSuffix(data, rest) {
		t.Fatalf("%q leaves %q", data, rest)
	}
	other, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(data)))
	if err != nil || !bytes.Equal(other, content) {
		t.Fatalf("%q is %q, to net/http %q, %v", data, content, other, err)
	}
	anew := appendEnd(appendContent(nil, byChunks, content), byChunks, d.chunks.fields)
	final, left, d3, err := dechunk(anew, piece)
	if err != nil || !d3.whole() || len(left) > 0 || !bytes.Equal(final, content) || !bytes.Equal(d3.chunks.fields, d.chunks.fields) {
		t.Fatalf("%q is sent as %q: %q, %v", data, anew, final, err)
	}
	if other, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(anew))); err != nil || !bytes.Equal(other, content) {
		t.Fatalf("%q is sent as %q, to net/http %q, %v", data, anew, other, err)
	}
}

func FuzzChunks(f *testing.F) {
	for _, s := range []string{"4\r\nbody\r\n0\r\n\r\nrest", "2;x=\"y\"\r\nbo\r\n02\r\ndy\r\n0\r\nX: y\r\n\r\n", "0\r\n\r\n", "+1\r\na\r\n", "1\na\n0\n\n", "ffffffffffffffff\r\n", "1 \r\na\r\n0\r\n\r\n", "0\r\nContent-Length: 1\r\n\r\n"} {
		f.Add([]byte(s), 1)
		f.Add([]byte(s), 5)
	}
	f.Fuzz(func(t *testing.T, data []byte, piece int) {
		if piece < 1 {
			return
		}
		checkChunks(t, data, piece)
	})
}
