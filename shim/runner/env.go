package runner

import "slices"

// passed are the variables that an agent gets of the caller's environment: what a terminal and a language need, who commits, and nothing that could
// be a secret.
var passed = []string{
	"PATH", "TERM", "COLORTERM", "NO_COLOR", "FORCE_COLOR", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "LC_COLLATE", "LC_MESSAGES",
	"LC_NUMERIC", "LC_TIME", "TZ", "COLUMNS", "LINES", "GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL",
}

// Passed returns the names of the variables that an agent gets from the caller.
func Passed() []string { return slices.Clone(passed) }
