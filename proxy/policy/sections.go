package policy

import (
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Workspace says what of the workspace is more or less than writable, by patterns:
// paths within it, with slashes. One that begins with a slash is about the top of
// the workspace, any other about every folder of it; "*" and "?" stand for what
// they do in [path.Match], within one name. What matches a folder is about all
// that it holds. Nothing here is matched by this package.
type Workspace struct {
	ReadOnly []string // cannot be changed
	Hidden   []string // cannot be seen
	Writable []string // can be changed although it is protected by itself
}

// File lets a path of the host be read, and all below it.
type File struct {
	Path string // absolute and clean; the same outside and inside

	at   position
	from string // name of the policy
}

// Limits bound what a sandbox uses of the machine. A zero field says nothing.
type Limits struct {
	MemoryBytes int64
	Pids        int64
	CPUs        float64 // processors' worth of time
}

// Bounds of the sections.
const (
	maxPatterns     = 1024 // of one list
	maxPattern      = 4096 // bytes, as of a path
	maxGrants       = 64
	maxPath         = 4096
	maxPids         = 1 << 22 // PID_MAX_LIMIT, proc(5)
	maxCPUs         = 1 << 16
	writableReason  = "a project's own policy cannot lift a protection; the user's or the administrator's can"
	writeNotCarried = `"write" is not supported by this version: write read`
)

func (p *parser) workspaceSection(path string, n *yaml.Node) {
	w := &p.workspace
	list := func(into *[]string) func(string, *yaml.Node) {
		return func(key string, v *yaml.Node) { *into = p.patterns(key, v) }
	}
	p.mapping(n, path, map[string]func(string, *yaml.Node){
		"read_only": list(&w.ReadOnly),
		"hidden":    list(&w.Hidden),
		"writable": func(key string, v *yaml.Node) {
			if p.layer == Project {
				p.fail(at(v), key, "%s", writableReason)
				return
			}
			w.Writable = p.patterns(key, v)
		},
	})
}

func (p *parser) patterns(key string, n *yaml.Node) []string {
	var patterns []string
	seen := make(map[string]bool)
	for _, item := range p.list(key, n, maxPatterns) {
		s, ok := p.text(key, item)
		if !ok {
			continue
		}
		if problem := checkPattern(s); problem != "" {
			p.fail(at(item), key, "%s %s", shorten(s), problem)
		} else if seen[s] {
			p.fail(at(item), key, "%s is listed twice", shorten(s))
		} else {
			seen[s] = true
			patterns = append(patterns, s)
		}
	}
	return patterns
}

// checkPattern returns what is wrong with a pattern; empty if nothing is.
func checkPattern(s string) string {
	switch {
	case s == "" || s == "/":
		return "names nothing"
	case len(s) > maxPattern:
		return fmt.Sprintf("has more than %d bytes", maxPattern)
	case strings.ContainsRune(s, 0):
		return "has a NUL byte"
	case strings.ContainsAny(s, `[\`):
		return `has a "[" or "\": only * and ? are patterns, and nothing is quoted`
	case strings.HasSuffix(s, "/"):
		return "ends in a slash: write it without, a folder holds what is below it"
	}
	for name := range strings.SplitSeq(strings.TrimPrefix(s, "/"), "/") {
		switch {
		case name == "":
			return "has two slashes in a row"
		case name == "." || name == "..":
			return fmt.Sprintf("has a component %q", name)
		case strings.Contains(name, "**"):
			return `has a "**": without a slash in front a pattern holds at any depth, and * ends at the next slash`
		}
	}
	return ""
}

// shorten quotes a text for an error message.
func shorten(s string) string {
	if len(s) > 100 {
		return strconv.Quote(s[:100]) + "..."
	}
	return strconv.Quote(s)
}

func (p *parser) filesSection(path string, n *yaml.Node) {
	p.saysFiles = true
	for _, item := range p.list(path, n, maxGrants) {
		p.file(path, item)
	}
}

func (p *parser) file(section string, n *yaml.Node) {
	f, access := File{at: at(n), from: p.name}, false
	mistakes := len(p.problems)
	ok := p.mapping(n, section, map[string]func(string, *yaml.Node){
		"path": func(key string, v *yaml.Node) {
			f.at = at(v)
			s, ok := p.text(key, v)
			switch {
			case !ok:
			case !path.IsAbs(s) || path.Clean(s) != s || s == "/":
				p.fail(at(v), key, "%s is not an absolute path in its shortest form, below /", shorten(s))
			case len(s) > maxPath || strings.ContainsRune(s, 0):
				p.fail(at(v), key, "%s cannot be a path", shorten(s))
			default:
				f.Path = s
			}
		},
		"access": func(key string, v *yaml.Node) {
			switch s, ok := p.text(key, v); {
			case !ok:
			case s == "read":
				access = true
			case s == "write":
				p.fail(at(v), key, writeNotCarried)
			default:
				p.fail(at(v), key, "%s is not supported%s: write read", shorten(s), nearest(s, []string{"read"}))
			}
		},
	})
	if !ok || len(p.problems) > mistakes {
		return
	}
	switch {
	case f.Path == "":
		p.fail(at(n), section+".path", "missing")
		return
	case !access:
		p.fail(at(n), section+".access", "missing: write access: read")
		return
	}
	for _, other := range p.files {
		if other.Path == f.Path {
			p.fail(f.at, section, "%s is listed twice, first in line %d", shorten(f.Path), other.at.line)
			return
		}
		if other.Holds(f.Path) || f.Holds(other.Path) {
			p.fail(f.at, section, "%s and %s in line %d hold one another", shorten(f.Path), shorten(other.Path), other.at.line)
			return
		}
	}
	p.files = append(p.files, f)
}

// Holds reports whether the grant covers a path, by its text.
func (f File) Holds(p string) bool { return p == f.Path || strings.HasPrefix(p, f.Path+"/") }

func (p *parser) limitsSection(path string, n *yaml.Node) {
	l, mistakes := &p.limits, len(p.problems)
	ok := p.mapping(n, path, map[string]func(string, *yaml.Node){
		"memory": func(key string, v *yaml.Node) {
			s, ok := p.text(key, v)
			if !ok {
				return
			}
			var err error
			if l.MemoryBytes, err = parseSize(s); err != nil {
				p.fail(at(v), key, "%s %v", shorten(s), err)
			}
		},
		"pids": func(key string, v *yaml.Node) {
			i, ok := p.integer(key, v)
			if ok && (i < 1 || i > maxPids) {
				p.fail(at(v), key, "%d is not a number from 1 to %d", i, maxPids)
				return
			}
			l.Pids = int64(i)
		},
		"cpus": func(key string, v *yaml.Node) {
			var err error
			if l.CPUs, err = parseCPUs(v); err != nil {
				p.fail(at(v), key, "%v", err)
				return
			}
			p.plain(v, key)
		},
	})
	if ok && *l == (Limits{}) && len(p.problems) == mistakes {
		p.fail(at(n), path, "is empty")
	}
}

// parseCPUs reads a decimal number above zero.
func parseCPUs(n *yaml.Node) (float64, error) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" && n.ShortTag() != "!!float" || strings.Trim(n.Value, "0123456789.") != "" {
		return 0, fmt.Errorf("must be a number, as in 2 or 0.5, not %s", kind(n))
	}
	cpus, err := strconv.ParseFloat(n.Value, 64)
	if err != nil || math.IsInf(cpus, 0) || cpus <= 0 || cpus > maxCPUs {
		return 0, errors.New(n.Value + " is not a number of processors")
	}
	return cpus, nil
}

// Workspace returns what the policy says of the workspace. The caller must not
// change it.
func (p *Policy) Workspace() Workspace {
	if p == nil {
		return Workspace{}
	}
	return p.workspace
}

// Files returns the paths of the host that may be read. The caller must not
// change them.
func (p *Policy) Files() []File {
	if p == nil {
		return nil
	}
	return p.files
}

// Limits returns the limits, of which a zero field is not limited by the policy.
func (p *Policy) Limits() Limits {
	if p == nil {
		return Limits{}
	}
	return p.limits
}

// Sections is the text of all but the network: what holds for as long as a sandbox
// lives.
func (p *Policy) Sections() string {
	var b strings.Builder
	w := p.workspace
	if len(w.ReadOnly)+len(w.Hidden)+len(w.Writable) > 0 {
		b.WriteString("workspace:\n")
		for _, part := range []struct {
			key      string
			patterns []string
		}{{"read_only", w.ReadOnly}, {"hidden", w.Hidden}, {"writable", w.Writable}} {
			if len(part.patterns) > 0 {
				fmt.Fprintf(&b, "  %s: [%s]\n", part.key, quoted(part.patterns))
			}
		}
	}
	switch {
	case len(p.files) > 0:
		b.WriteString("files:\n")
		for _, f := range p.files {
			fmt.Fprintf(&b, "  - {path: %q, access: read}\n", f.Path)
		}
	case p.saysFiles:
		b.WriteString("files: []\n")
	}
	if p.limits != (Limits{}) {
		fmt.Fprintf(&b, "limits: %s\n", p.limits)
	}
	return b.String()
}

func quoted(texts []string) string {
	all := make([]string, len(texts))
	for i, s := range texts {
		all[i] = strconv.Quote(s)
	}
	return strings.Join(all, ", ")
}

// String is the limits in the policy's own syntax.
func (l Limits) String() string {
	var parts []string
	if l.MemoryBytes != 0 {
		parts = append(parts, "memory: "+inUnits(l.MemoryBytes, sizeUnits))
	}
	if l.Pids != 0 {
		parts = append(parts, fmt.Sprintf("pids: %d", l.Pids))
	}
	if l.CPUs != 0 {
		parts = append(parts, "cpus: "+strconv.FormatFloat(l.CPUs, 'f', -1, 64))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// narrow returns the lower limit of each kind.
func (l Limits) narrow(other Limits) Limits {
	if l.MemoryBytes == 0 || other.MemoryBytes != 0 && other.MemoryBytes < l.MemoryBytes {
		l.MemoryBytes = other.MemoryBytes
	}
	if l.Pids == 0 || other.Pids != 0 && other.Pids < l.Pids {
		l.Pids = other.Pids
	}
	if l.CPUs == 0 || other.CPUs != 0 && other.CPUs < l.CPUs {
		l.CPUs = other.CPUs
	}
	return l
}

// narrow adds what another layer protects, and keeps of what is lifted only what
// both lift.
func (w Workspace) narrow(other Workspace) Workspace {
	union := func(a, b []string) []string {
		out := slices.Clone(a)
		for _, s := range b {
			if !slices.Contains(a, s) {
				out = append(out, s)
			}
		}
		return out
	}
	both := slices.DeleteFunc(slices.Clone(w.Writable), func(s string) bool { return !slices.Contains(other.Writable, s) })
	return Workspace{union(w.ReadOnly, other.ReadOnly), union(w.Hidden, other.Hidden), both}
}
