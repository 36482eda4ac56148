package attack

import (
	"fmt"
	"slices"
	"strings"
)

// A Wall is what stands in the way of an attack.
type Wall string

// The two walls, and what holds them up.
const (
	Network   Wall = "network"
	Files     Wall = "files"
	Workspace Wall = "workspace" // the part of the file wall that protects the workspace's owner
	Kernel    Wall = "kernel"    // what the agent may ask the kernel for
)

// Evidence is by what one sees that an attack has succeeded. Whatever it is, the rest of the world must not have seen anything either.
type Evidence string

// Kinds of evidence.
const (
	Internet Evidence = "internet" // something arrived there
	Host     Evidence = "host"     // a service of the host was connected to
	Secret   Evidence = "secret"   // the agent knows what is written in Place.Secret
	Spoiled  Evidence = "spoiled"  // Place.Canary, a folder of the host, is not what it was
	Planted  Evidence = "planted"  // Leaves is in the workspace afterwards, with "planted" in it
	Answer   Evidence = "answer"   // the probe has done it: there is nothing to see outside
)

// Down is where the control of an attack is made.
type Down string

// Places without a wall.
const (
	// Outside is the host without a sandbox, or a privileged container that shares its network, its processes and the canary.
	Outside Down = "outside"
	// Private is Outside in namespaces of its own, for what would spoil the host.
	Private Down = "private"
	// Permitted is a sandbox whose policy allows the lab's names: what the attack uses is there, but for the permission.
	Permitted Down = "permitted"
)

// An Attack is one thing that an agent tries. Its strings may have the placeholders of Place.
type Attack struct {
	ID        string   // FAMILY.NAME, unique
	Tries     string   // continues "an agent tries to"
	Wall      Wall     // that stops it
	Invariant string   // that says so, by its number in ARCHITECTURE.md
	Source    string   // where it is described: a CVE, an RFC, a manual page, a kernel document, …
	Try       string   // words for the probe, separated by single spaces
	Script    string   // or a script for the shell, which succeeds if its status is 0
	Control   []string // words for the probe with the wall down, in order, of which the last shows the way; none means Try or Script
	Down      Down     // where the control is made
	Shows     Evidence // that the control succeeded, and the attack did not
	Leaves    string   // of a planted file: its path in the workspace

	// Test is the Go test of package integration that makes it instead, where it takes more than one agent that tries one thing.
	Test string

	// Within are names of which connections are part of the attack: what leaves UPLINK for them, and for the resolver about them, is what the policy allows.
	// None means that nothing may leave.
	Within []string
	// Lax is set where the attack is made in the sandbox of Permitted: the names are allowed, and something else must stop it.
	Lax bool

	Refused  []string // errors of which one must be the answer, by their names in errno(3); none means any
	At       int      // milliseconds within which it must be refused; 0 means any time
	Answered bool     // the agent may get an answer: only what the world saw counts
}

// A Place is where an attack is made.
type Place struct {
	Host      string // {HOST}: port of a service that the host has on each of its addresses, and on loopback
	Canary    string // {CANARY}: a folder of the host that every user of it may write to
	Secret    string // {SECRET}: a file in it
	SUID      string // {SUID}: a set-user-ID copy of the probe that the agent can see
	Workspace string // {WORKSPACE}: as the agent sees it
}

// Words returns what the probe is told, in p.
func (a Attack) Words(p Place) []string {
	if a.Script != "" {
		return []string{"sh", p.fill(a.Script)}
	}
	return p.words(a.Try)
}

// ControlWords returns what the probe is told with the wall down, in order.
func (a Attack) ControlWords(p Place) [][]string {
	if len(a.Control) == 0 {
		return [][]string{a.Words(p)}
	}
	var all [][]string
	for _, c := range a.Control {
		all = append(all, p.words(c))
	}
	return all
}

func (p Place) words(s string) []string { return strings.Split(p.fill(s), " ") }

func (p Place) fill(s string) string {
	return strings.NewReplacer("{HOST}", p.Host, "{CANARY}", p.Canary, "{SECRET}", p.Secret, "{SUID}", p.SUID, "{WORKSPACE}", p.Workspace).Replace(s)
}

// Family is the part of the ID before the point.
func (a Attack) Family() string {
	family, _, _ := strings.Cut(a.ID, ".")
	return family
}

// Parsed reports whether the attack is on what the proxy reads, which is the same program on every front.
func (a Attack) Parsed() bool {
	return slices.Contains([]string{"dns", "http", "tls", "via"}, a.Family())
}

// Alone reports whether the attack takes nothing but an agent that tries, and a look at the world: neither a repository, nor a test of its own.
func (a Attack) Alone() bool { return a.Wall != Workspace && a.Test == "" }

// All returns every attack, family by family. The caller may keep it.
func All() []Attack {
	return slices.Concat(network, names, resolvers, hellos, requests, tunnels, spelled, host, files, kernel, workspace)
}

// Mute reports whether the attempt is bytes to which the lab has no answer that a probe would know: its control is seen by what arrives.
func (a Attack) Mute() bool {
	word, _, _ := strings.Cut(a.Try, " ")
	return slices.Contains([]string{"wire", "tls-wire", "udp-wire", "dns"}, word)
}

// check returns what is wrong with a row of the table.
func (a Attack) check() error {
	family, name, _ := strings.Cut(a.ID, ".")
	switch {
	case family == "" || name == "":
		return fmt.Errorf("attack %q: no FAMILY.NAME", a.ID)
	case a.Tries == "" || a.Wall == "" || a.Invariant == "" || a.Source == "":
		return fmt.Errorf("attack %s: it does not say what is tried, and why it must fail", a.ID)
	case a.Test != "" && (a.Try != "" || a.Script != "" || len(a.Control) > 0):
		return fmt.Errorf("attack %s: a test of its own makes it", a.ID)
	case a.Test == "" && (a.Try == "") == (a.Script == ""):
		return fmt.Errorf("attack %s: either words for the probe or a script", a.ID)
	case a.Shows == "" || a.Down == "":
		return fmt.Errorf("attack %s: no control", a.ID)
	case (a.Shows == Planted) != (a.Leaves != ""):
		return fmt.Errorf("attack %s: what is planted is left somewhere", a.ID)
	case a.Shows == Host && !strings.Contains(a.Try+a.Script, "{HOST}") && !strings.Contains(a.Try, "@"):
		return fmt.Errorf("attack %s: the host's service is not named", a.ID)
	}
	return nil
}
