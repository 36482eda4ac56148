package proxy

import (
	"bytes"
	"io"
	"net"
	"testing"
)

// BenchmarkHTTPRequest is one request of a connection that carries many, there
// and back over loopback.
func BenchmarkHTTPRequest(b *testing.B) {
	l := newLab(b, httpPolicy)
	l.upstream(func(c *net.TCPConn) {
		buf := make([]byte, 4096)
		for {
			if _, err := c.Read(buf); err != nil {
				return
			}
			if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nDate: Thu, 26 Nov 2026 22:00:00 GMT\r\nContent-Length: 6\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nhello\n"); err != nil {
				return
			}
		}
	})
	conn := l.dial(l.synthetic("good.test"))
	request := []byte("GET / HTTP/1.1\r\nHost: good.test\r\nUser-Agent: Go-http-client/1.1\r\nAccept-Encoding: gzip\r\n\r\n")
	buf := make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := conn.Write(request); err != nil {
			b.Fatal(err)
		}
		if n, err := conn.Read(buf); err != nil || !bytes.HasSuffix(buf[:n], []byte("hello\n")) {
			b.Fatal(err)
		}
	}
}
