package record

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf16"
)

// maxInFlight bounds the records that were sent and not acknowledged.
const maxInFlight = 256

// Writer hands records to a [Log], which another process has. It is safe for
// concurrent use.
type Writer struct {
	sandbox, policy string
	stream          io.ReadWriteCloser
	full, failing   atomic.Bool
	waiting         chan chan<- error // in the order of what was sent
	gone            chan struct{}     // closed when there will be no more acknowledgements

	mu  sync.Mutex // held while a line is sent
	seq uint64     // guarded by mu
}

// errLost is what waits for a Log that is gone.
var errLost = errors.New("the record log is gone")

// NewWriter returns a Writer that sends to the [Log.Serve] at the other end of
// stream, and closes the stream when it is closed itself.
func NewWriter(stream io.ReadWriteCloser, sandbox, policy string) *Writer {
	w := &Writer{
		sandbox: sandbox, policy: policy, stream: stream,
		waiting: make(chan chan<- error, maxInFlight), gone: make(chan struct{}),
	}
	go w.receive() // ends with the stream
	return w
}

// receive hands the acknowledgements to those who wait for them.
func (w *Writer) receive() {
	in := bufio.NewReader(w.stream)
	for {
		ack, err := in.ReadByte()
		var result error
		switch {
		case err != nil:
			w.lose()
			return
		case ack == ackDone:
		case ack == ackFull:
			result = ErrFull
			w.full.Store(true)
		default:
			result = errors.New("the record log takes no records")
		}
		w.failing.Store(result != nil)
		select {
		case done := <-w.waiting:
			done <- result
		default: // an acknowledgement of nothing
			w.lose()
			return
		}
	}
}

// lose ends the Writer: the log is gone, and whoever waits for it learns that.
func (w *Writer) lose() {
	w.full.Store(true)
	w.stream.Close()
	close(w.gone)
	w.mu.Lock() // nobody is sending any more
	defer w.mu.Unlock()
	for {
		select {
		case done := <-w.waiting:
			done <- errLost
		default:
			return
		}
	}
}

// Close ends the stream. What was written before is in the log.
func (w *Writer) Close() error { return w.stream.Close() }

// Stopped reports whether the log takes no more decisions, because it is full
// or gone, or did not take the last record.
func (w *Writer) Stopped() bool { return w.full.Load() || w.failing.Load() }

// Write completes r with time, sandbox, policy and sequence number, and returns
// once it is in the log. If it fails nobody will learn of what r says: the
// caller must then refuse what it was about to do. Once the log is full every
// further decision gets ErrFull.
func (w *Writer) Write(r Record) error {
	r.Sandbox, r.Policy = w.sandbox, w.policy
	kind := byte(sendOther)
	if r.Kind == Decision {
		kind = sendDecision
	}
	done := make(chan error, 1)
	if err := w.send(kind, r, done); err != nil {
		return err
	}
	return <-done
}

func (w *Writer) send(kind byte, r Record, done chan<- error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	r.Time, r.Seq = time.Now().UTC(), w.seq+1
	line, err := json.Marshal(r.bounded())
	if err != nil {
		return fmt.Errorf("encode record: %w", err)
	}
	select {
	case <-w.gone:
		return errLost
	default:
	}
	select { // before the line, or its acknowledgement could find nobody
	case w.waiting <- done:
	case <-w.gone:
		return errLost
	}
	w.seq++
	if _, err := w.stream.Write(append(append([]byte{kind}, ascii(line)...), '\n')); err != nil {
		w.stream.Close() // and receive tells those who wait
	}
	return nil
}

// ascii escapes what JSON would leave as it is but a terminal might obey: DEL,
// and everything beyond ASCII, with C1 controls and the marks of writing
// direction among it. line is valid UTF-8, as json.Marshal makes it.
func ascii(line []byte) []byte {
	if !slices.ContainsFunc(line, func(c byte) bool { return c >= 0x7f }) {
		return line
	}
	out := make([]byte, 0, len(line)+64)
	for _, c := range string(line) {
		switch {
		case c < 0x7f:
			out = append(out, byte(c))
		case c > 0xffff:
			high, low := utf16.EncodeRune(c)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, c)
		}
	}
	return out
}
