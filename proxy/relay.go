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

// bufferPool lends the buffers of all relays, and those of HTTP. One is taken
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

// The reasons of connections that the proxy ends by itself.
var (
	errIdle    = errors.New("idle for too long")
	errTotal   = errors.New("open for too long")
	errStopped = errors.New("the proxy has ended")
)

// keepAliveProbes find a peer that vanished without a word, within two minutes.
var keepAliveProbes = net.KeepAliveConfig{Enable: true, Idle: 60 * time.Second, Interval: 15 * time.Second, Count: 4}

// activity counts the bytes of a connection and remembers when it was alive.
type activity struct {
	up, down atomic.Int64
	last     atomic.Int64 // time of the last byte, in nanoseconds
}

func (a *activity) touch() { a.last.Store(time.Now().UnixNano()) }

// watch calls end once nothing has moved for the idle time, or once the total
// time has passed. stop ends the watch; when it returns, end is not running and
// will not be called.
func (a *activity) watch(idle, total time.Duration, end func(reason error)) (stop func()) {
	a.touch()
	var mu sync.Mutex // guards timer and stopped, and is held during end
	var timer *time.Timer
	var stopped bool
	last := time.Now().Add(total)
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(min(idle, total), func() {
		mu.Lock()
		defer mu.Unlock()
		quiet := idle - time.Since(time.Unix(0, a.last.Load()))
		left := time.Until(last)
		switch {
		case stopped:
		case left <= 0:
			end(errTotal)
		case quiet <= 0:
			end(errIdle)
		default:
			timer.Reset(min(quiet, left))
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
	idle, total     time.Duration
	splices         chan struct{}
	buffers         *bufferPool
	spendUp         spend // nil if the direction is not bounded
	spendDown       spend
	upEnded         bool      // the agent's end of stream was passed on already
	plain           *plainTLS // looks at what the agent sends, or nil
	activity
}

// run sends head upstream and copies both ways until both sides have finished,
// one fails, a budget is crossed, or a time has run out. Each side's end of
// stream is passed on at once, so a half-closed connection works. It returns the
// first failure. The counts are then final: every byte that was handed to the
// kernel for the other side, whether that ever got it or not.
func (r *relay) run(head []byte) error {
	var once sync.Once
	var failure error
	end := func(err error) {
		once.Do(func() {
			failure = err
			// The other side should see a failure too, not an orderly end.
			for _, c := range []*net.TCPConn{r.agent, r.upstream} {
				abort(c)
			}
		})
	}
	stop := r.watch(r.idle, r.total, end)
	var down sync.WaitGroup // a goroutine less: an idle connection is mostly stacks
	down.Go(func() {
		if err := r.half(r.agent, r.upstream, &r.down, r.spendDown, nil); err != nil {
			end(err)
		}
	})
	err := error(nil)
	if len(head) > 0 {
		err = r.send(r.upstream, head, &r.up, r.spendUp)
	}
	if err == nil && !r.upEnded {
		err = r.half(r.upstream, r.agent, &r.up, r.spendUp, r.plain)
	}
	if err != nil {
		end(err)
	}
	down.Wait()
	stop() // and with it the last one who could end it
	return failure
}

// send writes what the budget has room for, counts what was written, and returns
// an error if that is not all of b.
func (r *relay) send(dst *net.TCPConn, b []byte, count *atomic.Int64, spend spend) error {
	granted, over := len(b), error(nil)
	if spend != nil {
		granted, over = spend(len(b))
	}
	n, err := dst.Write(b[:granted])
	count.Add(int64(n))
	if err == nil {
		err = over
	}
	return err
}

// half copies one direction, counting what was written, and passes on its end.
// What a budget bounds is copied to the end: the bytes of a splice are known only
// when they are gone, and a budget is not to be overshot.
func (r *relay) half(dst, src *net.TCPConn, count *atomic.Int64, spend spend, plain *plainTLS) error {
	raw, err := src.SyscallConn()
	if err != nil {
		return err
	}
	begin := count.Load()
	for {
		err := r.copySome(dst, raw, count, spend, plain)
		r.touch()
		if errors.Is(err, io.EOF) {
			return dst.CloseWrite()
		}
		if err != nil {
			return err
		}
		if spend != nil || count.Load()-begin < spliceAfter {
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

// copySome waits until src is readable and copies what one read gives.
func (r *relay) copySome(dst *net.TCPConn, src syscall.RawConn, count *atomic.Int64, spend spend, plain *plainTLS) error {
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
		return waitErr // closed while waiting
	}
	defer r.buffers.Put(buf)
	switch {
	case err != nil:
		return os.NewSyscallError("read", err)
	case n == 0:
		return io.EOF
	}
	if err := plain.look(buf[:n]); err != nil {
		return err
	}
	return r.send(dst, buf[:n], count, spend)
}
