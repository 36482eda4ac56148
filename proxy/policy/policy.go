// Package policy says what one sandbox may reach: it parses a policy file,
// compiles it, and decides single requests. It opens no socket, reads no clock
// and logs nothing; a decision carries its reason.
//
// # From text to decision
//
// [Parse] walks the YAML strictly and reports every mistake with its line and
// column. The rules are compiled into one hash table, whose keys are the names
// of exact rules and the suffixes (".example.org") of wildcards: a trie of
// reversed labels that is reached at any depth in one step. [Policy.Decide]
// looks a [Name] up, and then what remains of it at each dot: so it meets every
// rule that matches, the most specific first, and applies them in the order that
// its documentation numbers. It allocates nothing unless it refuses an address.
// [Policy.Explain] says the same at length, for a person.
//
// # What a rule must be good for
//
// Two rules of one verdict for one pattern and port tie, and the order of the
// file must not decide: that is an error. So is a rule that can make no
// difference because others deny all that it speaks of: on each of its ports,
// or on all ports if it names none, a deny whose pattern covers the rule's own.
// That is an allow that never allows, or a deny inside a wider one. A rule of
// which some port is left is none, nor is an allow below a wider allow, which it
// takes precedence of. The rules of presets ([Presets]) are not held to this:
// the file's own rule wins a tie with them, and may deny what they allow.
//
// # Layers
//
// A sandbox may have the policies of an administrator, of who starts it, and of the
// project that it works on ([ParseLayers]). What all of them allow is allowed: the
// [Policy] that they make asks one after the other, so that there is one decision
// still. What they say beside the network is put together when they are parsed,
// and carried out by others.
//
// # Limits
//
// A budget says how much a rule lets through; the proxy counts. A policy speaks
// of names and ports. What an allowed server does with the
// bytes, or which of its tenants gets them inside an encrypted connection, it
// cannot see. A wildcard over a domain that hands out subdomains to strangers
// is caught only where the public suffix list knows that domain itself; a
// domain that has such suffixes below it (amazonaws.com) is not recognised.
package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Verdict is the outcome of a decision. Its zero value is Deny (I6).
type Verdict uint8

// The verdicts.
const (
	Deny Verdict = iota
	Allow
)

func (v Verdict) String() string {
	if v == Allow {
		return "allow"
	}
	return "deny"
}

// Protocol is how a connection must begin, and how the proxy checks its name.
// The zero Protocol is one that is not known (yet); no rule allows it.
type Protocol uint8

// The protocols. DNS is the question whether any rule could allow a name, asked
// before an address is handed out; no rule is written for it.
const (
	Unknown Protocol = iota
	TLS              // server name in the hello
	HTTP             // Host of every request
	SSH              // no name on the wire; the synthetic address says it
	TCP              // the same
	DNS
)

var protocolNames = [...]string{Unknown: "unknown", TLS: "tls", HTTP: "http", SSH: "ssh", TCP: "tcp", DNS: "dns"}

func (p Protocol) String() string {
	if int(p) < len(protocolNames) {
		return protocolNames[p]
	}
	return protocolNames[Unknown]
}

// Request is one thing to decide.
type Request struct {
	Protocol Protocol
	Name     Name // zero if the destination is only an address
	Port     uint16

	// Addr is the address that would be dialled; the zero Addr if the name has
	// not been resolved yet, which it must not be before it is allowed (I3).
	Addr netip.Addr
}

// Decision is the answer. The zero Decision denies.
type Decision struct {
	Verdict Verdict
	Reason  string // for the agent and the record; never empty from Decide
	Rule    string // text and line of the rule that decided; empty if none did

	// Addresses are pinned by the rule: dial one of these and resolve nothing. In
	// a policy of several layers another one may deny some. The caller must not
	// change them.
	Addresses []netip.Addr

	// ECH is set if the rule accepts a TLS hello that carries an encrypted one.
	ECH bool

	// Expects is the protocol of the rule that allows the name on the port. It
	// is set also where the verdict is Deny because the request's protocol is
	// another one, or Unknown: so it tells what to look for on the wire.
	Expects Protocol

	// Pinned is set if the rule names addresses, in every layer of the policy.
	Pinned bool

	// Budgets bound what the rules that allow it let through.
	// The policy itself does not count. Of a denial they are those of which one is
	// used up, and none if the denial has another reason.
	Budgets Budgets
}

// Rule is one line of a policy.
type Rule struct {
	Verdict  Verdict
	Protocol Protocol // Unknown for Deny: every protocol
	Shared   bool     // the wildcard over a shared-hosting suffix is meant
	Budget   *Budget  // nil bounds nothing
	ECH      bool     // of a TLS rule: the outer name of an encrypted client hello will do

	next *Rule  // of the same pattern, in the order of the file, then the presets'
	text string // for decisions

	Ports     []uint16 // never empty for Allow; empty for Deny means every port
	Addresses []netip.Addr
	Pattern   Pattern
	Preset    string // that the rule comes from; empty for a rule of the file itself

	// Line and Column are where the file names the rule's host, from 1; zero for
	// a rule of a preset.
	Line, Column int
}

func (r *Rule) at() position { return position{r.Line, r.Column} }

// covers reports whether the rule speaks of the port.
func (r *Rule) covers(port uint16) bool {
	return len(r.Ports) == 0 || slices.Contains(r.Ports, port)
}

// String is the rule in the policy's own syntax.
func (r *Rule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "{%s: %q", r.Verdict, r.Pattern.String())
	if len(r.Ports) > 0 {
		fmt.Fprintf(&b, ", ports: [%s]", join(r.Ports))
	}
	if r.Protocol != Unknown {
		fmt.Fprintf(&b, ", protocol: %s", r.Protocol)
	}
	if len(r.Addresses) > 0 {
		var quoted []string
		for _, a := range r.Addresses {
			quoted = append(quoted, fmt.Sprintf("%q", a.String()))
		}
		fmt.Fprintf(&b, ", addresses: [%s]", strings.Join(quoted, ", "))
	}
	if r.Shared {
		b.WriteString(", shared: true")
	}
	if r.Budget != nil {
		fmt.Fprintf(&b, ", budget: %s", r.Budget)
	}
	if r.ECH {
		b.WriteString(", ech: true")
	}
	b.WriteByte('}')
	return b.String()
}

// describe is the short form for decisions and records. Every rule has it ready,
// so that a decision need not make it.
func (r *Rule) describe() string {
	b := r.appendSummary(make([]byte, 0, 320))
	if r.Preset != "" {
		b = append(b, " (preset "...)
		b = append(b, r.Preset...)
	} else {
		b = append(b, " (line "...)
		b = strconv.AppendInt(b, int64(r.Line), 10)
	}
	return string(append(b, ')'))
}

// summary is describe without the place.
func (r *Rule) summary() string { return string(r.appendSummary(nil)) }

func (r *Rule) appendSummary(b []byte) []byte {
	b = append(b, r.Verdict.String()...)
	b = append(b, ' ')
	if r.Pattern.Wildcard {
		b = append(b, "*."...)
	}
	b = append(b, r.Pattern.Base.s...)
	for i, port := range r.Ports {
		b = append(b, [...]string{":", ", "}[min(i, 1)]...)
		b = strconv.AppendUint(b, uint64(port), 10)
	}
	if r.Protocol != Unknown {
		b = append(b, ' ')
		b = append(b, r.Protocol.String()...)
	}
	return b
}

func join(ports []uint16) string {
	text := make([]string, len(ports))
	for i, p := range ports {
		text[i] = fmt.Sprint(p)
	}
	return strings.Join(text, ", ")
}

// Policy is a compiled policy. It does not change and may be used by any number
// of goroutines. The zero Policy and a nil one deny everything (I6).
type Policy struct {
	name    string
	rules   []*Rule // the file's in its order, then the presets' in theirs
	presets []*Preset
	index   index
	addrs   map[netip.AddrPort]pinned // for connections to the bare address
	budgets map[string]*Budget        // by their keys
	ports   map[uint16]bool           // of all allow rules

	workspace Workspace
	files     []File
	limits    Limits

	layers   []*Policy         // of a policy that has several, the highest first; the fields above are then of none
	deciders []*Policy         // those that say something about the network
	reasons  map[string]string // of a layer among others: its constant reasons

	layer     Layer
	silent    bool // about the network, on which it is a project's right to have no opinion
	saysFiles bool // however few
}

// Default returns a policy that denies everything.
func Default() *Policy { return &Policy{name: "default", layer: User} }

// Name is the name given to [Parse]: a file path or a policy's name; of several
// layers all names.
func (p *Policy) Name() string {
	if p == nil {
		return ""
	}
	return p.name
}

// Mentions reports whether any rule allows anything on the port: whether what
// is sent there could still turn out to be allowed.
func (p *Policy) Mentions(port uint16) bool { return p != nil && p.ports[port] }

// Budgets returns the budgets of the rules by their keys. The caller must not
// change them.
func (p *Policy) Budgets() map[string]*Budget {
	if p == nil {
		return nil
	}
	return p.budgets
}

// Rules returns the rules of each layer in the order of its file, and after them
// those of the presets that it names.
func (p *Policy) Rules() []Rule {
	if p == nil {
		return nil
	}
	var rules []Rule
	for _, l := range p.Layers() {
		for _, r := range l.rules {
			rules = append(rules, *r)
		}
	}
	return rules
}

// String is the policy in its own syntax with every default written out, the
// rules of presets as comments. Parsed again it gives the same policy, but for
// the positions. Of several layers each has its text below a comment.
func (p *Policy) String() string {
	var b strings.Builder
	if p == nil {
		p = &Policy{}
	}
	if p.layers != nil {
		return p.layersText()
	}
	b.WriteString("version: 1\n")
	if !p.silent {
		p.appendNetwork(&b)
	}
	b.WriteString(p.Sections())
	return b.String()
}

func (p *Policy) appendNetwork(b *strings.Builder) {
	b.WriteString("network:\n  unknown: deny\n")
	own := p.rules
	if i := slices.IndexFunc(own, func(r *Rule) bool { return r.Preset != "" }); i >= 0 {
		own = own[:i]
	}
	if len(p.presets) > 0 {
		names := make([]string, len(p.presets))
		for i, set := range p.presets {
			names[i] = set.Name
		}
		fmt.Fprintf(b, "  presets: [%s]\n", strings.Join(names, ", "))
		for _, r := range p.rules[len(own):] {
			fmt.Fprintf(b, "    # %s: %s\n", r.Preset, r)
		}
	}
	if len(own) == 0 {
		b.WriteString("  rules: []\n")
		return
	}
	b.WriteString("  rules:\n")
	for _, r := range own {
		fmt.Fprintf(b, "    - %s\n", r)
	}
}
