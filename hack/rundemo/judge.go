//go:build linux

package main

import (
	"fmt"
	"strings"
)

// A promise is checked by what is known outside.
type promise struct {
	text  string
	wall  bool // something is kept from the agent; otherwise it is given something
	check func(s *scene) (kept bool, evidence string)
}

var promises = []promise{
	{"it works in its project", false, func(s *scene) (bool, string) {
		got := strings.TrimSpace(s.file("report.txt"))
		return got == s.token, fmt.Sprintf("on the host, report.txt says %q", got)
	}},
	{"it reaches the name that is allowed", false, func(s *scene) (bool, string) {
		n := s.ears.requests("web.test")
		return n > 0, fmt.Sprintf("the web server got %d with Host: web.test", n)
	}},
	{"it reaches no other name", true, func(s *scene) (bool, string) {
		n := s.ears.requests("other.test")
		return n == 0, fmt.Sprintf("the web server got %d with Host: other.test", n)
	}},
	{"it is told why, and so are you", true, func(s *scene) (bool, string) {
		inside := strings.Contains(s.file("answers"), "cofferdam: access denied")
		outside := strings.Contains(s.log, "other.test")
		return inside && outside, "in the refusal and in the log"
	}},
	{"it cannot read the keys in your home", true, func(s *scene) (bool, string) {
		return !strings.Contains(s.file("answers"), s.secret), s.secretFile()
	}},
	{"it sees no process of the host", true, func(s *scene) (bool, string) {
		seen := s.file("processes")
		return strings.Contains(seen, "agent.sh") && !strings.Contains(seen, "rundemo"), "whether its list has this demonstration"
	}},
	{"no TCP connection to the host", true, func(s *scene) (bool, string) {
		n := s.ears.heard("tcp")
		return n == 0, fmt.Sprintf("%d heard, on every address", n)
	}},
	{"no UDP to the host", true, func(s *scene) (bool, string) {
		n := s.ears.heard("udp")
		return n == 0, fmt.Sprintf("%d heard, on every address", n)
	}},
	{"it ends with what started it", true, func(s *scene) (bool, string) { return !s.outlived, "after a SIGKILL" }},
}

// judge prints how each promise fared, and beside it without walls.
func judge(s, control *scene) (kept bool) {
	const row = "  %-37s %-6s %-8s %s\n"
	title("What is so, seen from outside; and the same script without walls")
	fmt.Printf(row, "", "walls", "without", "evidence")
	kept = true
	for _, p := range promises {
		ok, evidence := p.check(s)
		without, _ := p.check(control)
		verdict, other := "ok", "ok"
		switch {
		case !ok && p.wall:
			verdict, kept = "LEAK", false
		case !ok:
			verdict, kept = "FAILED", false
		case without == p.wall: // a wall makes no difference, or the task cannot be done without one
			verdict, kept = "DEAF", false
		}
		if !without {
			other = "not so"
		}
		fmt.Printf(row, p.text, verdict, other, evidence)
	}
	return kept
}
