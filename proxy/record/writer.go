package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf16"
)

// ErrFull is returned when the log has reached its limit. Nothing more may be
// decided then but refusal: what cannot be recorded must not happen (I7).
var ErrFull = errors.New("record log is full")

// noticeSize is room for the one line that says that the log is full.
const noticeSize = 512

// Writer appends records to a file. It is safe for concurrent use.
type Writer struct {
	sandbox, policy string
	limit           int64 // decisions stop here
	hardLimit       int64 // and everything here
	stopped         atomic.Bool

	mu   sync.Mutex // guards the rest
	file *os.File
	size int64
	seq  uint64
	full bool  // said so
	err  error // the first failed write; final
}

// NewWriter returns a Writer that appends to file, which must be a regular file
// opened with O_APPEND and stays the caller's. limit is the size of the whole
// file in bytes, whoever wrote it. The last eighth, at most 1 MiB, is kept for
// closing records of what was allowed before.
func NewWriter(file *os.File, sandbox, policy string, limit int64) (*Writer, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("record log: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("record log: %s is not a regular file", file.Name())
	}
	if limit <= 0 {
		return nil, fmt.Errorf("record log: limit of %d bytes", limit)
	}
	w := &Writer{
		sandbox: sandbox, policy: policy,
		limit: limit - min(limit/8, 1<<20), hardLimit: limit,
		file: file, size: info.Size(),
	}
	// A writer that was killed within a write(2) can leave a line without end.
	// An empty line does no harm where the file cannot be read.
	if w.size > 0 {
		last := make([]byte, 1)
		if _, err := file.ReadAt(last, w.size-1); err != nil || last[0] != '\n' {
			if _, err := file.Write([]byte("\n")); err != nil {
				return nil, fmt.Errorf("record log: %w", err)
			}
			w.size++
		}
	}
	w.stopped.Store(w.size >= w.limit)
	return w, nil
}

// Stopped reports whether the log takes no more decisions, because it is full or
// because a write failed.
func (w *Writer) Stopped() bool { return w.stopped.Load() }

// Write completes r with time, sandbox, policy and sequence number and appends
// it in one write(2). If it fails nobody will learn of what r says: the caller
// must then refuse what it was about to do. Once a record other than a close
// does not fit, the log says so once and every further one gets ErrFull.
func (w *Writer) Write(r Record) error {
	r.Sandbox, r.Policy = w.sandbox, w.policy
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	if r.Kind == Decision && w.full {
		return ErrFull
	}
	line, err := w.encode(r)
	if err != nil {
		return w.fail(err)
	}
	limit := w.limit
	if r.Kind != Decision {
		limit = w.hardLimit
		if !w.full {
			limit -= noticeSize
		}
	}
	if w.size+int64(len(line)) > limit {
		return w.overflow(r.Kind)
	}
	return w.append(line)
}

// encode makes the line. Its sequence number is taken once the line is written.
func (w *Writer) encode(r Record) ([]byte, error) {
	r.Time, r.Seq = time.Now().UTC(), w.seq+1
	line, err := json.Marshal(r.bounded())
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	return append(ascii(line), '\n'), nil
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

func (w *Writer) append(line []byte) error {
	n, err := w.file.Write(line)
	w.size += int64(n)
	if err != nil {
		return w.fail(fmt.Errorf("write record: %w", err))
	}
	w.seq++
	return nil
}

// overflow says once that the log is full, in the space kept for closing
// records.
func (w *Writer) overflow(kind string) error {
	w.stopped.Store(true)
	if kind != Decision {
		return ErrFull
	}
	if !w.full {
		w.full = true
		line, err := w.encode(Record{
			Kind: Proxy, Sandbox: w.sandbox, Policy: w.policy,
			Reason: fmt.Sprintf("the record log has reached its limit of %d bytes: everything is refused from now on", w.hardLimit),
		})
		if err == nil && w.size+int64(len(line)) <= w.hardLimit {
			err = w.append(line)
		}
		if err != nil {
			return err
		}
	}
	return ErrFull
}

func (w *Writer) fail(err error) error {
	w.err = err
	w.stopped.Store(true)
	return err
}
