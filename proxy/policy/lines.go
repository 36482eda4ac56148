package policy

import (
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// A long policy is a list of lines that hold one name each, and a tree of YAML
// nodes for a million of them takes longer to build than everything else about
// them. So [Parse] takes such lines out of the text before the YAML is read, and
// puts their rules back where they stood. It takes lines of these forms only,
// where ports and protocol may be missing and a deny has no protocol,
//
//	- allow: www.example.org
//	- {allow: "*.example.net", ports: [443, 8443], protocol: tls}
//
// and only between two lines of such a form and one indentation, which stay. If
// these two turn out to be neighbours in the list of rules, what stood between
// them can be nothing but rules of that list: a line of that indentation neither
// continues the value before it nor leaves the list. If they are not, the file
// is read as it stands.

// run is what was taken out between two lines that stayed.
type run struct {
	before int    // number of the line before, from 1
	text   string // whole lines
	count  int    // of lines
}

// elide returns data with plain rules replaced by empty lines, so that everything
// else keeps its place, and what it took out.
func elide(data []byte) (short []byte, runs []run) {
	text := string(data) // the names of the rules are parts of it
	for _, end := range []string{"\r", "\u0085", "\u2028", "\u2029"} {
		if strings.Contains(text, end) {
			return data, nil // for YAML these may end lines too
		}
	}
	kept := 0 // text up to here is in short, or taken out
	block := struct{ lines, indent, second, last int }{}
	flush := func(number int) {
		if count := block.lines - 2; count > 0 {
			short = append(short, text[kept:block.second]...)
			for range count {
				short = append(short, '\n')
			}
			runs = append(runs, run{number - block.lines, text[block.second:block.last], count})
			kept = block.last
		}
		block.lines = 0
	}
	number, from := 1, 0
	for line := range strings.Lines(text) {
		_, plain := plainRule(line)
		indent := len(line) - len(strings.TrimLeft(line, " "))
		if !plain || indent != block.indent {
			flush(number)
		}
		if plain {
			block.lines, block.indent, block.last = block.lines+1, indent, from
			if block.lines == 2 {
				block.second = from
			}
		}
		number, from = number+1, from+len(line)
	}
	flush(number)
	return append(short, text[kept:]...), runs
}

// plain is what a line of a plain form says.
type plain struct {
	verdict  Verdict
	pattern  string
	column   int // of the pattern, from 1
	ports    []uint16
	protocol Protocol
}

// plainRule takes a line apart. It refuses what has another form, and what it
// would have to report a mistake about or YAML might see a number or a word of
// its own in.
func plainRule(line string) (r plain, ok bool) {
	line = strings.TrimSuffix(line, "\n")
	rest, ok := strings.CutPrefix(strings.TrimLeft(line, " "), "- ")
	if !ok {
		return r, false
	}
	end := len(line)
	rest, flow := strings.CutPrefix(rest, "{")
	if flow {
		end--
		if rest, ok = strings.CutSuffix(rest, "}"); !ok {
			return r, false
		}
	}
	if name, ok := strings.CutPrefix(rest, "allow: "); ok {
		r.verdict, r.pattern = Allow, name
	} else if name, ok := strings.CutPrefix(rest, "deny: "); ok {
		r.verdict, r.pattern = Deny, name
	} else {
		return r, false
	}
	r.column = end - len(r.pattern) + 1
	if flow {
		var options string
		r.pattern, options, _ = strings.Cut(r.pattern, ", ")
		if !r.plainOptions(options) {
			return r, false
		}
	}
	if quoted, ok := strings.CutPrefix(r.pattern, `"`); ok {
		r.pattern, ok = strings.CutSuffix(quoted, `"`)
		return r, ok && plainBytes(r.pattern, "*._-")
	}
	// Unquoted it is a string for certain if it ends in a word after a dot.
	dot := strings.LastIndexByte(r.pattern, '.')
	return r, dot > 0 && len(r.pattern)-dot > 2 && !strings.ContainsAny(r.pattern[dot:], "0123456789_-") &&
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
	if len(p.runs) == 0 || len(items) < 2 || items[0].Line != p.runs[0].before || items[1].Line != p.runs[0].before+p.runs[0].count+1 {
		return
	}
	number, rules := p.runs[0].before, make([]Rule, 0, p.runs[0].count)
	for line := range strings.Lines(p.runs[0].text) {
		number++
		said, _ := plainRule(line)
		if n := len(rules); n > 0 && slices.Equal(said.ports, rules[n-1].Ports) {
			said.ports = rules[n-1].Ports // most say the same
		}
		rules = append(rules, Rule{Verdict: said.verdict, Ports: said.ports, Protocol: said.protocol, Line: number, Column: said.column})
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
