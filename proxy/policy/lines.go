package policy

import (
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// A long policy is a list of rules that say one name each, and a tree of YAML
// nodes for a million of them takes longer to build than everything else about
// them. So [Parse] takes such rules out of the text before the YAML is read, and
// puts them back where they stood. It takes rules of these forms only, where ports
// and protocol may be missing and a deny has no protocol,
//
//	- allow: www.example.org
//	- {allow: "*.example.net", ports: [443, 8443], protocol: tls}
//	- allow: www.example.org
//	  ports: [443, 8443]
//	  protocol: tls
//
// and only between two rules of such a form and one indentation, which stay. If
// these two turn out to be neighbours in the list of rules, what stood between
// them can be nothing but rules of that list: a line of that indentation with a
// dash neither continues the value before it nor leaves the list, and a line of
// the third form's indentation belongs to the rule before it. If they are not, the
// file is read as it stands.

// maxYAML bounds what is left for YAML, in bytes: about 100,000 rules of other
// forms, which take a second.
const maxYAML = 8 << 20

// run is what was taken out between two rules that stayed.
type run struct {
	before, after int    // numbers of the first lines of these two, from 1
	number        int    // of its own first line
	text          string // whole lines
	count         int    // of rules
}

// elide returns data with plain rules replaced by empty lines, so that everything
// else keeps its place, what it took out, and how many bytes of YAML are left.
func elide(data []byte) (short []byte, runs []run, left int) {
	text := string(data) // the names of the rules are parts of it
	for _, end := range []string{"\r", "\u0085", "\u2028", "\u2029"} {
		if strings.Contains(text, end) {
			return data, nil, len(data) // for YAML these may end lines too
		}
	}
	type place struct{ at, number int } // of a line
	kept, left := 0, len(data)          // text up to kept is in short, or taken out
	block := struct {
		rules, indent       int
		first, second, last place
	}{}
	flush := func() {
		if count := block.rules - 2; count > 0 {
			taken := text[block.second.at:block.last.at]
			short = append(short, text[kept:block.second.at]...)
			for range block.last.number - block.second.number {
				short = append(short, '\n')
			}
			runs = append(runs, run{block.first.number, block.last.number, block.second.number, taken, count})
			kept = block.last.at
			left -= len(taken)
		}
		block.rules = 0
	}
	for here := (place{0, 1}); here.at < len(text); {
		rest := text[here.at:]
		_, length, lines := plainRule(rest)
		indent := len(rest) - len(strings.TrimLeft(rest, " "))
		if length == 0 || indent != block.indent {
			flush()
		}
		if length > 0 {
			switch block.rules, block.last = block.rules+1, here; block.rules {
			case 1:
				block.first, block.indent = here, indent
			case 2:
				block.second = here
			}
		} else {
			line, _ := cutLine(rest)
			length, lines = len(line), 1
		}
		here.at, here.number = here.at+length, here.number+lines
	}
	flush()
	return append(short, text[kept:]...), runs, left
}

// cutLine cuts the first line off, with its end.
func cutLine(text string) (line, rest string) {
	end := strings.IndexByte(text, '\n') + 1
	if end == 0 {
		end = len(text)
	}
	return text[:end], text[end:]
}

// plain is what a rule of a plain form says.
type plain struct {
	verdict  Verdict
	pattern  string
	column   int // of the pattern, from 1
	ports    []uint16
	protocol Protocol
}

// plainRule takes the rule at the beginning of text apart, and returns its length
// in bytes and lines; 0 if it is none of a plain form.
func plainRule(text string) (r plain, length, lines int) {
	line, rest := cutLine(text)
	indent := len(line) - len(strings.TrimLeft(line, " "))
	flow, ok := r.plainLine(line)
	if !ok {
		return r, 0, 0
	}
	length, lines = len(line), 1
	for !flow {
		line, rest = cutLine(rest)
		option := strings.TrimLeft(line, " ")
		if len(line)-len(option) != indent+2 || !r.plainLater(strings.TrimSuffix(option, "\n")) {
			break // the next rule, or something that keeps this one from being plain
		}
		length, lines = length+len(line), lines+1
	}
	return r, length, lines
}

// plainLater takes a line below the first one apart, which says one thing that
// was not said yet.
func (r *plain) plainLater(option string) bool {
	next := *r
	switch {
	case strings.HasPrefix(option, "ports: ["):
		if r.ports != nil || !strings.HasSuffix(option, "]") || !next.plainOptions(option) {
			return false
		}
	case strings.HasPrefix(option, "protocol: "):
		if r.protocol != Unknown || !next.plainOptions(option) {
			return false
		}
	default:
		return false
	}
	*r = next
	return true
}

// plainLine takes the first line of a rule apart. It refuses what has another
// form, and what it would have to report a mistake about or YAML might see a
// number or a word of its own in.
func (r *plain) plainLine(line string) (flow, ok bool) {
	line = strings.TrimSuffix(line, "\n")
	rest, ok := strings.CutPrefix(strings.TrimLeft(line, " "), "- ")
	if !ok {
		return false, false
	}
	end := len(line)
	rest, flow = strings.CutPrefix(rest, "{")
	if flow {
		end--
		if rest, ok = strings.CutSuffix(rest, "}"); !ok {
			return flow, false
		}
	}
	if name, ok := strings.CutPrefix(rest, "allow: "); ok {
		r.verdict, r.pattern = Allow, name
	} else if name, ok := strings.CutPrefix(rest, "deny: "); ok {
		r.verdict, r.pattern = Deny, name
	} else {
		return flow, false
	}
	r.column = end - len(r.pattern) + 1
	if flow {
		var options string
		r.pattern, options, _ = strings.Cut(r.pattern, ", ")
		if !r.plainOptions(options) {
			return flow, false
		}
	}
	if quoted, ok := strings.CutPrefix(r.pattern, `"`); ok {
		r.pattern, ok = strings.CutSuffix(quoted, `"`)
		return flow, ok && plainBytes(r.pattern, "*._-")
	}
	// Unquoted it is a string for certain if it ends in a word after a dot.
	dot := strings.LastIndexByte(r.pattern, '.')
	return flow, dot > 0 && len(r.pattern)-dot > 2 && !strings.ContainsAny(r.pattern[dot:], "0123456789_-") &&
		plainBytes(r.pattern[:1], "") && plainBytes(r.pattern, "._-")
}

// plainOptions takes apart what follows the pattern in braces.
func (r *plain) plainOptions(options string) bool {
	if list, ok := strings.CutPrefix(options, "ports: ["); ok {
		if list, options, ok = strings.Cut(list, "]"); !ok {
			return false
		}
		for text := range strings.SplitSeq(list, ", ") {
			port, err := strconv.ParseUint(text, 10, 16)
			if err != nil || text[0] == '0' || slices.Contains(r.ports, uint16(port)) || len(r.ports) == maxPorts {
				return false
			}
			r.ports = append(r.ports, uint16(port))
		}
		if options == "" {
			return true
		}
		if options, ok = strings.CutPrefix(options, ", "); !ok {
			return false
		}
	}
	if name, ok := strings.CutPrefix(options, "protocol: "); ok && r.verdict == Allow {
		r.protocol = TLS + Protocol(max(slices.Index(protocolNames[TLS:DNS], name), 0))
		return r.protocol.String() == name
	}
	return options == ""
}

// plainBytes reports whether s has only lower-case letters, digits and others.
func plainBytes(s, others string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && strings.IndexByte(others, c) < 0 {
			return false
		}
	}
	return true
}

// missing is how many rules have been taken out and not been put back.
func (p *parser) missing() int {
	n := 0
	for _, r := range p.runs {
		n += r.count
	}
	return n
}

// restore puts back what was taken out behind the first of the items of a list
// of rules.
func (p *parser) restore(path string, items []*yaml.Node) {
	if len(p.runs) == 0 || len(items) < 2 || items[0].Line != p.runs[0].before || items[1].Line != p.runs[0].after {
		return
	}
	text, number, rules := p.runs[0].text, p.runs[0].number, make([]Rule, 0, p.runs[0].count)
	for text != "" {
		said, length, lines := plainRule(text)
		if n := len(rules); n > 0 && slices.Equal(said.ports, rules[n-1].Ports) {
			said.ports = rules[n-1].Ports // most say the same
		}
		rules = append(rules, Rule{Verdict: said.verdict, Ports: said.ports, Protocol: said.protocol, Line: number, Column: said.column})
		text, number = text[length:], number+lines
		r, mistakes := &rules[len(rules)-1], len(p.problems)
		var err error
		if r.Pattern, err = parsePattern(said.pattern); err != nil {
			p.fail(r.at(), path+"."+r.Verdict.String(), "%v", err)
			continue
		}
		if p.complete(path, r, position{}, position{}); len(p.problems) == mistakes {
			r.text = r.describe()
			p.rules = append(p.rules, r)
		}
	}
	p.runs = p.runs[1:]
}
