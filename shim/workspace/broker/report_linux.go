package broker

import (
	"hash/maphash"
	"sync"

	"cofferdam.dev/cofferdam/shim/workspace"
)

// A Report tells what an agent did to its workspaces.
type Report struct {
	// Changed and Removed are numbers of paths that were made or written, and that were removed or renamed, each counted once.
	Changed int `json:"changed"`
	Removed int `json:"removed"`
	// Executables are files that the agent made executable, and Refused what it was refused, in the order of their first time.
	Executables []string  `json:"executables,omitempty"`
	Refused     []Refusal `json:"refused,omitempty"`
	// More is how many further ones of both there were.
	More int `json:"more,omitempty"`
}

// A Refusal is a protected place that the agent tried to change.
type Refusal struct {
	Path   string `json:"path"`
	Rule   string `json:"rule"` // the pattern
	Reason string `json:"reason"`
	Times  int    `json:"times"`
}

// Bounds of a report: what it lists, the bytes of each name in it, and what it counts exactly. An agent chooses the names, and is not to make the
// report too long to be told.
const (
	maxListed  = 200
	maxName    = 512
	maxCounted = 1 << 18
)

// recorder gathers a Report. It is safe for concurrent use.
type recorder struct {
	mu      sync.Mutex
	seed    maphash.Seed
	written map[uint64]struct{} // by hash: names can be many and long
	gone    map[uint64]struct{}
	listed  map[string]int // index in report.Refused
	made    map[string]bool
	report  Report
}

func newRecorder() *recorder {
	return &recorder{
		seed: maphash.MakeSeed(), written: map[uint64]struct{}{}, gone: map[uint64]struct{}{}, listed: map[string]int{}, made: map[string]bool{},
	}
}

func (r *recorder) count(set map[uint64]struct{}, n *int, name string) {
	h := maphash.String(r.seed, name)
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, seen := set[h]; seen {
		return
	}
	*n++
	if len(set) < maxCounted {
		set[h] = struct{}{}
	}
}

func (r *recorder) changed(name string) { r.count(r.written, &r.report.Changed, name) }
func (r *recorder) removed(name string) { r.count(r.gone, &r.report.Removed, name) }

func (r *recorder) executable(name string) {
	name = name[:min(len(name), maxName)]
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.made[name]:
	case len(r.made) == maxListed:
		r.report.More++
	default:
		r.made[name] = true
		r.report.Executables = append(r.report.Executables, name)
	}
}

func (r *recorder) refused(name string, v workspace.Verdict) {
	name = name[:min(len(name), maxName)]
	r.mu.Lock()
	defer r.mu.Unlock()
	if i, seen := r.listed[name]; seen {
		r.report.Refused[i].Times++
		return
	}
	if len(r.listed) == maxListed {
		r.report.More++
		return
	}
	r.listed[name] = len(r.report.Refused)
	r.report.Refused = append(r.report.Refused, Refusal{name, v.Pattern, v.Reason, 1})
}

// read returns a copy.
func (r *recorder) read() Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.report
	out.Executables = append([]string(nil), out.Executables...)
	out.Refused = append([]Refusal(nil), out.Refused...)
	return out
}
