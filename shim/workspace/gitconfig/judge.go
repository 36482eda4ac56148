package gitconfig

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// RefusedError is a replacement that may not happen.
type RefusedError struct {
	Line   int    // of the new text, from 1; 0 for what the new text lacks
	Key    string // in git's form, section.subsection.key; "*" for a subsection that is more than a plain name
	Reason string // holds no value of either text: it may be a credential
}

func (e *RefusedError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("git configuration: %s: %s", e.Key, e.Reason)
	}
	return fmt.Sprintf("git configuration: line %d: %s: %s", e.Line, e.Key, e.Reason)
}

// Judge says whether the text old, nil if there is none, may be replaced by new; nil means that it may. gitDir is the folder that holds the
// file, relative to the workspace's top, with slashes and without "." and "..": ".git", "a/.git/modules/b", ".git/worktrees/c". It must be the real
// place of the file, not one that leads through a symbolic link.
//
// The error is a *RefusedError, or tells that a text (or gitDir) cannot be read.
func Judge(old, new []byte, gitDir string) error {
	if !cleanRelative(gitDir) {
		return errors.New("git configuration: the git directory's place is not a clean relative path")
	}
	before, err := parse(old)
	if err != nil {
		return fmt.Errorf("git configuration: the old text: %w", err)
	}
	after, err := parse(new)
	if err != nil {
		return fmt.Errorf("git configuration: %w", err)
	}
	if err := judgeFrozen(frozen(before), frozen(after)); err != nil {
		return err
	}
	return judgeListed(listed(before), listed(after), newState(before, after, gitDir))
}

func frozen(entries []entry) []entry {
	return slices.DeleteFunc(slices.Clone(entries), func(e entry) bool { _, ok := lookup(e); return ok })
}

func listed(entries []entry) map[string][]entry {
	names := map[string][]entry{}
	for _, e := range entries {
		if _, ok := lookup(e); ok {
			names[e.name] = append(names[e.name], e)
		}
	}
	return names
}

// judgeFrozen demands the same entries in the same order: what git makes of an entry depends on others, also on those with another name
// (include, credential.*, url.*).
func judgeFrozen(before, after []entry) error {
	if slices.EqualFunc(before, after, entry.same) {
		return nil
	}
	type content struct {
		name, value, folded string
		none                bool
	}
	of := func(e entry) content { return content{e.name, e.value, e.folded, e.none} }
	count := map[content]int{}
	for _, e := range before {
		count[of(e)]++
	}
	for _, e := range after {
		if count[of(e)]--; count[of(e)] < 0 {
			return &RefusedError{e.line, e.show(), "may not be set or changed: " + whyNot(e)}
		}
	}
	for _, e := range before {
		if count[of(e)] > 0 {
			return &RefusedError{0, e.show(), "may not be removed: " + whyNot(e)}
		}
	}
	for i, e := range after {
		if !e.same(before[i]) {
			return &RefusedError{e.line, e.show(), "may not change places with another: git reads them in their order"}
		}
	}
	return errors.New("git configuration: the texts differ") // not reached: the lists differ, and here equal in number and in each place
}

func judgeListed(before, after map[string][]entry, s state) error {
	var errs []*RefusedError // the first in the text is returned, so that the same texts get the same answer
	for name, entries := range after {
		if err := judgeName(before[name], entries, s); err != nil {
			errs = append(errs, err)
		}
	}
	for name, entries := range before {
		if row, _ := lookup(entries[0]); len(after[name]) == 0 && row.stays {
			errs = append(errs, &RefusedError{0, entries[0].show(), "may not be removed: " + row.why})
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return slices.MinFunc(errs, func(a, b *RefusedError) int { return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Key, b.Key)) })
}

// judgeName judges the entries of one name, of which there is at least one now.
func judgeName(before, after []entry, s state) *RefusedError {
	if slices.EqualFunc(before, after, entry.same) {
		return nil
	}
	row, _ := lookup(after[0])
	if row.stays && len(before) > 0 {
		differs := after[len(after)-1]
		for i, e := range after {
			if i >= len(before) || !e.same(before[i]) {
				differs = e
				break
			}
		}
		return &RefusedError{differs.line, differs.show(), "may not be changed: " + row.why}
	}
	for _, e := range after {
		if reason := cmp.Or(checkName(e), row.check(e, s)); reason != "" {
			return &RefusedError{e.line, e.show(), reason}
		}
	}
	return nil
}

// state is what the checks of values know beside the value.
type state struct {
	gitDir  string
	existed bool            // the old text had entries
	remotes map[string]bool // that the old text has any entry of
	trusted map[string]bool // those that commands without a remote's name use: origin, the only one, what a branch follows
	exists  map[string]bool // remotes with a url in the new text
}

func newState(before, after []entry, gitDir string) state {
	s := state{gitDir: gitDir, existed: len(before) > 0, remotes: map[string]bool{}, trusted: map[string]bool{}, exists: map[string]bool{}}
	for _, e := range before {
		switch section, sub, key, hasSub := e.split(); {
		case section == "remote" && hasSub:
			s.remotes[sub] = true
		case section == "branch" && hasSub && key == "remote" && e.value != ".":
			s.trusted[e.value] = true
		}
	}
	for _, e := range after {
		if section, sub, key, hasSub := e.split(); section == "remote" && hasSub && key == "url" {
			s.exists[sub] = true
		}
	}
	for name := range s.remotes {
		if name == "origin" || len(s.remotes) == 1 {
			s.trusted[name] = true
		}
	}
	return s
}
