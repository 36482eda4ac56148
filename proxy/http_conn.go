package proxy

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// countedConn is a connection to an upstream: it counts the bytes, takes them of
// the rule's budget, and tells how it failed.
type countedConn struct {
	*net.TCPConn
	moved              *activity
	spendUp, spendDown spend           // nil if the direction is not bounded
	failed             func(err error) // gets what is not an orderly end

	closed atomic.Bool
	busy   sync.RWMutex // read-locked while bytes move
}

func (c *countedConn) Read(b []byte) (int, error) {
	c.busy.RLock()
	defer c.busy.RUnlock()
	n, err := c.TCPConn.Read(b)
	if c.spendDown != nil && n > 0 {
		granted, over := c.spendDown(n)
		if n = granted; over != nil {
			err = over
		}
	}
	c.moved.down.Add(int64(n))
	c.moved.touch()
	if err != nil && !errors.Is(err, io.EOF) {
		c.failed(err)
	}
	return n, err
}

func (c *countedConn) Write(b []byte) (int, error) {
	c.busy.RLock()
	defer c.busy.RUnlock()
	granted, over := len(b), error(nil)
	if c.spendUp != nil {
		granted, over = c.spendUp(len(b))
	}
	n, err := c.TCPConn.Write(b[:granted])
	if err == nil {
		err = over
	}
	c.moved.up.Add(int64(n))
	c.moved.touch()
	if err != nil {
		c.failed(err)
	}
	return n, err
}

func (c *countedConn) Close() error {
	c.closed.Store(true)
	return c.TCPConn.Close()
}

// settle closes the connection and waits until nothing is counted any more.
func (c *countedConn) settle() {
	c.Close()
	c.busy.Lock()
	defer c.busy.Unlock()
}

// settled reports whether nothing is counted any more.
func (c *countedConn) settled() bool {
	if !c.closed.Load() || !c.busy.TryLock() {
		return false
	}
	c.busy.Unlock()
	return true
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
