package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
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

// closingConn is what the HTTP server reads the agent's requests from. It says
// when it is closed; after a hijack that is when the tunnel of ReverseProxy ends.
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

// Read hides from the server that the agent has sent all it will while a request
// is being answered. net/http reads a single byte in the background meanwhile,
// takes an end of stream there for an agent that is gone, and cancels; but an
// agent may well close its half and wait for the answer. So that read goes on
// until the server gives it up, which is when the answer has been written, or the
// agent resets the connection. Then the next read finds the end.
func (c *closingConn) Read(b []byte) (int, error) {
	n, err := c.peekedConn.Read(b)
	if len(b) != 1 || !errors.Is(err, io.EOF) {
		return n, err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	waitErr := raw.Read(func(fd uintptr) bool {
		_, _, err = syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return err != nil && !errors.Is(err, syscall.EAGAIN) && !errors.Is(err, syscall.EINTR)
	})
	if waitErr != nil {
		return 0, waitErr // the deadline, or closed
	}
	return 0, os.NewSyscallError("read", err)
}
