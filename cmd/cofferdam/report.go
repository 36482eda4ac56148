//go:build linux

package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"

	"cofferdam.dev/cofferdam/proxy/record"
	"cofferdam.dev/cofferdam/shim/runner"
	"cofferdam.dev/cofferdam/shim/sandbox"
)

// sessionReport is what a sandbox has done, by its decision log.
type sessionReport struct {
	Sandbox  string        `json:"sandbox"`
	Status   runner.Status `json:"status"`
	Duration float64       `json:"seconds"`

	// Changed and Removed are numbers of paths in workspaces.
	Changed     int64    `json:"files_changed"`
	Removed     int64    `json:"files_removed"`
	Executables []string `json:"made_executable,omitempty"`
	// Protected are places that the agent tried to change.
	Protected []refusal     `json:"protected,omitempty"`
	Reached   []destination `json:"reached,omitempty"`
	Refused   []refusal     `json:"refused,omitempty"`
}

type refusal struct {
	What   string `json:"what"`
	Reason string `json:"reason"`
	Times  int64  `json:"times"`
}

type destination struct {
	To          string `json:"to"`
	Protocol    string `json:"protocol"`
	Connections int64  `json:"connections"`
	BytesUp     int64  `json:"bytes_up"`
	BytesDown   int64  `json:"bytes_down"`
}

// reportOn reads what a sandbox has done since a time from its log.
func reportOn(p sandbox.Paths, id string, since time.Time) (sessionReport, error) {
	records, err := newTail(p.Logs, func(name string) bool {
		of, ok := sandbox.LogID(name)
		return ok && of == id
	}).read()
	r := summarize(slices.DeleteFunc(records, func(e record.Record) bool { return e.Time.Before(since) }))
	r.Sandbox, r.Duration = id, time.Since(since).Seconds()
	return r, err
}

// summarize puts together what belongs together, the most frequent first.
func summarize(records []record.Record) (r sessionReport) {
	protected, refused, reached := map[string]*refusal{}, map[string]*refusal{}, map[string]*destination{}
	for _, e := range records {
		switch {
		case e.Kind == record.Workspace && e.Name != "":
			r.Executables = append(r.Executables, record.Plain(e.Name))
		case e.Kind == record.Workspace:
			r.Changed, r.Removed = e.Changed, e.Removed
		case e.Kind == record.Decision && e.Verdict == "deny":
			set, what := refused, strings.TrimSpace(e.Destination()+" ("+record.Plain(e.Protocol)+")")
			if e.Protocol == record.File {
				set, what = protected, record.Plain(e.Name)
			}
			reason := record.Plain(e.Reason)
			if set[what+reason] == nil {
				set[what+reason] = &refusal{What: what, Reason: reason}
			}
			set[what+reason].Times += max(e.Count, 1)
		case e.Kind == record.Close && e.BytesUp+e.BytesDown > 0:
			to, protocol := e.Destination(), record.Plain(e.Protocol)
			d := reached[to+protocol]
			if d == nil {
				d = &destination{To: to, Protocol: protocol}
				reached[to+protocol] = d
			}
			d.Connections++
			d.BytesUp += e.BytesUp
			d.BytesDown += e.BytesDown
		}
	}
	for _, d := range reached {
		r.Reached = append(r.Reached, *d)
	}
	slices.SortFunc(r.Reached, func(a, b destination) int {
		return cmp.Or(cmp.Compare(b.BytesUp+b.BytesDown, a.BytesUp+a.BytesDown), cmp.Compare(a.To, b.To), cmp.Compare(a.Protocol, b.Protocol))
	})
	r.Protected, r.Refused = byTimes(protected), byTimes(refused)
	return r
}

func byTimes(set map[string]*refusal) []refusal {
	var list []refusal
	for _, r := range set {
		list = append(list, *r)
	}
	slices.SortFunc(list, func(a, b refusal) int {
		return cmp.Or(cmp.Compare(b.Times, a.Times), cmp.Compare(a.What, b.What), cmp.Compare(a.Reason, b.Reason))
	})
	return list
}

// empty reports whether there is nothing that a person would want to know.
func (r sessionReport) empty() bool {
	return r.Changed+r.Removed == 0 && len(r.Executables)+len(r.Protected)+len(r.Reached)+len(r.Refused) == 0
}

// maxReported is how many lines a person gets of each kind.
const maxReported = 10

// print prints the report for people.
func (r sessionReport) print(w io.Writer) {
	fmt.Fprintf(w, "cofferdam: %s ended after %s with status %d\n", r.Sandbox, (time.Duration(r.Duration*1000) * time.Millisecond).Round(100*time.Millisecond), r.Status)
	line := func(kind, format string, args ...any) {
		fmt.Fprintf(w, "  %-10s "+format+"\n", append([]any{kind}, args...)...)
	}
	rest := func(kind string, n int) {
		if n > maxReported {
			line(kind, "… and %d more: cofferdam log %s", n-maxReported, r.Sandbox)
		}
	}
	if r.Changed+r.Removed > 0 {
		line("files", "%d changed, %d removed", r.Changed, r.Removed)
	}
	for _, name := range r.Executables[:min(len(r.Executables), maxReported)] {
		line("executable", "%s", name)
	}
	rest("executable", len(r.Executables))
	for _, set := range []struct {
		kind string
		list []refusal
	}{{"protected", r.Protected}, {"refused", r.Refused}} {
		for _, e := range set.list[:min(len(set.list), maxReported)] {
			line(set.kind, "%s: %s%s", e.What, e.Reason, times(e.Times))
		}
		rest(set.kind, len(set.list))
	}
	for _, d := range r.Reached[:min(len(r.Reached), maxReported)] {
		line("reached", "%s (%s)%s, %s up, %s down", d.To, d.Protocol, times(d.Connections), units.BytesSize(float64(d.BytesUp)), units.BytesSize(float64(d.BytesDown)))
	}
	rest("reached", len(r.Reached))
}

func times(n int64) string {
	if n == 1 {
		return ""
	}
	return fmt.Sprintf(" (%d times)", n)
}

// reporting says how a session's end is reported.
type reporting uint8

const (
	reportNothing reporting = iota
	reportPeople            // if there is anything to tell
	reportJSON
)

// write reports on a session. That it cannot be told is no reason for another status than the agent's.
func (how reporting) write(w io.Writer, p sandbox.Paths, id string, since time.Time, status runner.Status) {
	if how == reportNothing {
		return
	}
	r, err := reportOn(p, id, since)
	r.Status = status
	switch {
	case how == reportJSON:
		err = errors.Join(err, json.NewEncoder(w).Encode(r))
	case !r.empty():
		r.print(w)
	}
	if err != nil {
		fmt.Fprintf(w, "cofferdam: warning: report: %v\n", err)
	}
}
