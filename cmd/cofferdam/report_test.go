//go:build linux

package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cofferdam.dev/cofferdam/proxy/record"
)

func TestReport(t *testing.T) {
	records := []record.Record{
		{Kind: record.Proxy, Reason: "started"},
		{Kind: record.Decision, Verdict: "allow", Protocol: "tls", Name: "api.test", Port: 443, Conn: 1},
		{Kind: record.Close, Protocol: "tls", Name: "api.test", Port: 443, Conn: 1, BytesUp: 1000, BytesDown: 2048},
		{Kind: record.Close, Protocol: "tls", Name: "api.test", Port: 443, Conn: 2, BytesUp: 24, BytesDown: 0},
		{Kind: record.Close, Protocol: "tls", Name: "silent.test", Port: 443, Conn: 3}, // nothing got through
		{Kind: record.Decision, Verdict: "deny", Protocol: "dns", Name: "evil.test", Reason: "no rule allows it"},
		{Kind: record.Decision, Verdict: "deny", Protocol: "dns", Name: "evil.test", Reason: "no rule allows it", Count: 6},
		{Kind: record.Decision, Verdict: "deny", Protocol: "udp", Reason: "UDP is refused, but for DNS", Count: 2},
		{Kind: record.Decision, Verdict: "deny", Protocol: record.File, Name: "/w/.envrc", Rule: ".envrc", Reason: "it is run", Count: 1},
		{Kind: record.Decision, Verdict: "deny", Protocol: record.File, Name: "/w/a\x1b]0;x\a", Rule: "a", Reason: "b"},
		{Kind: record.Workspace, Changed: 3, Removed: 0},
		{Kind: record.Workspace, Changed: 7, Removed: 1},
		{Kind: record.Workspace, Name: "/w/tool", Reason: "made executable"},
	}
	r := summarize(records)
	r.Sandbox, r.Status, r.Duration = "run:w", 3, 61.04
	var b strings.Builder
	r.print(&b)
	want := `cofferdam: run:w ended after 1m1s with status 3
  files      7 changed, 1 removed
  executable /w/tool
  protected  /w/.envrc: it is run
  protected  /w/a\x1b]0;x\a: b
  refused    evil.test (dns): no rule allows it (7 times)
  refused    (udp): UDP is refused, but for DNS (2 times)
  reached    api.test:443 (tls) (2 times), 1KiB up, 2KiB down
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if r.empty() || !summarize(records[:2]).empty() {
		t.Error("what is empty is not as it should be")
	}
}

func TestReportOfALongSession(t *testing.T) {
	var records []record.Record
	for i := range 25 {
		records = append(records, record.Record{Kind: record.Workspace, Name: strings.Repeat("x", i+1)})
	}
	r := summarize(records)
	r.Sandbox = "run:w"
	var b strings.Builder
	r.print(&b)
	if lines := strings.Count(b.String(), "\n"); lines != 1+maxReported+1 || !strings.Contains(b.String(), "and 15 more: cofferdam log run:w") {
		t.Errorf("%d lines:\n%s", lines, &b)
	}
	if len(r.Executables) != 25 {
		t.Errorf("JSON has %d", len(r.Executables))
	}
}
