package userns

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cofferdam.dev/cofferdam/shim/runner/pid1"
)

func TestParseRanges(t *testing.T) {
	const text = "# a comment\nann:100000:65536\nbob:165536:65536\n\n1000:300000:10\nannabel:1:1\nann:400000:0\nann:500000\n"
	got, err := parseRanges(text, "ann", 1000)
	if diff := cmp.Diff([]pid1.Range{{First: 100000, Count: 65536}, {First: 300000, Count: 10}}, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	for line, says := range map[string]string{
		"ann:x:1": `"x" is not an id`, "ann:1:x": `"x" is not a number of ids`, "ann:-1:5": "is not an id", "ann:0:5": "are not there",
		"ann:4294967295:1": "are not there", "ann:4294967290:6": "are not there", "1000:4294967296:1": "is not an id", "ann:1:99999999999999999999": "is not a number",
	} {
		if got, err := parseRanges(line+"\n", "ann", 1000); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, %v", line, got, err)
		}
	}
}

func TestIntersect(t *testing.T) {
	r := func(numbers ...uint32) (all []pid1.Range) {
		for i := 0; i < len(numbers); i += 2 {
			all = append(all, pid1.Range{First: numbers[i], Count: numbers[i+1]})
		}
		return all
	}
	for _, test := range []struct{ a, b, want []pid1.Range }{
		{r(100, 10), r(100, 10), r(100, 10)},
		{r(100, 10), r(105, 10), r(105, 5)},
		{r(100, 10), r(110, 10), nil},
		{r(100, 10), nil, nil},
		{r(300, 10, 100, 10), r(90, 400), r(100, 10, 300, 10)},
		{r(100, 10, 105, 10, 112, 1), r(0, 1000), r(100, 15)}, // each id once, or the kernel refuses the map
		{r(1<<32-11, 10), r(1<<32-6, 5), r(1<<32-6, 5)},
	} {
		if diff := cmp.Diff(test.want, intersect(test.a, test.b)); diff != "" {
			t.Errorf("%v and %v: %s", test.a, test.b, diff)
		}
	}
}

// What is too much for an image or a command line is left out, and the last id is in no range.
func TestReserve(t *testing.T) {
	many := make([]pid1.Range, 40)
	for i := range many {
		many[i] = pid1.Range{First: uint32(100 * i), Count: 1}
	}
	for _, test := range []struct {
		ranges []pid1.Range
		id     uint32
		count  uint32
		n      int
	}{
		{[]pid1.Range{{First: 100000, Count: 65536}}, 165535, 65535, 1},
		{[]pid1.Range{{First: 100000, Count: 1 << 20}}, 165535, 65535, 1},
		{[]pid1.Range{{First: 100000, Count: 65535}, {First: 300000, Count: 65536}}, 300000, 65535, 1},
		{[]pid1.Range{{First: 100000, Count: 1}}, 100000, 0, 0},
		{many, 100 * (maxRanges - 1), maxRanges - 1, maxRanges - 1},
	} {
		id, others := IDs{Ranges: bounded(test.ranges)}.Reserve()
		count := uint32(0)
		for _, r := range others {
			count += r.Count
			if id >= r.First && id-r.First < r.Count {
				t.Errorf("%d is in %v", id, r)
			}
		}
		if id != test.id || count != test.count || len(others) != test.n {
			t.Errorf("%v: %d and %v", test.ranges, id, others)
		}
	}
	if got := (IDs{[]pid1.Range{{First: 5, Count: 6}, {First: 70, Count: 8}}, "/usr/bin"}).text(true); got != "/usr/bin allow 5 5 6 70 70 8" {
		t.Error(got)
	}
}
