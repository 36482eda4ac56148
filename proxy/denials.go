package proxy

import (
	"fmt"
	"sync"
	"time"

	"cofferdam.dev/cofferdam/proxy/policy"
	"cofferdam.dev/cofferdam/proxy/record"
)

const (
	foldInterval = 10 * time.Second
	maxSingles   = 50 // denials in an interval with a record of their own
	maxKinds     = 20 // kinds of further ones that are counted apart
)

// denials records what is denied, so that a person can read of each, but an agent
// cannot fill the log by trying. The first maxSingles of an interval are recorded
// one by one. Further ones are counted, those that differ in nothing but the
// connection together, and when the interval ends each kind gets one record with
// its count; beyond maxKinds kinds all the rest gets one. So nothing is left out
// of the sum. What is allowed never comes here.
type denials struct {
	records *record.Writer
	now     func() time.Time

	mu      sync.Mutex // guards the rest
	begin   time.Time  // of the interval
	singles int        // written in it
	counts  map[record.Record]int64
	order   []record.Record // of counts
	rest    int64
	timer   *time.Timer // that flushes; nil if nothing is counted
}

func newDenials(records *record.Writer, now func() time.Time) *denials {
	return &denials{records: records, now: now, counts: make(map[record.Record]int64)}
}

// add records one denial, now or by a count later.
func (d *denials) add(r record.Record) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	if now.Sub(d.begin) >= foldInterval {
		d.write()
		d.begin, d.singles = now, 0
	}
	if d.singles < maxSingles {
		d.singles++
		d.records.Write(r)
		return
	}
	if d.timer == nil {
		d.timer = time.AfterFunc(foldInterval-now.Sub(d.begin), d.flush)
	}
	kind := r
	kind.Conn = 0
	if kind.Name != "" {
		kind.Address = "" // synthetic ones stand for the name, and others do not matter beside it
	}
	if _, ok := d.counts[kind]; !ok {
		if len(d.counts) == maxKinds {
			d.rest++
			return
		}
		d.order = append(d.order, kind)
	}
	d.counts[kind]++
}

// flush writes what is counted.
func (d *denials) flush() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.write()
}

// write is flush with d.mu held.
func (d *denials) write() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	for _, kind := range d.order {
		r := kind
		r.Count = d.counts[kind]
		d.records.Write(r)
	}
	if d.rest > 0 {
		d.records.Write(record.Record{
			Kind: record.Decision, Verdict: policy.Deny.String(), Count: d.rest,
			Reason: fmt.Sprintf("too many different denials in %v to record each", foldInterval),
		})
	}
	clear(d.counts)
	d.order, d.rest = nil, 0
}
