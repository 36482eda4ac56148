// Package conformance is what programs in an image may count on: a table of what they need of a kernel and of a machine, with a script for each that
// has it. The tests run every script on every front; CONFORMANCE.md is made of the same table.
//
// A row that says why something does not work has a script too, which must fail, and work without walls: what the document says is missing is
// missing because of them.
//
// To add one, put a row into the file of its family, and run `go test ./integration/conformance -update`.
package conformance

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Who must be able to do something.
type Who string

// The zero Who is everybody: root of an image and an ordinary user, under an engine and in cofferdam run.
const (
	Everybody Who = ""
	// Root is root of an image, under an engine and in cofferdam run, there with subordinate ids where the caller is not root.
	Root Who = "root"
)

// A Need is one thing that programs do.
type Need struct {
	ID     string // FAMILY.NAME, unique
	Does   string // in a few words, without a verb for who does it
	Who    Who
	Script string   // for sh -eu, in an empty folder; it fails if the need is not met
	Needs  []string // programs, beside a shell, coreutils, util-linux and Python
	Never  string   // why it does not work, if it does not; Script then fails, and works as root without walls
	Leaves bool     // it is about other machines: its control needs a network
	Where  Where
}

// Where a script runs; what is not said of the workspace holds in other folders.
type Where int

// The zero Where is the private /tmp.
const (
	Tmp Where = iota
	Workspace
)

// All returns every need, family by family. The caller may keep it.
func All() []Need {
	return slices.Concat(processes, memory, network, files, workspace, identity, kernel, terminals)
}

func (n Need) check() error {
	family, name, _ := strings.Cut(n.ID, ".")
	switch {
	case family == "" || name == "":
		return fmt.Errorf("need %q: no FAMILY.NAME", n.ID)
	case n.Does == "" || n.Script == "":
		return fmt.Errorf("need %s: it does not say what is done, and how", n.ID)
	case strings.Contains(n.Does+n.Never, "|"):
		return errors.New(n.ID + ": a bar would end the cell of a table")
	}
	return nil
}

// families by the first part of an ID, in the order of the document.
var families = []struct{ name, title string }{
	{"process", "Processes, signals, time"},
	{"memory", "Memory, and what processes share"},
	{"net", "The network inside"},
	{"file", "Files outside of the workspace"},
	{"workspace", "The workspace"},
	{"id", "Users"},
	{"kernel", "What else a kernel is asked for"},
	{"tty", "Terminals"},
}

// Document is CONFORMANCE.md.
func Document() string {
	var b strings.Builder
	b.WriteString(`# What works inside

What programs in an image may count on, under an engine and in ` + "`cofferdam run`" + `, and what they may not. Each line is a test
(` + "`integration/conformance`" + `), made on every front in ` + "`make test`" + `; this file is made of the same table. Not in it, and tested too: package managers and
compilers (apt, pip, npm, cargo, go, gcc, make), curl, wget, java, git by https and ssh, in ` + "`integration/run_tools_test.go`" + ` and ` + "`integration/conformance_test.go`" + `.
`)
	all := All()
	for _, f := range families {
		fmt.Fprintf(&b, "\n## %s\n\n| works | |\n|---|---|\n", f.title)
		for _, n := range all {
			if family, _, _ := strings.Cut(n.ID, "."); family == f.name && n.Never == "" {
				who := ""
				if n.Who == Root {
					who = " (root of an image)"
				}
				fmt.Fprintf(&b, "| `%s` | %s%s |\n", n.ID, n.Does, who)
			}
		}
		first := true
		for _, n := range all {
			if family, _, _ := strings.Cut(n.ID, "."); family != f.name || n.Never == "" {
				continue
			}
			if first {
				b.WriteString("\n| does not work | | why |\n|---|---|---|\n")
				first = false
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", n.ID, n.Does, n.Never)
		}
	}
	return b.String()
}
