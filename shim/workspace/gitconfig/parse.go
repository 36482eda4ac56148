package gitconfig

import (
	"bytes"
	"fmt"
	"strings"
)

// maxSize bounds what is parsed. The largest files that git writes are those of superprojects: some hundred bytes for each submodule.
const maxSize = 1 << 20

// entry is one setting. Its name is the one that git compares: the section in lower case, the subsection as it is, the key in lower case, joined by dots.
type entry struct {
	name   string
	value  string // as git from 2.45 on reads it
	folded string // as git before 2.45 reads it: white space inside a value, outside of quotes, is so many blanks
	none   bool   // a key without "="; git reads it as true, or refuses it
	line   int    // where it starts, from 1
}

// same tells whether no version of git sees a difference.
func (e entry) same(f entry) bool {
	return e.name == f.name && e.value == f.value && e.folded == f.folded && e.none == f.none
}

// split takes a name apart. A subsection may hold dots; section and key do not.
func (e entry) split() (section, sub, key string, hasSub bool) {
	first, last := strings.IndexByte(e.name, '.'), strings.LastIndexByte(e.name, '.')
	switch {
	case first < 0:
		return "", "", e.name, false
	case first == last:
		return e.name[:first], "", e.name[last+1:], false
	}
	return e.name[:first], e.name[first+1 : last], e.name[last+1:], true
}

// pattern is the name with the subsection, if there is one, as "*".
func (e entry) pattern() string {
	section, _, key, hasSub := e.split()
	if hasSub {
		return section + ".*." + key
	}
	return section + "." + key
}

// show is the name for a message. A subsection is free text: it may hold a credential, as that of a URL, or control characters.
func (e entry) show() string {
	_, sub, _, hasSub := e.split()
	if !hasSub {
		return e.name
	}
	if len(sub) > 64 || strings.Trim(sub, plain) != "" {
		return e.pattern()
	}
	return e.name
}

const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-"

// parse reads a text as git_parse_source of git's config.c does. It refuses what that refuses, and in addition NUL bytes, at which git cuts
// names and values short, and texts above maxSize.
func parse(text []byte) ([]entry, error) {
	if len(text) > maxSize {
		return nil, fmt.Errorf("longer than %d bytes", maxSize)
	}
	if head, _, found := bytes.Cut(text, []byte{0}); found {
		return nil, fmt.Errorf("line %d: a NUL byte", 1+bytes.Count(head, []byte("\n")))
	}
	p := &parser{text: bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")), line: 1}
	if err := p.run(); err != nil {
		return nil, fmt.Errorf("line %d: %w", p.at, err)
	}
	return p.entries, nil
}

type parser struct {
	text    []byte
	line    int // of the next character
	at      int // where the element that is being read starts
	eof     bool
	entries []entry
}

// next returns the next character: a line's end for CR LF, and at the end of the text.
func (p *parser) next() byte {
	if len(p.text) == 0 {
		p.eof = true
		return '\n'
	}
	c := p.text[0]
	p.text = p.text[1:]
	if c == '\r' && len(p.text) > 0 && p.text[0] == '\n' {
		c = '\n'
		p.text = p.text[1:]
	}
	if c == '\n' {
		p.line++
	}
	return c
}

func (p *parser) run() error {
	var section string // with its final dot, once there is one
	comment := false
	for {
		p.at = p.line
		c := p.next()
		switch {
		case c == '\n' && p.eof:
			return nil
		case c == '\n':
			comment = false
		case comment || isSpace(c):
		case c == '#' || c == ';':
			comment = true
		case c == '[':
			name, err := p.section()
			if err != nil {
				return err
			}
			section = name + "."
		case isAlpha(c):
			if err := p.entry(section, c); err != nil {
				return err
			}
		default:
			return fmt.Errorf("neither a section nor a key")
		}
	}
}

// section reads what follows "[". The deprecated form [section.subsection] ends up in lower case as a whole.
func (p *parser) section() (string, error) {
	var name []byte
	for {
		c := p.next()
		switch {
		case p.eof:
			return "", fmt.Errorf("a section's name without its end")
		case c == ']' && len(name) == 0:
			return "", fmt.Errorf("a section without a name")
		case c == ']':
			return string(name), nil
		case isSpace(c):
			return p.subsection(name, c)
		case !isKey(c) && c != '.':
			return "", fmt.Errorf("a character that no section's name has")
		}
		name = append(name, lower(c))
	}
}

func (p *parser) subsection(name []byte, c byte) (string, error) {
	for isSpace(c) {
		if c == '\n' {
			return "", fmt.Errorf("a section's name without its end")
		}
		c = p.next()
	}
	if c != '"' {
		return "", fmt.Errorf("a subsection without its quotes")
	}
	name = append(name, '.')
	for {
		c = p.next()
		if c == '"' {
			break
		}
		if c == '\\' {
			c = p.next()
		}
		if c == '\n' {
			return "", fmt.Errorf("a subsection without its end")
		}
		name = append(name, c)
	}
	if p.next() != ']' {
		return "", fmt.Errorf("a section's name without its end")
	}
	return string(name), nil
}

func (p *parser) entry(section string, c byte) error {
	e := entry{line: p.line}
	key := []byte{lower(c)}
	for {
		c = p.next()
		if p.eof || !isKey(c) {
			break
		}
		key = append(key, lower(c))
	}
	e.name = section + string(key)
	for c == ' ' || c == '\t' {
		c = p.next()
	}
	switch c {
	case '\n':
		e.none = true
	case '=':
		var err error
		if e.value, e.folded, err = p.value(); err != nil {
			return err
		}
	default:
		return fmt.Errorf("a key that neither \"=\" nor the line's end follows")
	}
	p.entries = append(p.entries, e)
	return nil
}

// value reads what follows "=", in both readings. They differ in white space alone, and drop it at both ends alike.
func (p *parser) value() (string, string, error) {
	var value, folded, space []byte
	quoted, comment := false, false
	for {
		c := p.next()
		switch {
		case c == '\n' && quoted:
			return "", "", fmt.Errorf("a value without its closing quote")
		case c == '\n':
			return string(value), string(folded), nil
		case comment:
			continue
		case isSpace(c) && !quoted:
			if len(value) > 0 {
				space = append(space, c)
			}
			continue
		case (c == '#' || c == ';') && !quoted:
			comment = true
			continue
		}
		value = append(value, space...)
		folded = append(folded, bytes.Repeat([]byte{' '}, len(space))...)
		space = space[:0]
		switch c {
		case '"':
			quoted = !quoted
			continue
		case '\\':
			switch c = p.next(); c {
			case '\n':
				continue
			case 't':
				c = '\t'
			case 'b':
				c = '\b'
			case 'n':
				c = '\n'
			case '\\', '"':
			default:
				return "", "", fmt.Errorf("an unknown escape in a value")
			}
		}
		value = append(value, c)
		folded = append(folded, c)
	}
}

// The classes of characters are git's own (ctype.c): ASCII, and neither VT nor FF is white space.

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

func isAlpha(c byte) bool { return 'a' <= lower(c) && lower(c) <= 'z' }

func isKey(c byte) bool { return isAlpha(c) || '0' <= c && c <= '9' || c == '-' }

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
