package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Bounds of a policy file. A policy is written by people.
const (
	maxFile  = 1 << 20
	maxRules = 10000
	maxPorts = 64
	maxAddrs = 64
)

// Parse reads a policy. name is what error texts call it, a path or a policy's
// name. Unknown keys, repeated keys, wrong types and rules that contradict each
// other are errors; all of them are reported at once, joined, each as
// "name:line: key: message". Keys of later versions are refused by name.
func Parse(name string, data []byte) (*Policy, error) {
	p := &parser{name: name}
	if len(data) > maxFile {
		p.fail(1, "", "larger than %d bytes", maxFile)
		return nil, p.err()
	}
	var doc yaml.Node
	if err := yaml.Load(data, &doc); err != nil {
		line, message := 1, err.Error()
		if le, ok := errors.AsType[*yaml.LoadError](err); ok {
			line, message = max(le.Mark.Line, 1), le.Message
		}
		p.fail(line, "", "%s", message)
		return nil, p.err()
	}
	root := &doc
	if doc.Kind == yaml.DocumentNode && len(doc.Content) == 1 {
		root = doc.Content[0]
	}
	p.document(root)
	policy := p.compile()
	if err := p.err(); err != nil {
		return nil, err
	}
	return policy, nil
}

// parser collects rules and mistakes.
type parser struct {
	name  string
	rules []*Rule
	errs  []error
}

func (p *parser) err() error { return errors.Join(p.errs...) }

func (p *parser) fail(line int, key, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if key != "" {
		text = key + ": " + text
	}
	p.errs = append(p.errs, fmt.Errorf("%s:%d: %s", p.name, line, text))
}

// later are the keys that the language has but this version does not enforce.
// Ignoring one would mean less protection than the file promises.
var later = map[string][]string{
	"":        {"workspace", "files", "limits"},
	"network": {"ask_timeout", "presets"},
}

// mapping calls the function of each known key of n, and reports the rest. It
// returns false if n is no mapping.
func (p *parser) mapping(n *yaml.Node, path string, known map[string]func(key string, v *yaml.Node)) bool {
	if n.Kind != yaml.MappingNode {
		p.fail(max(n.Line, 1), path, "must be a mapping, not %s", kind(n))
		return false
	}
	p.plain(n, path)
	seen := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		key := k.Value
		full := strings.TrimPrefix(path+"."+key, ".")
		if k.Kind != yaml.ScalarNode || k.ShortTag() != "!!str" {
			p.fail(k.Line, path, "a key must be a word, not %s", kind(k))
			continue
		}
		if line, ok := seen[key]; ok {
			p.fail(k.Line, full, "repeated, first in line %d", line)
			continue
		}
		seen[key] = k.Line
		switch f := known[key]; {
		case f != nil:
			f(full, v)
		case slices.Contains(later[path], key):
			p.fail(k.Line, full, "not supported by this version")
		default:
			p.fail(k.Line, full, "unknown key%s", nearest(key, known))
		}
	}
	return true
}

// plain refuses what YAML can do and a policy does not need: an anchor, an alias
// or a tag makes the text say something else than it seems to.
func (p *parser) plain(n *yaml.Node, key string) {
	if n.Anchor != "" {
		p.fail(n.Line, key, "anchors are not supported")
	}
	if n.Style&yaml.TaggedStyle != 0 {
		p.fail(n.Line, key, "tags are not supported")
	}
}

func (p *parser) document(root *yaml.Node) {
	version := false
	ok := p.mapping(root, "", map[string]func(string, *yaml.Node){
		"version": func(key string, v *yaml.Node) {
			version = true
			if n, ok := p.integer(key, v); ok && n != 1 {
				p.fail(v.Line, key, "%d is not supported by this version, which knows 1", n)
			}
		},
		"network": p.network,
	})
	if ok && !version {
		p.fail(max(root.Line, 1), "version", "missing: write version: 1")
	}
}

func (p *parser) network(path string, n *yaml.Node) {
	p.mapping(n, path, map[string]func(string, *yaml.Node){
		"unknown": func(key string, v *yaml.Node) {
			switch s, ok := p.text(key, v); {
			case !ok, s == "deny":
			case s == "ask":
				p.fail(v.Line, key, `"ask" is not supported by this version: write deny`)
			default:
				p.fail(v.Line, key, "%q is not supported: write deny", s)
			}
		},
		"rules": func(key string, v *yaml.Node) {
			for _, item := range p.list(key, v, maxRules) {
				p.rule(key, item)
			}
		},
	})
}

// rule reads one rule: a mapping whose allow or deny names the host.
func (p *parser) rule(path string, n *yaml.Node) {
	r := &Rule{Line: n.Line}
	verdicts, mistakes := 0, len(p.errs)
	host := func(v Verdict) func(string, *yaml.Node) {
		return func(key string, n *yaml.Node) {
			verdicts++
			r.Verdict, r.Line = v, n.Line
			if s, ok := p.text(key, n); ok {
				var err error
				if r.Pattern, err = parsePattern(s); err != nil {
					p.fail(n.Line, key, "%v", err)
				}
			}
		}
	}
	var protocolLine, sharedLine int
	ok := p.mapping(n, path, map[string]func(string, *yaml.Node){
		"allow": host(Allow),
		"deny":  host(Deny),
		"ports": func(key string, v *yaml.Node) { r.Ports = p.ports(key, v) },
		"protocol": func(key string, v *yaml.Node) {
			protocolLine = v.Line
			r.Protocol = p.protocol(key, v)
		},
		"addresses": func(key string, v *yaml.Node) { r.Addresses = p.addresses(key, v) },
		"shared": func(key string, v *yaml.Node) {
			sharedLine = v.Line
			if v.Kind != yaml.ScalarNode || v.ShortTag() != "!!bool" {
				p.fail(v.Line, key, "must be true or false, not %s", kind(v))
				return
			}
			r.Shared = strings.EqualFold(v.Value, "true")
		},
	})
	switch {
	case !ok:
		return
	case verdicts != 1:
		p.fail(n.Line, path, "a rule has one of allow and deny")
	}
	if len(p.errs) > mistakes {
		return
	}
	p.complete(path, r, protocolLine, sharedLine)
	if len(p.errs) == mistakes {
		r.text = r.describe()
		p.rules = append(p.rules, r)
	}
}

// complete fills in the defaults and checks what depends on several keys.
func (p *parser) complete(path string, r *Rule, protocolLine, sharedLine int) {
	if r.Verdict == Deny {
		// A deny is about a name, whatever is spoken and wherever it leads.
		if protocolLine > 0 {
			p.fail(protocolLine, path+".protocol", "a deny covers every protocol")
		}
		if len(r.Addresses) > 0 {
			p.fail(r.Line, path+".addresses", "a deny covers every address")
		}
		if sharedLine > 0 {
			p.fail(sharedLine, path+".shared", "belongs to an allow")
		}
		return
	}
	if err := r.Pattern.checkBreadth(r.Shared); err != nil {
		p.fail(r.Line, path+".allow", "%v", err)
	}
	if r.Protocol == Unknown {
		r.Protocol = TLS
	}
	if len(r.Ports) == 0 {
		port := map[Protocol]uint16{TLS: 443, HTTP: 80, SSH: 22}[r.Protocol]
		if port == 0 {
			p.fail(r.Line, path+".ports", "missing: protocol %s has no port of its own", r.Protocol)
			return
		}
		r.Ports = []uint16{port}
	}
	if slices.Contains(r.Ports, 53) {
		p.fail(r.Line, path+".ports", "port 53 is answered by the proxy itself and never leaves")
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
			p.fail(item.Line, key, "%d is not a port", port)
		case slices.Contains(ports, uint16(port)):
			p.fail(item.Line, key, "%d is listed twice", port)
		default:
			ports = append(ports, uint16(port))
		}
	}
	if n.Kind == yaml.SequenceNode && len(items) == 0 {
		p.fail(n.Line, key, "is empty")
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
	p.fail(n.Line, key, "%q is none of tls, http, ssh, tcp", s)
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
			p.fail(item.Line, key, "%q is not an IP address", s)
		} else if problem := checkPinned(a); problem != "" {
			p.fail(item.Line, key, "%q %s", s, problem)
		} else if slices.Contains(addrs, a) {
			p.fail(item.Line, key, "%s is listed twice", a)
		} else {
			addrs = append(addrs, a)
		}
	}
	if n.Kind == yaml.SequenceNode && len(items) == 0 {
		p.fail(n.Line, key, "is empty")
	}
	return addrs
}

func (p *parser) list(key string, n *yaml.Node, most int) []*yaml.Node {
	if n.Kind != yaml.SequenceNode {
		p.fail(max(n.Line, 1), key, "must be a list, not %s", kind(n))
		return nil
	}
	p.plain(n, key)
	if len(n.Content) > most {
		p.fail(n.Line, key, "more than %d entries", most)
		return nil
	}
	return n.Content
}

func (p *parser) text(key string, n *yaml.Node) (string, bool) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		p.fail(max(n.Line, 1), key, "must be a string, not %s", kind(n))
		return "", false
	}
	p.plain(n, key)
	return n.Value, true
}

func (p *parser) integer(key string, n *yaml.Node) (int, bool) {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!int" {
		if i, err := strconv.Atoi(n.Value); err == nil { // decimal only: 0o17 is nobody's port
			p.plain(n, key)
			return i, true
		}
	}
	p.fail(max(n.Line, 1), key, "must be a whole number, not %s", kind(n))
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

// nearest suggests the known key that was probably meant.
func nearest(key string, known map[string]func(string, *yaml.Node)) string {
	best, at := "", 3
	for k := range known {
		if d := distance(key, k); d < at || d == at && best != "" && k < best {
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
