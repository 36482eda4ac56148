package proxy

import (
	"io"
	"net"
	"sync"
)

// countedConn counts what an upstream sends and is sent.
type countedConn struct {
	*net.TCPConn
	moved *activity
}

func (c *countedConn) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	c.moved.down.Add(int64(n))
	c.moved.touch()
	return n, err
}

func (c *countedConn) Write(b []byte) (int, error) {
	n, err := c.TCPConn.Write(b)
	c.moved.up.Add(int64(n))
	c.moved.touch()
	return n, err
}

// ReadFrom and WriteTo hide the methods of TCPConn, which would not count.
func (c *countedConn) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{c}, r)
}

func (c *countedConn) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{c})
}

// oneListener accepts one connection, and fails once that is closed.
type oneListener struct {
	addr net.Addr
	conn net.Conn // nil once accepted
	done chan struct{}
}

func (l *oneListener) Accept() (net.Conn, error) {
	if c := l.conn; c != nil {
		l.conn = nil
		return c, nil
	}
	<-l.done
	return nil, net.ErrClosed
}

func (l *oneListener) Close() error   { return nil }
func (l *oneListener) Addr() net.Addr { return l.addr }

// closingConn says when it is closed. After a hijack that is when the tunnel of
// ReverseProxy ends.
type closingConn struct {
	*peekedConn
	once sync.Once
	done chan struct{}
}

func (c *closingConn) Close() error {
	err := c.peekedConn.Close()
	c.once.Do(func() { close(c.done) })
	return err
}
