package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	bufferSize  = 32 << 10
	spliceAfter = 256 << 10 // bytes in one direction: by then it is bulk
	spliceChunk = 1 << 20   // bytes between two signs of life
)

// bufferPool lends the buffers of all relays, to ReverseProxy too. One is taken
// only once there is something to read: an idle connection has none.
type bufferPool struct{ pool sync.Pool }

func (p *bufferPool) Get() []byte {
	if b, ok := p.pool.Get().(*[bufferSize]byte); ok {
		return b[:]
	}
	return make([]byte, bufferSize)
}

func (p *bufferPool) Put(b []byte) {
	if len(b) == bufferSize {
		p.pool.Put((*[bufferSize]byte)(b))
	}
}

// errIdle is the reason of a connection that was closed because nothing moved.
var errIdle = errors.New("idle for too long")

// activity counts the bytes of a connection and remembers when it was alive.
type activity struct {
	up, down atomic.Int64
	last     atomic.Int64 // time of the last byte, in nanoseconds
}

func (a *activity) touch() { a.last.Store(time.Now().UnixNano()) }

// watch calls end once nothing has moved for the given time. stop ends the watch;
// when it returns, end is not running and will not be called.
func (a *activity) watch(idle time.Duration, end func()) (stop func()) {
	a.touch()
	var mu sync.Mutex // guards timer and stopped, and is held during end
	var timer *time.Timer
	var stopped bool
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(idle, func() {
		mu.Lock()
		defer mu.Unlock()
		left := idle - time.Since(time.Unix(0, a.last.Load()))
		switch {
		case stopped:
		case left <= 0:
			end()
		default:
			timer.Reset(left)
		}
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		stopped = true
		timer.Stop()
	}
}

// relay copies between the agent and an upstream.
type relay struct {
	agent, upstream *net.TCPConn
	idle            time.Duration
	splices         chan struct{}
	buffers         *bufferPool
	activity
}

// run sends head upstream and copies both ways until both sides have finished,
// one fails, or nothing moves for the idle time. Each side's end of stream is
// passed on at once, so a half-closed connection works. It returns the first
// failure.
func (r *relay) run(head []byte) error {
	var once sync.Once
	var failure error
	abort := func(err error) {
		once.Do(func() {
			failure = err
			// The other side should see a failure too, not an orderly end.
			for _, c := range []*net.TCPConn{r.agent, r.upstream} {
				c.SetLinger(0)
				c.Close()
			}
		})
	}
	stop := r.watch(r.idle, func() { abort(errIdle) })
	var both sync.WaitGroup
	both.Go(func() {
		if len(head) > 0 {
			n, err := r.upstream.Write(head)
			r.up.Add(int64(n))
			if err != nil {
				abort(err)
				return
			}
		}
		if err := r.half(r.upstream, r.agent, &r.up); err != nil {
			abort(err)
		}
	})
	both.Go(func() {
		if err := r.half(r.agent, r.upstream, &r.down); err != nil {
			abort(err)
		}
	})
	both.Wait()
	stop() // and with it the last one who could abort
	return failure
}

// half copies one direction, counting what was written, and passes on its end.
func (r *relay) half(dst, src *net.TCPConn, count *atomic.Int64) error {
	raw, err := src.SyscallConn()
	if err != nil {
		return err
	}
	total := int64(0)
	for {
		n, err := r.copySome(dst, raw)
		r.touch()
		count.Add(int64(n))
		total += int64(n)
		if errors.Is(err, io.EOF) {
			return dst.CloseWrite()
		}
		if err != nil {
			return err
		}
		if total < spliceAfter {
			continue
		}
		select {
		case r.splices <- struct{}{}:
			err := r.splice(dst, src, count)
			<-r.splices
			if err != nil {
				return err
			}
			return dst.CloseWrite()
		default: // all pipes are in use: go on copying
		}
	}
}

// splice moves bytes within the kernel until the end of the stream. io.CopyN
// uses splice(2) between bare TCP connections only.
func (r *relay) splice(dst, src *net.TCPConn, count *atomic.Int64) error {
	for {
		n, err := io.CopyN(dst, src, spliceChunk)
		r.touch()
		count.Add(n)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// copySome waits until src is readable and copies what one read gives. It
// returns the number of bytes written.
func (r *relay) copySome(dst *net.TCPConn, src syscall.RawConn) (int, error) {
	var buf []byte
	var n int
	var err error
	waitErr := src.Read(func(fd uintptr) bool {
		buf = r.buffers.Get()
		for {
			n, err = syscall.Read(int(fd), buf)
			if err != syscall.EINTR {
				break
			}
		}
		if err == syscall.EAGAIN {
			r.buffers.Put(buf)
			buf = nil
			return false
		}
		return true
	})
	if buf == nil {
		return 0, waitErr // closed while waiting
	}
	defer r.buffers.Put(buf)
	switch {
	case err != nil:
		return 0, os.NewSyscallError("read", err)
	case n == 0:
		return 0, io.EOF
	}
	return dst.Write(buf[:n])
}
