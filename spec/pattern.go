package spec

import (
	"regexp"
	"sync"
)

// pattern is a regular expression that is compiled when it is first used. A container's start runs the shim's binary three times
// and rewrites a spec in one of them: compiling in package initialisation would be paid in all.
type pattern func() *regexp.Regexp

func lazily(text string) pattern {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })
}
