package policy

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Bounds of a policy file. Most are written by people; the longest are lists of
// domains that somebody publishes. A million rules of 64 bytes are more than
// any of these, and about the most that is loaded while a person waits; in
// memory each takes a few hundred bytes.
const (
	maxRules  = 1 << 20
	maxFile   = 64 * maxRules
	maxPorts  = 64
	maxAddrs  = 64
	maxErrors = 100 // shown; the rest are counted
)

// Parse reads a policy that is the only one, of somebody who may grant. name is
// what error texts call it, a path or a policy's name. Unknown keys, repeated keys, wrong types, rules that contradict each
// other and rules that decide nothing are errors; all of them are reported at
// once, by position, each on a line as "name:line:column: key: message". Keys
// of later versions are refused by name.
func Parse(name string, data []byte) (*Policy, error) {
	return Source{Layer: User, Name: name, Text: data}.Parse()
}

// Parse reads one layer, as the function does.
func (s Source) Parse() (*Policy, error) {
	data := s.Text
	if len(data) > maxFile {
		p := s.parser()
		p.fail(start, "", "larger than %d bytes", maxFile)
		return nil, p.err()
	}
	short, runs, left := elide(data)
	p := s.parser()
	p.runs = runs
	if left <= maxYAML {
		p.read(short)
	}
	if len(p.runs) > 0 { // the lines mean something else where they stand
		p, left = s.parser(), len(data)
		if left <= maxYAML {
			p.read(data)
		}
	}
	if left > maxYAML {
		p.fail(start, "", "more than %d bytes beside plain rules, which say a name and at most ports and protocol: - {allow: NAME, ports: [443], protocol: tls}", maxYAML)
	}
	policy := p.compile()
	if err := p.err(); err != nil {
		return nil, err
	}
	return policy, nil
}

func (s Source) parser() *parser { return &parser{name: s.Name, layer: s.Layer} }

// parser collects what a policy says, and mistakes.
type parser struct {
	name     string
	layer    Layer
	runs     []run // lines that data lacks, not yet put back
	rules    []*Rule
	presets  []*Preset
	problems []problem

	workspace Workspace
	files     []File
	limits    Limits
	// Whether there is such a section, however empty.
	saysNetwork, saysFiles bool
}

// position is a place in the file; both count from 1.
type position struct{ line, column int }

// start is where a problem of the whole file is.
var start = position{1, 1}

// at is where a node begins. An empty document has no place of its own.
func at(n *yaml.Node) position { return position{max(n.Line, 1), max(n.Column, 1)} }

type problem struct {
	at   position
	text string
}

// read parses the YAML and what it says. It leaves runs of p if the file is not
// even YAML.
func (p *parser) read(data []byte) {
	var doc yaml.Node
	if err := yaml.Load(data, &doc); err != nil {
		where, message := start, err.Error()
		if le, ok := errors.AsType[*yaml.LoadError](err); ok {
			where, message = position{max(le.Mark.Line, 1), max(le.Mark.Column, 1)}, le.Message
		}
		p.fail(where, "", "%s", message)
		return
	}
	root := &doc
	if doc.Kind == yaml.DocumentNode && len(doc.Content) == 1 {
		root = doc.Content[0]
	}
	p.document(root)
}

// err joins the problems in the order of the file.
func (p *parser) err() error {
	slices.SortStableFunc(p.problems, func(a, b problem) int {
		return cmp.Or(cmp.Compare(a.at.line, b.at.line), cmp.Compare(a.at.column, b.at.column))
	})
	var errs []error
	for i, problem := range p.problems {
		if i == maxErrors {
			errs = append(errs, fmt.Errorf("%s: and %d more", p.name, len(p.problems)-maxErrors))
			break
		}
		errs = append(errs, fmt.Errorf("%s:%d:%d: %s", p.name, problem.at.line, problem.at.column, problem.text))
	}
	return errors.Join(errs...)
}

func (p *parser) fail(where position, key, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if key != "" {
		text = key + ": " + text
	}
	p.problems = append(p.problems, problem{where, printable(text)})
}

// printable escapes what a terminal would act on: an agent may have written the
// file.
func printable(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) < 0 {
		return s
	}
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

// later are the keys that the language has but this version does not enforce.
// Ignoring one would mean less protection than the file promises.
var later = map[string][]string{
	"network": {"ask_timeout"},
}

// mapping calls the function of each known key of n, and reports the rest. It
// returns false if n is no mapping.
func (p *parser) mapping(n *yaml.Node, path string, known map[string]func(key string, v *yaml.Node)) bool {
	if n.Kind != yaml.MappingNode {
		p.fail(at(n), path, "must be a mapping, not %s", kind(n))
		return false
	}
	p.plain(n, path)
	seen := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		key := k.Value
		full := strings.TrimPrefix(path+"."+key, ".")
		if k.Kind != yaml.ScalarNode || k.ShortTag() != "!!str" {
			p.fail(at(k), path, "a key must be a word, not %s", kind(k))
			continue
		}
		if line, ok := seen[key]; ok {
			p.fail(at(k), full, "repeated, first in line %d", line)
			continue
		}
		seen[key] = k.Line
		switch f := known[key]; {
		case f != nil:
			f(full, v)
		case slices.Contains(later[path], key):
			p.fail(at(k), full, "not supported by this version")
		default:
			p.fail(at(k), full, "unknown key%s", nearest(key, slices.Collect(maps.Keys(known))))
		}
	}
	return true
}

// plain refuses what YAML can do and a policy does not need: an anchor, an alias
// or a tag makes the text say something else than it seems to.
func (p *parser) plain(n *yaml.Node, key string) {
	if n.Anchor != "" {
		p.fail(at(n), key, "anchors are not supported")
	}
	if n.Style&yaml.TaggedStyle != 0 {
		p.fail(at(n), key, "tags are not supported")
	}
}

func (p *parser) document(root *yaml.Node) {
	version := false
	ok := p.mapping(root, "", map[string]func(string, *yaml.Node){
		"version": func(key string, v *yaml.Node) {
			version = true
			if n, ok := p.integer(key, v); ok && n != 1 {
				p.fail(at(v), key, "%d is not supported by this version, which knows 1", n)
			}
		},
		"network": func(key string, v *yaml.Node) {
			p.saysNetwork = true
			p.network(key, v)
		},
		"workspace": p.workspaceSection,
		"files":     p.filesSection,
		"limits":    p.limitsSection,
	})
	if ok && !version {
		p.fail(at(root), "version", "missing: write version: 1")
	}
}

func (p *parser) network(path string, n *yaml.Node) {
	p.mapping(n, path, map[string]func(string, *yaml.Node){
		"unknown": func(key string, v *yaml.Node) {
			switch s, ok := p.text(key, v); {
			case !ok, s == "deny":
			case s == "ask":
				p.fail(at(v), key, `"ask" is not supported by this version: write deny`)
			default:
				p.fail(at(v), key, "%q is not supported%s: write deny", s, nearest(s, []string{"deny"}))
			}
		},
		"rules": func(key string, v *yaml.Node) {
			items := p.list(key, v, maxRules)
			if len(items)+p.missing() > maxRules {
				p.fail(at(v), key, "more than %d entries", maxRules)
				items, p.runs = nil, nil
			}
			for i, item := range items {
				p.rule(key, item)
				p.restore(key, items[i:])
			}
		},
		"presets": func(key string, v *yaml.Node) {
			for _, item := range p.list(key, v, len(presets)) {
				p.preset(key, item)
			}
		},
	})
}

// rule reads one rule: a mapping whose allow or deny names the host.
func (p *parser) rule(path string, n *yaml.Node) {
	r := &Rule{Line: n.Line, Column: n.Column}
	verdicts, mistakes := 0, len(p.problems)
	host := func(v Verdict) func(string, *yaml.Node) {
		return func(key string, n *yaml.Node) {
			verdicts++
			r.Verdict, r.Line, r.Column = v, n.Line, n.Column
			if s, ok := p.text(key, n); ok {
				var err error
				if r.Pattern, err = parsePattern(s); err != nil {
					p.fail(at(n), key, "%v", err)
				}
			}
		}
	}
	var protocolAt, sharedAt, echAt position
	ok := p.mapping(n, path, map[string]func(string, *yaml.Node){
		"allow": host(Allow),
		"deny":  host(Deny),
		"ports": func(key string, v *yaml.Node) { r.Ports = p.ports(key, v) },
		"protocol": func(key string, v *yaml.Node) {
			protocolAt = at(v)
			r.Protocol = p.protocol(key, v)
		},
		"addresses": func(key string, v *yaml.Node) { r.Addresses = p.addresses(key, v) },
		"budget":    func(key string, v *yaml.Node) { r.Budget = p.budget(key, v) },
		"shared": func(key string, v *yaml.Node) {
			sharedAt = at(v)
			r.Shared = p.boolean(key, v)
		},
		"ech": func(key string, v *yaml.Node) {
			echAt = at(v)
			r.ECH = p.boolean(key, v)
		},
	})
	switch {
	case !ok:
		return
	case verdicts != 1:
		p.fail(at(n), path, "a rule has one of allow and deny")
	}
	if len(p.problems) > mistakes {
		return
	}
	p.complete(path, r, protocolAt, sharedAt)
	if echAt.line > 0 && r.Protocol != TLS {
		p.fail(echAt, path+".ech", "belongs to an allow of protocol tls")
	}
	if len(p.problems) == mistakes {
		r.text = r.describe()
		if r.Budget != nil {
			if r.Budget.Key = r.summary(); p.layer != User {
				r.Budget.Key = p.layer.String() + " policy: " + r.Budget.Key
			}
		}
		p.rules = append(p.rules, r)
	}
}

// defaultPorts are the ports of an allow that names none; rules share them.
var defaultPorts = [...][]uint16{TLS: {443}, HTTP: {80}, SSH: {22}, TCP: nil}

// complete fills in the defaults and checks what depends on several keys.
func (p *parser) complete(path string, r *Rule, protocolAt, sharedAt position) {
	if r.Verdict == Deny {
		// A deny is about a name, whatever is spoken and wherever it leads.
		if protocolAt.line > 0 {
			p.fail(protocolAt, path+".protocol", "a deny covers every protocol")
		}
		if len(r.Addresses) > 0 {
			p.fail(r.at(), path+".addresses", "a deny covers every address")
		}
		if sharedAt.line > 0 {
			p.fail(sharedAt, path+".shared", "belongs to an allow")
		}
		if r.Budget != nil {
			p.fail(r.at(), path+".budget", "belongs to an allow")
		}
		return
	}
	if err := r.Pattern.checkBreadth(r.Shared); err != nil {
		p.fail(r.at(), path+".allow", "%v", err)
	}
	if r.Protocol == Unknown {
		r.Protocol = TLS
	}
	if r.Budget != nil && r.Budget.Requests != nil && r.Protocol != HTTP {
		p.fail(r.at(), path+".budget.requests", "belongs to protocol http: nothing else has requests that can be seen")
	}
	if len(r.Ports) == 0 {
		if r.Ports = defaultPorts[r.Protocol]; r.Ports == nil {
			p.fail(r.at(), path+".ports", "missing: protocol %s has no port of its own", r.Protocol)
			return
		}
	}
	if slices.Contains(r.Ports, 53) {
		p.fail(r.at(), path+".ports", "port 53 is answered by the proxy itself and never leaves")
	}
}

// preset reads the name of a preset.
func (p *parser) preset(key string, n *yaml.Node) {
	s, ok := p.text(key, n)
	if !ok {
		return
	}
	set, names := (*Preset)(nil), []string(nil)
	for i := range presets {
		names = append(names, presets[i].Name)
		if presets[i].Name == s {
			set = &presets[i]
		}
	}
	switch {
	case set == nil:
		p.fail(at(n), key, "%q is none of %s%s", s, strings.Join(names, ", "), nearest(s, names))
	case slices.Contains(p.presets, set):
		p.fail(at(n), key, "%s is listed twice", s)
	default:
		p.presets = append(p.presets, set)
	}
}

func (p *parser) ports(key string, n *yaml.Node) []uint16 {
	var ports []uint16
	items := p.list(key, n, maxPorts)
	for _, item := range items {
		port, ok := p.integer(key, item)
		switch {
		case !ok:
		case port < 1 || port > 65535:
			p.fail(at(item), key, "%d is not a port", port)
		case slices.Contains(ports, uint16(port)):
			p.fail(at(item), key, "%d is listed twice", port)
		default:
			ports = append(ports, uint16(port))
		}
	}
	if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		p.fail(at(n), key, "is empty")
	}
	return ports
}

func (p *parser) protocol(key string, n *yaml.Node) Protocol {
	s, ok := p.text(key, n)
	if !ok {
		return Unknown
	}
	for _, proto := range []Protocol{TLS, HTTP, SSH, TCP} {
		if s == proto.String() {
			return proto
		}
	}
	p.fail(at(n), key, "%q is none of tls, http, ssh, tcp%s", s, nearest(s, protocolNames[TLS:DNS]))
	return Unknown
}

func (p *parser) addresses(key string, n *yaml.Node) []netip.Addr {
	var addrs []netip.Addr
	items := p.list(key, n, maxAddrs)
	for _, item := range items {
		s, ok := p.text(key, item)
		if !ok {
			continue
		}
		a, err := netip.ParseAddr(s)
		if err != nil {
			p.fail(at(item), key, "%q is not an IP address", s)
		} else if problem := CheckAddr(a); problem != "" {
			p.fail(at(item), key, "%q %s", s, problem)
		} else if slices.Contains(addrs, a) {
			p.fail(at(item), key, "%s is listed twice", a)
		} else {
			addrs = append(addrs, a)
		}
	}
	if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		p.fail(at(n), key, "is empty")
	}
	return addrs
}

func (p *parser) list(key string, n *yaml.Node, most int) []*yaml.Node {
	if n.Kind != yaml.SequenceNode {
		p.fail(at(n), key, "must be a list, not %s", kind(n))
		return nil
	}
	p.plain(n, key)
	if len(n.Content) > most {
		p.fail(at(n), key, "more than %d entries", most)
		return nil
	}
	return n.Content
}

func (p *parser) text(key string, n *yaml.Node) (string, bool) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		p.fail(at(n), key, "must be a string, not %s", kind(n))
		return "", false
	}
	p.plain(n, key)
	return n.Value, true
}

func (p *parser) boolean(key string, n *yaml.Node) bool {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" {
		p.fail(at(n), key, "must be true or false, not %s", kind(n))
		return false
	}
	return strings.EqualFold(n.Value, "true")
}

func (p *parser) integer(key string, n *yaml.Node) (int, bool) {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!int" {
		if i, err := strconv.Atoi(n.Value); err == nil { // decimal only: 0o17 is nobody's port
			p.plain(n, key)
			return i, true
		}
	}
	p.fail(at(n), key, "must be a whole number, not %s", kind(n))
	return 0, false
}

// kind describes a node for a person.
func kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	case yaml.ScalarNode:
		if n.ShortTag() == "!!null" {
			return "nothing"
		}
		return strconv.Quote(n.Value)
	default:
		return "an empty document"
	}
}

// nearest suggests the known word that was probably meant.
func nearest(word string, known []string) string {
	best, at := "", min(3, len(word))
	for _, k := range known {
		if d := distance(word, k); d < at || d == at && best != "" && k < best {
			best, at = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(", perhaps %q", best)
}

// distance is the number of single-byte edits between two words.
func distance(a, b string) int {
	if len(a) > 32 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
