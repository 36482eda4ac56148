package record

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// join opens the log at path and returns a Writer to it, and what Serve ended
// with once the Writer is closed.
func join(t *testing.T, path string, limits Limits) (w *Writer, served <-chan error) {
	t.Helper()
	l, err := OpenLog(path, "box-1", limits)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := net.Pipe()
	done := make(chan error, 1)
	go func() {
		err := l.Serve(theirs)
		theirs.Close()
		done <- errors.Join(err, l.Close())
	}()
	w = NewWriter(ours, "box-1", "strict")
	t.Cleanup(func() { w.Close() })
	return w, done
}

func readAll(t *testing.T, path string) []Record {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []Record
	for r, err := range Read(bytes.NewReader(data)) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

func TestWriteAndRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w, served := join(t, path, Limits{})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				if err := w.Write(Record{Kind: Decision, Verdict: "deny", Protocol: "tls", Name: "evil.test", Port: 443, Reason: "no rule allows it"}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	w.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
	got := readAll(t, path)
	if len(got) != 400 {
		t.Fatalf("%d records", len(got))
	}
	for i, r := range got {
		if r.Seq != uint64(i+1) || r.Sandbox != "box-1" || r.Policy != "strict" || r.Time.IsZero() || r.Name != "evil.test" {
			t.Fatalf("record %d is %+v", i, r)
		}
	}
}

// TestHostileStrings: whatever the agent calls a host, a record stays one line
// of ASCII, and reads as what it was.
func TestHostileStrings(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w, _ := join(t, path, Limits{})
	hostile := []string{
		"a\nb", "\x1b[2Jx", "\"},{\"verdict\":\"allow\"", "\u202egro.elpmaxe", "\x9b31m\u009b31m", "\x7f", "\x00", "\u2028", "𝕏", "\u061c",
	}
	for _, s := range hostile {
		if err := w.Write(Record{Kind: Decision, Name: s}); err != nil {
			t.Fatal(err)
		}
	}
	long := strings.Repeat("ü", 1000)
	if err := w.Write(Record{Kind: Decision, Name: long}); err != nil {
		t.Fatal(err)
	}
	data, _ := os.ReadFile(path)
	for _, c := range data {
		if c != '\n' && (c < 0x20 || c > 0x7e) {
			t.Fatalf("the log has the byte %#x", c)
		}
	}
	got := readAll(t, path)
	if len(got) != len(hostile)+1 {
		t.Fatalf("%d records", len(got))
	}
	for i, s := range hostile {
		if want := strings.ToValidUTF8(s, "\ufffd"); got[i].Name != want {
			t.Errorf("%q reads as %q", s, got[i].Name)
		}
		checkPlain(t, got[i].String())
	}
	if last := got[len(hostile)].Name; len(last) > maxText+3 || !strings.HasSuffix(last, "...") || !utf8.ValidString(last) {
		t.Errorf("a long name reads as %q", last)
	}
}

func checkPlain(t *testing.T, s string) {
	t.Helper()
	for _, c := range s {
		if !unicode.IsPrint(c) || unicode.Is(unicode.Bidi_Control, c) {
			t.Errorf("%q has %U", s, c)
		}
	}
}

func TestString(t *testing.T) {
	at := time.Date(2026, 11, 24, 15, 4, 5, 0, time.Local)
	for _, test := range []struct {
		r    Record
		want string
	}{
		{
			Record{Kind: Decision, Verdict: "deny", Protocol: "tls", Name: "evil.test", Port: 443, Reason: "no rule allows it"},
			"15:04:05 deny  tls  evil.test:443  no rule allows it",
		},
		{
			Record{Kind: Decision, Verdict: "deny", Protocol: "tls", Name: "evil.test", Port: 443, Reason: "no rule allows it", Count: 1200},
			"15:04:05 deny  tls  evil.test:443  no rule allows it (1200 times)",
		},
		{
			Record{Kind: Decision, Verdict: "allow", Protocol: "http", Name: "good.test", Port: 80, Reason: "a rule allows it", Rule: "allow good.test:80 http (line 3)"},
			"15:04:05 allow http good.test:80  a rule allows it: allow good.test:80 http (line 3)",
		},
		{
			Record{Kind: Decision, Verdict: "deny", Protocol: "tcp", Address: "fd00::1", Port: 22, Reason: "x"},
			"15:04:05 deny  tcp  [fd00::1]:22  x",
		},
		{
			Record{Kind: Decision, Verdict: "deny", Protocol: "dns", Name: "a\x1b[1m\u202eb", Reason: "no rule allows it"},
			`15:04:05 deny  dns  a\x1b[1m\u202eb  no rule allows it`,
		},
		{
			Record{Kind: Close, Protocol: "tls", Name: "good.test", Port: 443, BytesUp: 1, BytesDown: 2, DurationMS: 1500},
			"15:04:05 close tls  good.test:443  1 bytes up, 2 down, 1.5s",
		},
		{Record{Kind: Proxy, Reason: "started"}, "15:04:05 proxy started"},
	} {
		test.r.Time = at
		if got := test.r.String(); got != test.want {
			t.Errorf("got  %s\nwant %s", got, test.want)
		}
	}
}

// TestFull is I7: at the limit the log says so once, and takes only the ends of
// what was allowed before.
func TestFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	limits := Limits{Life: 16 << 10}
	w, served := join(t, path, limits)
	written := 0
	for !w.Stopped() {
		if err := w.Write(Record{Kind: Decision, Verdict: "allow"}); err == nil {
			written++
		} else if !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
	}
	for range 3 {
		if err := w.Write(Record{Kind: Decision}); !errors.Is(err, ErrFull) {
			t.Errorf("got %v", err)
		}
	}
	if err := w.Write(Record{Kind: Close}); err != nil {
		t.Errorf("a close record: %v", err)
	}
	if !w.Stopped() {
		t.Error("a record that was taken is not the end of being full")
	}
	kinds := make(map[string]int)
	for _, r := range readAll(t, path) {
		kinds[r.Kind]++
	}
	if diff := cmp.Diff(map[string]int{Decision: written, Proxy: 1, Close: 1}, kinds); diff != "" {
		t.Error(diff)
	}
	for range 200 {
		w.Write(Record{Kind: Close})
	}
	if info, _ := os.Stat(path); info.Size() > 16<<10 {
		t.Errorf("the log has %d bytes", info.Size())
	}
	w.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
	// The next life has its own room, and leaves what was.
	w, _ = join(t, path, limits)
	if err := w.Write(Record{Kind: Decision}); err != nil {
		t.Errorf("in the next life: %v", err)
	}
}

func TestSegments(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.jsonl")
	limits := Limits{Segment: 1000, Kept: 2500}
	w, served := join(t, path, limits)
	for i := range 30 {
		if err := w.Write(Record{Kind: Decision, Reason: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	names, err := Segments(path)
	if err != nil || len(names) < 4 || names[0] != path || names[1] != path+".2" {
		t.Fatalf("segments %q, %v", names, err)
	}
	next := 0
	for _, name := range names {
		if info, err := os.Stat(name); err != nil || info.Size() > 1000 || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
		for _, r := range readAll(t, name) {
			if r.Reason != fmt.Sprint(next) {
				t.Errorf("%s has record %s, want %d", name, r.Reason, next)
			}
			next++
		}
	}
	if next != 30 {
		t.Errorf("%d records", next)
	}
	// The next life goes on in the last one, and the oldest go.
	w, _ = join(t, path, limits)
	if err := w.Write(Record{Kind: Proxy, Reason: "next"}); err != nil {
		t.Fatal(err)
	}
	left, _ := Segments(path)
	if len(left) >= len(names) || left[0] == path {
		t.Errorf("left are %q", left)
	}
	var all []Record
	for _, name := range left {
		all = append(all, readAll(t, name)...)
	}
	if n := len(all); n < 2 || all[n-1].Reason != "next" || all[n-2].Reason != "29" {
		t.Errorf("the log ends with %v", all)
	}
	for _, other := range []string{"a.jsonl.1", "a.jsonl.02", "a.jsonl.x", "a.jsonl.2.3", "b.jsonl.2", "a.jsonl."} {
		if segmentNumber("a.jsonl", other) != 0 {
			t.Errorf("%s is taken for a segment", other)
		}
	}
}

// TestLost: without the log's process nothing is recorded, and everybody knows.
func TestLost(t *testing.T) {
	ours, theirs := net.Pipe()
	w := NewWriter(ours, "box-1", "strict")
	var all sync.WaitGroup
	for range 3 * maxInFlight {
		all.Go(func() {
			if err := w.Write(Record{Kind: Decision}); err == nil {
				t.Error("written into nothing")
			}
		})
	}
	in := bufio.NewReader(theirs)
	if _, err := in.ReadString('\n'); err != nil {
		t.Error(err)
	}
	theirs.Close()
	all.Wait()
	if err := w.Write(Record{Kind: Decision}); err == nil || !w.Stopped() {
		t.Errorf("got %v, stopped %v", err, w.Stopped())
	}
}

// TestServeChecks: whatever a proxy that was taken over sends, the log holds
// lines that can do no harm.
func TestServeChecks(t *testing.T) {
	for _, test := range []struct {
		name, send string
		want       string // acknowledgements
		ok         bool
	}{
		{"lines", "d{}\no{}\n", "kk", true},
		{"an unknown kind", "x{}\n", "", false},
		{"an empty line", "d{}\n\n", "k", false},
		{"nothing but a kind", "d\n", "e", false},
		{"a control character", "d{\x1b}\nd{}\n", "ek", false},
		{"beyond ASCII", "d{\u202e}\n", "e", false},
		{"no end", "d{", "", false},
		{"too long", "d" + strings.Repeat("x", maxLine+2) + "\n", "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log")
			l, err := OpenLog(path, "box-1", Limits{})
			if err != nil {
				t.Fatal(err)
			}
			var acks bytes.Buffer
			err = l.Serve(struct {
				io.Reader
				io.Writer
			}{strings.NewReader(test.send), &acks})
			if (err == nil) != test.ok || acks.String() != test.want {
				t.Errorf("got %q, %v, want %q", acks.String(), err, test.want)
			}
			data, _ := os.ReadFile(path)
			if want := strings.Repeat("{}\n", strings.Count(test.want, "k")); string(data) != want {
				t.Errorf("the log is %q, want %q", data, want)
			}
		})
	}
}

// TestDiskFull: what does not fit is refused, leaves no torn line, and the log
// goes on when there is room again.
func TestDiskFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := OpenLog(path, "box-1", Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	line := append(bytes.Repeat([]byte("x"), 99), '\n')
	if err := l.Append(line, true); err != nil {
		t.Fatal(err)
	}
	whole := l.file
	if l.file, err = os.Open(path); err != nil { // a file that takes nothing
		t.Fatal(err)
	}
	if err := l.Append(line, true); err == nil || errors.Is(err, ErrFull) {
		t.Errorf("got %v", err)
	}
	l.file.Close()
	l.file = whole
	if err := l.Append(line, true); err != nil {
		t.Error(err)
	}
	if data, _ := os.ReadFile(path); len(data) != 200 {
		t.Errorf("the log has %d bytes", len(data))
	}
}

func TestTornLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	first, _ := json.Marshal(Record{Kind: Proxy, Reason: "one"})
	if err := os.WriteFile(path, append(append(first, '\n'), first[:20]...), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, path); len(got) != 1 {
		t.Errorf("%d records before", len(got))
	}
	w, _ := join(t, path, Limits{})
	w.Write(Record{Kind: Proxy, Reason: "two"})
	data, _ := os.ReadFile(path)
	var reasons []string
	bad := 0
	for r, err := range Read(bytes.NewReader(data)) {
		if err != nil {
			bad++
			continue
		}
		reasons = append(reasons, r.Reason)
	}
	if diff := cmp.Diff([]string{"one", "two"}, reasons); diff != "" || bad != 1 {
		t.Errorf("%d bad lines, %s", bad, diff)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("{\"kind\":\"close\",\"name\":\"\\u202e\"}\n\n{x\n"))
	f.Add(bytes.Repeat([]byte("a"), maxLine+10))
	f.Fuzz(func(t *testing.T, data []byte) {
		for r, err := range Read(bytes.NewReader(data)) {
			if err == nil {
				checkPlain(t, r.String())
			}
		}
	})
}

// TestDeadWriter: what a writer sent before it was killed is in the log, though
// nobody takes the answers.
func TestDeadWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := OpenLog(path, "box-1", Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	// Line by line, so that each is answered.
	in, out := io.Pipe()
	go func() { // ends with the three lines
		for range 3 {
			io.WriteString(out, "d{}\n")
		}
		out.Close()
	}()
	err = l.Serve(struct {
		io.Reader
		io.Writer
	}{in, deaf{}})
	if data, _ := os.ReadFile(path); err != nil || string(data) != "{}\n{}\n{}\n" {
		t.Errorf("the log is %q, %v", data, err)
	}
}

// deaf is the end of a stream whose other end is closed.
type deaf struct{}

func (deaf) Write([]byte) (int, error) { return 0, syscall.EPIPE }
