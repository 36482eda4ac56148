package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
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
	w, err := NewWriter(open(t, path), "box-1", "strict", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
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
	w, err := NewWriter(open(t, path), "box-1", "strict", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
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
	w, err := NewWriter(open(t, path), "box-1", "strict", 16<<10)
	if err != nil {
		t.Fatal(err)
	}
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
	// A restart does not begin anew.
	if w, err = NewWriter(open(t, path), "box-1", "strict", 16<<10); err != nil || !w.Stopped() {
		t.Errorf("after a restart: stopped %v, %v", w.Stopped(), err)
	}
}

func TestWriteErrorStops(t *testing.T) {
	f := open(t, filepath.Join(t.TempDir(), "log"))
	w, err := NewWriter(f, "box-1", "strict", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	for range 2 {
		if err := w.Write(Record{Kind: Decision}); err == nil || !w.Stopped() {
			t.Errorf("got %v, stopped %v", err, w.Stopped())
		}
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
	w, err := NewWriter(open(t, path), "box-1", "strict", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
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
