package workspace

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Rules are what a policy says about the places of a workspace; the zero value is what [BuiltIn] says. Patterns are relative to the
// workspace. One that begins with "/" matches at its top only, any other at any depth; "*" and "?" match within one component of a path.
// A place that matches covers all below it. Of several the one that matches the longest part of a path counts, and of those of the same
// length the strictest.
type Rules struct {
	ReadOnly []string `json:"read_only,omitempty"` // not written, replaced, removed or made
	Hidden   []string `json:"hidden,omitempty"`    // nor read
	Writable []string `json:"writable,omitempty"`  // in spite of BuiltIn
}

// A Kind says what an agent may do with a place, besides reading it.
type Kind uint8

// The kinds of places. The zero value is the strictest.
const (
	Protected Kind = iota // nothing
	Hidden                // nothing, and it is not read either
	GitConfig             // have a regular file there whose text package gitconfig allows; remove it if that loosens nothing
	GitLink               // have a folder there, or a regular file whose text JudgeLink allows
	Folder                // make or remove an empty folder
	Free                  // anything
)

// A Verdict is what Judge says about a path.
type Verdict struct {
	Kind    Kind
	Pattern string // what matched; empty if Free
	Reason  string
}

// IsText reports whether what a file says there decides about it.
func (k Kind) IsText() bool { return k == GitConfig || k == GitLink }

// For is the verdict about a folder, or about something else, in that place.
func (v Verdict) For(folder bool) Verdict {
	if v.Kind == GitLink && folder {
		return Verdict{Kind: Free}
	}
	return v
}

// A compiled pattern.
type pattern struct {
	text   string
	top    bool
	parts  []part // lower case
	kind   Kind
	reason string
	rank   int // among patterns that match equally long the highest counts
}

// A Judge is a compiled set of rules. It is safe for concurrent use.
type Judge struct {
	literal map[string][]pattern // by the first part
	globs   []pattern            // whose first part is a glob
}

// maxPattern is the longest pattern, PATH_MAX of Linux.
const maxPattern = 4096

// NewJudge compiles the rules on top of BuiltIn.
func NewJudge(r Rules) (*Judge, error) {
	j := &Judge{literal: map[string][]pattern{}}
	for _, b := range BuiltIn() {
		if err := j.add(b.Pattern, Protected, b.Reason, rankBuiltIn); err != nil {
			return nil, err
		}
	}
	for _, set := range []struct {
		kind     Kind
		patterns []string
		reason   string
		rank     int
	}{
		{Free, r.Writable, "", rankWritable},
		{Protected, r.ReadOnly, "the policy has it read-only", rankReadOnly},
		{Hidden, r.Hidden, "the policy hides it", rankHidden},
	} {
		for _, p := range set.patterns {
			if err := j.add(p, set.kind, set.reason, set.rank); err != nil {
				return nil, err
			}
		}
	}
	return j, nil
}

// Ranks of patterns by where they come from.
const (
	rankBuiltIn = iota
	rankWritable
	rankReadOnly
	rankHidden
)

// Protect adds a place that was found to be one, such as what core.hooksPath names. It must not be called any more once Judge is.
func (j *Judge) Protect(p, reason string) error { return j.add(p, Protected, reason, rankBuiltIn) }

func (j *Judge) add(text string, kind Kind, reason string, rank int) error {
	p, err := compile(text)
	if err != nil {
		return err
	}
	p.kind, p.reason, p.rank = kind, reason, rank
	if first := p.parts[0]; first.head == first.text {
		j.literal[first.text] = append(j.literal[first.text], p)
	} else {
		j.globs = append(j.globs, p)
	}
	return nil
}

func compile(text string) (pattern, error) {
	fail := func(why string) error { return fmt.Errorf("pattern %q: %s", text, why) }
	p := pattern{text: text}
	rest, top := strings.CutPrefix(text, "/")
	p.top = top
	switch {
	case rest == "":
		return pattern{}, fail("it names nothing")
	case len(text) > maxPattern:
		return pattern{}, fail("it is too long")
	case strings.ContainsAny(text, "[\\\x00"):
		return pattern{}, fail(`it has one of "[", "\" or a zero byte`)
	}
	for text := range strings.SplitSeq(lower(rest), "/") {
		switch text {
		case "", ".", "..":
			return pattern{}, fail(`a component is empty, "." or ".."`)
		}
		p.parts = append(p.parts, compilePart(text))
	}
	return p, nil
}

// lower has the ASCII letters of s in lower case, also where some file system takes another character for one, and leaves out what some take for
// nothing.
func lower(s string) string {
	for i := range len(s) {
		if s[i] >= 'A' && s[i] <= 'Z' || s[i] >= utf8.RuneSelf {
			return strings.Map(fold, s)
		}
	}
	return s
}

func fold(c rune) rune {
	switch {
	case c >= 'A' && c <= 'Z':
		return c + 'a' - 'A'
	case c < utf8.RuneSelf:
	case c == '\u017f': // long s
		return 's'
	case c == '\u212a': // kelvin sign
		return 'k'
	case unicode.In(c, unicode.Cf, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector):
		return -1
	}
	return c
}

// SameName reports whether two names can be one: in some file system they are.
func SameName(a, b string) bool { return lower(a) == lower(b) }

// matches returns how many of the parts, from the i-th on, the pattern covers, or 0.
func (p *pattern) matches(parts []string, i int) int {
	if p.top && i > 0 || len(parts)-i < len(p.parts) {
		return 0
	}
	for k, want := range p.parts {
		if !want.matches(parts[i+k]) {
			return 0
		}
	}
	return len(p.parts)
}

// begins reports whether the parts, from the i-th to the last, are the pattern's first ones, and it has more.
func (p *pattern) begins(parts []string, i int) bool {
	n := len(parts) - i
	if n >= len(p.parts) {
		return false
	}
	first := *p
	first.parts = p.parts[:n]
	return first.matches(parts, i) == n
}

// A part is one component of a pattern. It is compared with a path's some hundred times for each call, and most often the answer is no, which
// is seen at once by what comes before the first star and after the last one.
type part struct{ text, head, tail string }

func compilePart(text string) part {
	begin := strings.IndexAny(text, "*?")
	if begin < 0 {
		return part{text: text, head: text}
	}
	return part{text, text[:begin], text[strings.LastIndexAny(text, "*?")+1:]}
}

func (p part) matches(name string) bool {
	if len(p.head) == len(p.text) {
		return name == p.text
	}
	if !strings.HasPrefix(name, p.head) || !strings.HasSuffix(name, p.tail) {
		return false
	}
	ok, err := path.Match(p.text, name)
	return ok && err == nil
}

// Judge says what may be done with the place at name, which is relative to the workspace, clean, and goes through no symbolic link. Whether a
// folder is a git directory, by what it holds, is for isGit to say; it is asked with the folder's path, "." for the workspace itself.
func (j *Judge) Judge(name string, isGit func(dir string) bool) Verdict {
	if name == "." {
		return Verdict{Kind: Free}
	}
	return j.judge(name, func(parts []string) (Verdict, int) { return judgeGit(name, parts, isGit) })
}

// JudgeSymlink is Judge for a symbolic link. None is on the way to a protected place, which would then be where the link leads, under a name that protects
// nothing. None is a directory named .git, and those that lie in one lead to what lies beside them, as the one by which git finds
// out whether there are symbolic links: all that git finds by a name in there is in there.
func (j *Judge) JudgeSymlink(name, target string, isGit func(dir string) bool) Verdict {
	beside := target != "" && target != "." && target != ".." && !strings.Contains(target, "/")
	v := j.Judge(name, isGit)
	if v.Kind == Free {
		v = j.judgeWay(name)
	}
	if v.Kind != Free || beside {
		return v
	}
	return j.judge(name, func(parts []string) (Verdict, int) {
		if i := slices.Index(parts, ".git"); i >= 0 {
			return Verdict{Kind: Protected, Pattern: "a symbolic link in a git directory", Reason: "git would follow it to where an agent may write"}, i + 1
		}
		return Verdict{Kind: Free}, 0
	})
}

// judgeWay says whether a name is on the way to a place that a pattern protects.
func (j *Judge) judgeWay(name string) Verdict {
	parts := strings.Split(lower(name), "/")
	for i := range parts {
		for _, set := range [][]pattern{j.literal[parts[i]], j.globs} {
			for _, p := range set {
				if p.kind != Free && p.begins(parts, i) {
					return Verdict{Kind: Protected, Pattern: p.text, Reason: p.reason}
				}
			}
		}
	}
	return Verdict{Kind: Free}
}

// judge says what the patterns say about a name, or git, which also says how many parts of the name that covers.
func (j *Judge) judge(name string, git func(parts []string) (Verdict, int)) Verdict {
	parts := strings.Split(lower(name), "/")
	var found *pattern
	end := 0
	look := func(set []pattern, i int) {
		for k := range set {
			p := &set[k]
			n := p.matches(parts, i)
			if n > 0 && (i+n > end || i+n == end && p.rank > found.rank) {
				found, end = p, i+n
			}
		}
	}
	for i, part := range parts {
		look(j.literal[part], i)
		look(j.globs, i)
	}
	if found != nil && found.kind != Free {
		return Verdict{Kind: found.kind, Pattern: found.text, Reason: found.reason}
	}
	if v, at := git(parts); at > end {
		return v
	}
	return Verdict{Kind: Free}
}

// What a git directory holds that is not the agent's.
var gitPlaces = map[string]struct {
	kind   Kind
	reason string
}{
	"config":          {GitConfig, "it can name programs that git runs"},
	"config.worktree": {GitConfig, "it can name programs that git runs"},
	"hooks":           {Folder, "git runs what lies in there"},
	"remotes":         {Folder, "git takes what lies in there for remotes (gitrepository-layout(5))"},
	"branches":        {Folder, "git takes what lies in there for remotes (gitrepository-layout(5))"},
}

// judgeGit also says how many parts of the path what it found covers.
func judgeGit(name string, parts []string, isGit func(dir string) bool) (Verdict, int) {
	last := len(parts) - 1
	is := func(n int) bool { // the first n parts are a git directory
		if n == 0 {
			return isGit(".")
		}
		if parts[n-1] == ".git" {
			return true
		}
		end := 0
		for range n {
			end += strings.IndexByte(name[end:], '/') + 1
		}
		return isGit(name[:end-1])
	}
	for i, part := range parts {
		if part == "objects" && i > 1 && parts[i-2] == "worktrees" && is(i-2) {
			const reason = "with objects of its own a worktree's folder would be a repository, with another configuration"
			return Verdict{Protected, "objects of a worktree", reason}, i + 1
		}
		place, ok := gitPlaces[part]
		if !ok || !is(i) {
			continue
		}
		v := Verdict{place.kind, part + " of a git directory", place.reason}
		switch {
		case i == last:
		case part == "hooks" && i+1 == last && strings.HasSuffix(parts[last], ".sample"):
			v = Verdict{Kind: Free} // git does not run it
		default:
			v.Kind = Protected
		}
		return v, i + 1
	}
	switch parts[last] {
	case ".git", "commondir":
		return Verdict{GitLink, parts[last], "git finds a git directory by what it says"}, last + 1
	case "repo":
		if last > 0 && parts[last-1] == ".jj" {
			return Verdict{GitLink, ".jj/repo", "jj finds a repository, and its configuration, by what it says"}, last + 1
		}
	}
	return Verdict{Kind: Free}, 0
}

// IsGit reports whether git would take a folder for a git directory, or for what one shares with others, by the entries that it has
// (gitrepository-layout(5)).
func IsGit(has func(entry string) bool) bool {
	return has("HEAD") && (has("refs") || has("commondir")) || has("refs") && has("objects")
}

// MakesGit reports whether an entry of this name can be what makes a folder a git directory.
func MakesGit(entry string) bool {
	switch lower(entry) {
	case "head", "refs", "commondir", "objects":
		return true
	}
	return false
}
