package attack

import (
	"fmt"
	"strings"
)

// Document is the section of SECURITY.md that lists every attack, in Markdown, from its heading to its end.
func Document() string {
	var b strings.Builder
	b.WriteString(`## The attacks

Each of these is made by the tests on every front: by an agent in a container of either containerd (one that asks for nothing, one that asks for everything, one
that is not root), and in ` + "`cofferdam run`" + ` as root, as an ordinary user and with subordinate ids. What counts is what the world saw: the internet, the services
and files of the host, the workspace. Each has a control, the same attempt where the wall is down, which must succeed. ` + "`make attack`" + ` makes them all, at rest,
under load and after faults, and prints attack, front, outcome and control. An invariant is meant as in ARCHITECTURE.md.
`)
	for _, wall := range []struct {
		wall Wall
		name string
	}{{Network, "Network"}, {Files, "Files"}, {Workspace, "Workspace"}, {Kernel, "Kernel"}} {
		fmt.Fprintf(&b, "\n### %s\n\n| attack | an agent tries to | invariant | described in |\n|---|---|---|---|\n", wall.name)
		for _, a := range All() {
			if a.Wall == wall.wall {
				fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", a.ID, cell(a.Tries), a.Invariant, cell(a.Source))
			}
		}
	}
	return b.String()
}

// cell is text in a cell of a table.
func cell(s string) string {
	return strings.NewReplacer("|", `\|`, "<", "&lt;", "*", `\*`, "_", `\_`, "\n", " ").Replace(s)
}
