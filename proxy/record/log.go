package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ErrFull is returned when a log has reached its limit. Nothing more may be
// decided then but refusal: what cannot be recorded must not happen (I7).
var ErrFull = errors.New("record log is full")

// Limits of a log, in bytes. The zero Limits are the defaults.
type Limits struct {
	// Life is what one Log takes from its opening to its end; then it is full.
	// 256 MiB if zero. The last eighth, at most 1 MiB, is kept for closing
	// records of what was allowed before.
	Life int64

	// Segment is the size at which the next file begins, 16 MiB if zero.
	Segment int64

	// Kept is how much of earlier lives a Log leaves when it is opened, the
	// newest first. 64 MiB if zero.
	Kept int64
}

func (l Limits) withDefaults() Limits {
	for _, f := range []struct {
		value *int64
		usual int64
	}{{&l.Life, 256 << 20}, {&l.Segment, 16 << 20}, {&l.Kept, 64 << 20}} {
		if *f.value <= 0 {
			*f.value = f.usual
		}
	}
	return l
}

// noticeSize is room for the one line that says that the log is full.
const noticeSize = 512

// A Log is the files that a sandbox's records are in: PATH, and when that has
// reached its size PATH.2, PATH.3 and so on. It belongs to a process that the
// agent cannot reach; the proxy, which reads what the agent sends, only hands
// it lines (see [Log.Serve]) and can neither change nor remove one.
// It is safe for concurrent use.
type Log struct {
	path, sandbox string
	limits        Limits

	mu     sync.Mutex // guards the rest
	file   *os.File
	number int   // of the open segment
	size   int64 // of the open segment
	life   int64 // written since the opening
	full   bool  // said so
}

// OpenLog opens or creates the log at path for a new life of the sandbox. It
// goes on in the newest segment that there is, and removes the oldest ones of
// earlier lives beyond Limits.Kept.
func OpenLog(path, sandbox string, limits Limits) (*Log, error) {
	l := &Log{path: path, sandbox: sandbox, limits: limits.withDefaults(), number: 1}
	old, err := Segments(path)
	if err != nil {
		return nil, fmt.Errorf("record log: %w", err)
	}
	kept := int64(0)
	for i, name := range slices.Backward(old) {
		info, err := os.Lstat(name)
		if err != nil {
			return nil, fmt.Errorf("record log: %w", err)
		}
		if kept += info.Size(); kept > l.limits.Kept && i < len(old)-1 {
			if err := os.Remove(name); err != nil {
				return nil, fmt.Errorf("record log: %w", err)
			}
		}
	}
	if len(old) > 0 {
		l.number = segmentNumber(path, old[len(old)-1])
	}
	if err := l.openSegment(); err != nil {
		return nil, err
	}
	return l, nil
}

// Segments returns the files of the log at path, the oldest first.
func Segments(path string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var found []string
	for _, e := range entries {
		if name := filepath.Join(filepath.Dir(path), e.Name()); segmentNumber(path, name) > 0 {
			found = append(found, name)
		}
	}
	slices.SortFunc(found, func(a, b string) int { return segmentNumber(path, a) - segmentNumber(path, b) })
	return found, nil
}

// SegmentOf returns the log that a file is a segment of, and false if its name
// is not one of a log whose path ends in suffix.
func SegmentOf(name, suffix string) (path string, ok bool) {
	if strings.HasSuffix(name, suffix) {
		return name, true
	}
	i := strings.LastIndexByte(name, '.')
	if i < 0 || !strings.HasSuffix(name[:i], suffix) {
		return "", false
	}
	return name[:i], segmentNumber(name[:i], name) > 1
}

// segmentNumber returns the number of a segment, 0 if name is none of path's.
func segmentNumber(path, name string) int {
	rest, ok := strings.CutPrefix(name, path)
	switch {
	case !ok:
		return 0
	case rest == "":
		return 1
	}
	n, err := strconv.Atoi(strings.TrimPrefix(rest, "."))
	if err != nil || n < 2 || rest != "."+strconv.Itoa(n) {
		return 0
	}
	return n
}

// openSegment opens the segment l.number, or those after it until one has room.
func (l *Log) openSegment() error {
	for {
		path := l.path
		if l.number > 1 {
			path += "." + strconv.Itoa(l.number)
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
		if err != nil {
			return fmt.Errorf("record log: %w", err)
		}
		info, err := f.Stat()
		if err == nil && !info.Mode().IsRegular() {
			err = fmt.Errorf("%s is not a regular file", path)
		}
		if err == nil && info.Size() >= l.limits.Segment {
			f.Close()
			l.number++
			continue
		}
		size := int64(0)
		if err == nil {
			size, err = endLine(f, info.Size())
		}
		if err != nil {
			f.Close()
			return fmt.Errorf("record log: %w", err)
		}
		if l.file != nil {
			l.file.Close()
		}
		l.file, l.size = f, size
		return nil
	}
}

// endLine ends a line that a writer left torn when it was killed within its
// write(2), and returns the size of the file. An empty line does no harm.
func endLine(f *os.File, size int64) (int64, error) {
	last := make([]byte, 1)
	if size == 0 {
		return 0, nil
	}
	if _, err := f.ReadAt(last, size-1); err != nil || last[0] == '\n' {
		return size, err
	}
	n, err := f.Write([]byte("\n"))
	return size + int64(n), err
}

// Append adds a line, which must be one: printable ASCII and a newline at its
// end. A decision is refused with ErrFull once the log is full, which the log
// itself says once; other lines a little later. After another error nothing of
// the line is in the log, and the next one may succeed.
func (l *Log) Append(line []byte, decision bool) error {
	if err := checkLine(line); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	limit := l.limits.Life
	switch {
	case decision && l.full:
		return ErrFull
	case decision:
		limit -= min(limit/8, 1<<20)
	case !l.full:
		limit -= noticeSize
	}
	if l.life+int64(len(line)) > limit {
		if !decision {
			return ErrFull
		}
		l.full = true
		if err := l.write(l.notice()); err != nil {
			return err
		}
		return ErrFull
	}
	return l.write(line)
}

// Note appends a record of the log's own process, which need not be a decision.
func (l *Log) Note(r Record) error {
	r.Time, r.Sandbox = time.Now().UTC(), l.sandbox
	line, err := json.Marshal(r.bounded())
	if err != nil {
		return fmt.Errorf("encode record: %w", err)
	}
	return l.Append(append(ascii(line), '\n'), false)
}

// checkLine refuses what would not be one line, or could steer a terminal.
func checkLine(line []byte) error {
	n := len(line) - 1
	if n < 1 || n > maxLine || line[n] != '\n' {
		return errors.New("record log: not a line")
	}
	for _, c := range line[:n] {
		if c < 0x20 || c > 0x7e {
			return fmt.Errorf("record log: a line with the byte %#x", c)
		}
	}
	return nil
}

func (l *Log) notice() []byte {
	line, err := json.Marshal(Record{
		Time: time.Now().UTC(), Sandbox: l.sandbox, Kind: Proxy,
		Reason: fmt.Sprintf("the record log has reached its limit of %d bytes: everything is refused from now on", l.limits.Life),
	})
	if err != nil {
		panic(err) // a Record is plain
	}
	return append(ascii(line), '\n')
}

func (l *Log) write(line []byte) error {
	if l.size > 0 && l.size+int64(len(line)) > l.limits.Segment {
		l.number++
		if err := l.openSegment(); err != nil {
			l.number--
			return err
		}
	}
	n, err := l.file.Write(line)
	if err != nil && n > 0 {
		if terr := l.file.Truncate(l.size); terr == nil { // the disk is full: no torn line
			n = 0
		}
	}
	l.size += int64(n)
	l.life += int64(n)
	if err != nil {
		return fmt.Errorf("record log: %w", err)
	}
	return nil
}

// Close closes the open segment.
func (l *Log) Close() error { return l.file.Close() }
