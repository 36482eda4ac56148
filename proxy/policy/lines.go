package policy

import (
	"strings"

	"go.yaml.in/yaml/v4"
)

// A long policy is a list of lines that hold one name each, and a tree of YAML
// nodes for a million of them takes longer to build than everything else about
// them. So [Parse] takes such lines out of the text before the YAML is read, and
// puts their rules back where they stood. It takes lines of one form only,
//
//	- allow: www.example.org
//	- deny: "*.example.net"
//
// and only between two lines of the same form and indentation, which stay. If
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
	if strings.ContainsAny(text, "\r\u0085\u2028\u2029") {
		return data, nil // for YAML these end lines too
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
		_, pattern, _ := plainRule(line)
		indent := len(line) - len(strings.TrimLeft(line, " "))
		if pattern == "" || indent != block.indent {
			flush(number)
		}
		if pattern != "" {
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

// plainRule takes a line of the plain form apart. Its pattern is empty if the
// line has another form, or is one where YAML might see a number or a word of
// its own.
func plainRule(line string) (verdict Verdict, pattern string, column int) {
	line = strings.TrimSuffix(line, "\n")
	rest := strings.TrimLeft(line, " ")
	if name, ok := strings.CutPrefix(rest, "- allow: "); ok {
		verdict, rest = Allow, name
	} else if name, ok := strings.CutPrefix(rest, "- deny: "); ok {
		verdict, rest = Deny, name
	} else {
		return Deny, "", 0
	}
	column = len(line) - len(rest) + 1
	if quoted, ok := strings.CutPrefix(rest, `"`); ok {
		if rest, ok = strings.CutSuffix(quoted, `"`); !ok || !plainBytes(rest, "*._-") {
			return Deny, "", 0
		}
		return verdict, rest, column
	}
	// Unquoted it is a string for certain if it ends in a word after a dot.
	dot := strings.LastIndexByte(rest, '.')
	if dot < 1 || len(rest)-dot < 3 || !plainBytes(rest, "._-") || !plainBytes(rest[:1], "") || strings.ContainsAny(rest[dot:], "0123456789_-") {
		return Deny, "", 0
	}
	return verdict, rest, column
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
		verdict, pattern, column := plainRule(line)
		rules = append(rules, Rule{Verdict: verdict, Line: number, Column: column})
		r, mistakes := &rules[len(rules)-1], len(p.problems)
		var err error
		if r.Pattern, err = parsePattern(pattern); err != nil {
			p.fail(r.at(), path+"."+verdict.String(), "%v", err)
			continue
		}
		if p.complete(path, r, position{}, position{}); len(p.problems) == mistakes {
			r.text = r.describe()
			p.rules = append(p.rules, r)
		}
	}
	p.runs = p.runs[1:]
}
