package proxy

import (
	"io"
	"net"
	"os"
	"syscall"
)

// stream is one side of an HTTP connection. It reads into a buffer that it has
// only while there is something in it: who waits holds none. One goroutine reads
// at a time, and one writes.
type stream struct {
	tcp     *net.TCPConn
	raw     syscall.RawConn
	buffers *bufferPool
	lull    *lull // told when a read has to wait; nil: nobody
	side    waiting
	account *account // of an upstream

	buf    []byte
	r, w   int   // buf[r:w] is what was read and not used
	failed error // what follows it

	try  func(fd uintptr) bool // attempt
	look func(fd uintptr)      // glance
	n    int                   // what attempt has read
	err  error
	held bool // the lull was told

	first  [1]byte // what glance has read
	silent bool    // it has not
}

// account is what the bytes of an upstream are counted by, and taken of.
type account struct {
	moved              *activity
	spendUp, spendDown spend // nil if the direction is not bounded
}

// errFull is the error of a message whose head does not fit.
var errFull = malformed("the head is too long")

func (s *stream) open(tcp *net.TCPConn) error {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return err
	}
	s.tcp, s.raw = tcp, raw
	s.try, s.look = s.attempt, s.glance // once: each is an allocation
	return nil
}

// unread is what was read and not used.
func (s *stream) unread() []byte { return s.buf[s.r:s.w] }

// use passes over n bytes, and gives the buffer back once there are no more.
func (s *stream) use(n int) {
	if s.r += n; s.r == s.w {
		s.release()
	}
}

func (s *stream) release() {
	if s.buf != nil {
		s.buffers.Put(s.buf)
	}
	s.buf, s.r, s.w = nil, 0, 0
}

// fill waits for more bytes. It may move what was not used. most bounds the
// buffer, if it must hold more than one of the pool does.
func (s *stream) fill(most int) error {
	if s.failed != nil {
		return s.failed
	}
	if s.buf != nil && s.w == len(s.buf) {
		switch {
		case s.r > 0:
			s.w = copy(s.buf, s.unread())
			s.r = 0
		case len(s.buf) < most:
			buf := make([]byte, most)
			s.w = copy(buf, s.buf)
			s.buffers.Put(s.buf)
			s.buf = buf
		default:
			return errFull
		}
	}
	s.n, s.err, s.held = 0, nil, false
	err := s.raw.Read(s.try)
	if s.held {
		s.lull.over()
	}
	if err == nil {
		err = s.err
	}
	if s.n > 0 {
		err = s.count(s.n)
	} else if err == nil {
		err = io.EOF
	}
	if err != nil && s.r == s.w {
		s.release()
	}
	return err
}

// count takes n bytes that were read. Those of them that the budget has no room
// for are as if they had not come.
func (s *stream) count(n int) error {
	if a := s.account; a != nil {
		if a.spendDown != nil {
			n, s.failed = a.spendDown(n)
		}
		a.moved.down.Add(int64(n))
		a.moved.touch()
	}
	if s.w += n; n == 0 {
		return s.failed
	}
	return nil
}

// attempt reads once, without waiting.
func (s *stream) attempt(fd uintptr) bool {
	if s.buf == nil {
		s.buf = s.buffers.Get()
	}
	for {
		n, err := syscall.Read(int(fd), s.buf[s.w:])
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			if s.r == s.w {
				s.release()
			}
			if !s.held && s.lull != nil {
				s.held = true
				s.lull.begin(s.side)
			}
			return false
		case err != nil:
			s.err = os.NewSyscallError("read", err)
		default:
			s.n = n
		}
		return true
	}
}

// quiet reports whether the other side neither has sent anything nor closed. An
// upstream that has, between two requests, is not to be asked another one: what it
// has sent is no answer to that. Whatever is there is read, and lost.
func (s *stream) quiet() bool {
	if len(s.unread()) > 0 || s.failed != nil {
		return false
	}
	s.silent = false
	return s.raw.Control(s.look) == nil && s.silent
}

// glance reads a byte, if there is one.
func (s *stream) glance(fd uintptr) {
	_, err := syscall.Read(int(fd), s.first[:])
	s.silent = err == syscall.EAGAIN
}

// alive reports whether more can come from the other side.
func (s *stream) alive() bool {
	var n int
	var err error
	if s.raw.Control(func(fd uintptr) {
		n, _, err = syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	}) != nil {
		return false
	}
	return n > 0 || err == syscall.EAGAIN
}

// write writes what the budget has room for, and returns an error if that is not
// all of b.
func (s *stream) write(b []byte) error {
	a := s.account
	if a == nil {
		_, err := s.tcp.Write(b)
		return err
	}
	granted, over := len(b), error(nil)
	if a.spendUp != nil {
		granted, over = a.spendUp(len(b))
	}
	n, err := s.tcp.Write(b[:granted])
	a.moved.up.Add(int64(n))
	a.moved.touch()
	if err == nil {
		err = over
	}
	return err
}
