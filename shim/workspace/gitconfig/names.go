package gitconfig

import "strings"

// Named is what a text names that git runs or obeys.
type Named struct {
	HooksPath string   // core.hooksPath, as it takes effect if no later file sets it; empty if there is none
	Includes  []string // paths of further configurations, whether their condition holds or not
	Commands  []string // words of commands, some of which may be paths
}

// Names reads what a text names. A text that git cannot read names nothing: git stops at it.
func Names(text []byte) (n Named) {
	entries, err := parse(text)
	if err != nil {
		return n
	}
	for _, e := range entries {
		switch why := refusedWhy(e); {
		case e.name == "core.hookspath":
			n.HooksPath = e.value
		case why == whyIncludes:
			n.Includes = append(n.Includes, e.value)
		case why == whyPrograms, why == whyCommand, e.name == "core.fsmonitor":
			n.Commands = append(n.Commands, strings.FieldsFunc(e.value, inNoPath)...)
		}
	}
	return n
}

// inNoPath reports whether a shell would take a character for the end of a word, or for no part of it.
func inNoPath(c rune) bool { return strings.ContainsRune(" \t\n;|&()<>{}'\"`$=!", c) }
