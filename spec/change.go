package spec

import (
	"fmt"
	"strconv"
	"strings"
)

// Change is one thing that a rule did to a spec.
type Change struct {
	Rule   string // name of the rule: "mounts"
	Path   string // JSON path in the spec: "mounts[/etc/hosts]"
	Action string // [Dropped], [Added] or [Changed]
	Detail string // what exactly, without secrets; may be empty
	Reason string
}

// The actions of a [Change].
const (
	Dropped = "dropped"
	Added   = "added"
	Changed = "changed"
)

// String returns the change as one readable line: "mounts: dropped mounts[/x] (bind of /y): not granted".
// Text from the spec cannot break the line.
func (c Change) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s %s", c.Rule, c.Action, c.Path)
	if c.Detail != "" {
		fmt.Fprintf(&b, " (%s)", c.Detail)
	}
	fmt.Fprintf(&b, ": %s", c.Reason)
	return oneLine(b.String())
}

// RefusedError says that a spec cannot be made safe, or asks for something that will not be given.
type RefusedError struct {
	Path   string // JSON path in the spec
	Reason string
}

// Error returns "refused: path: reason", on one line.
func (e *RefusedError) Error() string {
	return oneLine("refused: " + e.Path + ": " + e.Reason)
}

func refused(path, format string, args ...any) error {
	return &RefusedError{Path: path, Reason: fmt.Sprintf(format, args...)}
}

// oneLine escapes what a terminal or a log would act on; paths and names come from whoever wrote the spec.
func oneLine(s string) string {
	var b strings.Builder
	for _, r := range s {
		if strconv.IsPrint(r) {
			b.WriteRune(r)
		} else {
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		}
	}
	return b.String()
}

// recorder collects the changes of one call.
type recorder struct {
	rule    string // the rule that is running
	changes []Change
}

func (r *recorder) dropped(path, detail, reason string) { r.add(path, Dropped, detail, reason) }
func (r *recorder) added(path, detail, reason string)   { r.add(path, Added, detail, reason) }
func (r *recorder) changed(path, detail, reason string) { r.add(path, Changed, detail, reason) }

func (r *recorder) add(path, action, detail, reason string) {
	r.changes = append(r.changes, Change{Rule: r.rule, Path: path, Action: action, Detail: detail, Reason: reason})
}
