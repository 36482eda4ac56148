package pid1

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

var program = []unix.SockFilter{{Code: 0x20, K: 4}, {Code: 0x15, Jt: 1, Jf: 2, K: 0xc000003e}, {Code: 6, K: 0x7fff0000}}

func TestStartArrives(t *testing.T) {
	for _, want := range []Start{
		{Args: []string{"true"}, Filter: program},
		{Args: []string{"sh", "-c", "", "ü\n"}, Filter: program, Terminal: true, Stdio: [3]Stream{Given, Extra(2), Closed}},
		{Args: []string{"x"}, Filter: slices.Repeat(program, 1000), User: &User{}},
		{Args: []string{"x", strings.Repeat("y", 5<<20)}, Filter: program, User: &User{1<<32 - 1, 4711, 1<<63 + 5, []Range{{100000, 65535}, {7, 1}}, true}, Stdio: [3]Stream{Extra(0), Extra(1), Extra(2)}},
	} {
		var b bytes.Buffer
		if err := WriteStart(&b, want); err != nil {
			t.Fatal(err)
		}
		got, err := ReadStart(&b)
		if diff := cmp.Diff(want, got); err != nil || diff != "" || b.Len() > 0 {
			t.Errorf("%v, %d bytes are left\n%s", err, b.Len(), diff)
		}
	}
}

// What would not be carried out, or would be carried out as something else, is not sent.
func TestStartIsRefused(t *testing.T) {
	for what, s := range map[string]Start{
		"nothing":           {},
		"no command":        {Filter: program},
		"an empty command":  {Args: []string{""}, Filter: program},
		"a zero byte":       {Args: []string{"x", "a\x00b"}, Filter: program},
		"no filter":         {Args: []string{"x"}},
		"a long filter":     {Args: []string{"x"}, Filter: slices.Repeat(program, 2000)},
		"no such stream":    {Args: []string{"x"}, Filter: program, Stdio: [3]Stream{Extra(3)}},
		"too many ids":      {Args: []string{"x"}, Filter: program, User: &User{Others: make([]Range, 65)}},
		"too long for exec": {Args: []string{"x", strings.Repeat("y", 8<<20)}, Filter: program},
	} {
		var b bytes.Buffer
		if err := WriteStart(&b, s); err == nil || b.Len() > 0 {
			t.Errorf("%s: %d bytes are sent", what, b.Len())
		}
	}
}

// Everybody inside is somebody outside, once, and the agent's own id is the caller's.
func TestMap(t *testing.T) {
	for _, test := range []struct {
		own    uint32
		others []Range
		want   []Mapping
	}{
		{4711, nil, []Mapping{{4711, 0, 1}}},
		{0, []Range{{100000, 65535}}, []Mapping{{0, 0, 1}, {1, 100000, 65535}}},
		{1000, []Range{{100000, 65535}}, []Mapping{{1000, 0, 1}, {0, 100000, 1000}, {1001, 101000, 64535}}},
		{1000, []Range{{100000, 10}, {200000, 1000}, {300000, 1 << 20}}, []Mapping{{1000, 0, 1}, {0, 100000, 10}, {10, 200000, 990}, {1001, 200990, 10}, {1011, 300000, 64525}}},
		{1000, []Range{{100000, 5}}, []Mapping{{1000, 0, 1}, {0, 100000, 5}}},
		{1 << 20, []Range{{100000, 1 << 17}}, []Mapping{{1 << 20, 0, 1}, {0, 100000, 1 << 16}}},
		{1<<16 - 1, []Range{{100000, 1 << 17}}, []Mapping{{1<<16 - 1, 0, 1}, {0, 100000, 1<<16 - 1}}},
	} {
		if diff := cmp.Diff(test.want, Map(test.own, test.others)); diff != "" {
			t.Errorf("%d: %s", test.own, diff)
		}
	}
}

func TestSignalsAndReportsArrive(t *testing.T) {
	var b bytes.Buffer
	signals := []Signal{{unix.SIGHUP, false}, {unix.SIGTERM, true}, {64, true}}
	for _, s := range signals {
		if err := WriteSignal(&b, s); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range signals {
		if got, err := ReadSignal(&b); err != nil || got != want {
			t.Errorf("%+v, %v, want %+v", got, err, want)
		}
	}
	for _, number := range []unix.Signal{-1, 0, 65, 257} {
		if err := WriteSignal(&b, Signal{Number: number}); err == nil {
			t.Errorf("signal %d is sent", number)
		}
	}
	reports := []Report{{Event: Started}, {Event: Stopped, Number: 20}, {Event: Continued}, {Event: Exited, Number: 255}, {Event: Killed, Number: 9}, {Failed, 127, "x: not found"}}
	for _, r := range reports {
		if err := WriteReport(&b, r); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range reports {
		if got, err := ReadReport(&b); err != nil || got != want {
			t.Errorf("%+v, %v, want %+v", got, err, want)
		}
	}
	if err := WriteReport(&b, Report{Failed, 125, strings.Repeat("x", 1<<20)}); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadReport(&b); err != nil || len(got.Text) != maxReport-3 {
		t.Errorf("%d bytes of text, %v", len(got.Text), err)
	}
	if got, err := ReadReport(&b); err != io.EOF {
		t.Errorf("%+v, %v at the end", got, err)
	}
}

func message(body ...byte) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, uint32(len(body))), body...)
}

func TestMalformedMessages(t *testing.T) {
	var start bytes.Buffer
	if err := WriteStart(&start, Start{Args: []string{"x", "y"}, Filter: program, User: &User{UID: 1, GID: 2}}); err != nil {
		t.Fatal(err)
	}
	good := start.Bytes()
	for n := range len(good) { // cut off, with a length that says so and with one that does not
		cut := slices.Clone(good[:n])
		if got, err := ReadStart(bytes.NewReader(cut)); err == nil {
			t.Errorf("%d of %d bytes: %+v", n, len(good), got)
		}
		if n >= 4 {
			if got, err := ReadStart(bytes.NewReader(message(cut[4:]...))); err == nil {
				t.Errorf("a message of %d bytes: %+v", n, got)
			}
		}
	}
	if got, err := ReadStart(bytes.NewReader(message(append(slices.Clone(good[4:]), 0)...))); err == nil {
		t.Errorf("a byte more: %+v", got)
	}
	for _, m := range [][]byte{
		message(), message(kindSignal), message(kindSignal, 0, 0), message(kindSignal, 65, 0), message(kindSignal, 1), message(kindSignal, 1, 2),
		message(kindSignal, 1, 0, 0), message(kindReport, 1, 0), message(kindStart, 1, 0),
		{0xff, 0xff, 0xff, 0xff},
		{1, 0, 0, 1, kindSignal},
	} {
		if got, err := ReadSignal(bytes.NewReader(m)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%x: signal %+v, %v", m, got, err)
		}
	}
	for _, m := range [][]byte{
		message(), message(kindReport), message(kindReport, 0, 0), message(kindReport, 7, 0), message(kindReport, 1), message(kindReport, 1, 0, 'x'),
		message(kindSignal, 1, 0),
		{0, 0x10, 0, 1},
	} {
		if got, err := ReadReport(bytes.NewReader(m)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%x: report %+v, %v", m, got, err)
		}
	}
}

// FuzzRead: what is read can be sent, and is then the same bytes.
func FuzzRead(f *testing.F) {
	var b bytes.Buffer
	if err := errors.Join(
		WriteStart(&b, Start{Args: []string{"x", ""}, Filter: program, User: &User{UID: 1, GID: 2}, Terminal: true}),
		WriteSignal(&b, Signal{1, true}), WriteReport(&b, Report{Failed, 127, "x"}),
	); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	for rest := b.Bytes(); len(rest) > 0; {
		n := 4 + binary.LittleEndian.Uint32(rest)
		f.Add(rest[:n])
		rest = rest[n:]
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		check := func(err error, r *bytes.Reader, write func(w io.Writer) error) {
			if err != nil {
				return
			}
			var again bytes.Buffer
			if err := write(&again); err != nil || !bytes.Equal(again.Bytes(), data[:len(data)-r.Len()]) {
				t.Fatalf("%v, %x", err, again.Bytes())
			}
		}
		r := bytes.NewReader(data)
		start, err := ReadStart(r)
		check(err, r, func(w io.Writer) error { return WriteStart(w, start) })
		r = bytes.NewReader(data)
		signal, err := ReadSignal(r)
		check(err, r, func(w io.Writer) error { return WriteSignal(w, signal) })
		r = bytes.NewReader(data)
		report, err := ReadReport(r)
		check(err, r, func(w io.Writer) error { return WriteReport(w, report) })
	})
}
