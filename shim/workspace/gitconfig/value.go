package gitconfig

import (
	"cmp"
	"path"
	"slices"
	"strings"
	"unicode"
)

// kind says which values of a key may come.
type kind int

const (
	none     kind = iota // no value: the zero value allows nothing
	boolean              // git's own words, and a key without a value
	choice               // a word of the row's list
	boolOr               // boolean or choice
	number               // with a unit, if any
	text                 // anything without control characters but tabs and newlines: it is shown and never run
	date                 // an expiry: "now", "never", "2.weeks.ago"
	filter               // an object filter, of a remote that is fetched from unasked
	mirror               // boolean, of a remote that was not there before
	promisor             // boolean, of a remote that is fetched from unasked
	address              // of a repository
	refspec              // what a fetch takes, and where below refs/ it puts it
	ref                  // the full name of a ref
	remote               // a remote that the owner's commands use already, or "."
	worktree             // where a submodule's files lie
)

// check returns why the value may not come, or "".
func (r row) check(e entry, s state) string {
	if e.none {
		if r.kind == boolean || r.kind == boolOr {
			return ""
		}
		return "needs a value"
	}
	if e.value != e.folded {
		return "has white space in its value that versions of git read differently"
	}
	if _, sub, _, _ := e.split(); r.kind == filter || r.kind == promisor {
		if reason := checkFollow(sub, s); reason != "" {
			return "is of a remote that commands would fetch from unasked: it " + reason
		}
	}
	if _, sub, _, _ := e.split(); r.kind == mirror && s.remotes[sub] {
		return "is of a remote that was there before: the owner's next push would take more"
	}
	v := e.value
	ok := false
	switch r.kind {
	case boolean, mirror, promisor:
		ok = isBoolean(v)
	case choice:
		ok = slices.Contains(strings.Fields(r.values), v)
	case boolOr:
		ok = isBoolean(v) || slices.Contains(strings.Fields(r.values), v)
	case number:
		ok = isNumber(v)
	case text:
		ok = !hasControl(strings.NewReplacer("\n", "", "\t", "").Replace(v))
	case date:
		ok = v != "" && v[0] != '-' && strings.Trim(v, plain+" :+") == ""
	case filter:
		ok = v != "" && v[0] != '-' && strings.Trim(v, plain+":=+%") == ""
	case address:
		return checkAddress(e, s)
	case refspec:
		ok = isRefspec(v)
	case ref:
		ok = isRef(v)
	case remote:
		return checkFollow(v, s)
	case worktree:
		return checkWorktree(v, s)
	}
	if !ok {
		return "has a value that may not come from here: allowed is " + r.expect()
	}
	return ""
}

func (r row) expect() string {
	switch r.kind {
	case boolean, mirror, promisor:
		return "true or false"
	case choice:
		return "one of: " + r.values
	case boolOr:
		return "true, false or one of: " + r.values
	case number:
		return "a number"
	case text:
		return "text without control characters"
	case date:
		return "a date"
	case filter:
		return "an object filter"
	case refspec:
		return "a refspec that writes below refs/"
	case ref:
		return "a name below refs/"
	}
	return "nothing"
}

func isBoolean(v string) bool {
	return slices.Contains([]string{"", "true", "yes", "on", "1", "false", "no", "off", "0"}, strings.ToLower(v))
}

func isNumber(v string) bool {
	v = strings.TrimPrefix(v, "-")
	if n := len(v); n > 1 && strings.IndexByte("kKmMgG", v[n-1]) >= 0 {
		v = v[:n-1]
	}
	return v != "" && len(v) <= 18 && strings.Trim(v, "0123456789") == ""
}

func hasControl(v string) bool {
	return strings.ContainsFunc(v, unicode.IsControl)
}

func isRefspec(v string) bool {
	src, dst, both := strings.Cut(strings.TrimLeft(v, "+^"), ":")
	if both && dst != "" && !isRef(dst) {
		return false
	}
	return src != "" && src[0] != '-' && !strings.ContainsAny(src, " ~^:?[\\") && !hasControl(src)
}

// isRef takes a pattern's "*" for a character: whether it is in its place is for git to say.
func isRef(v string) bool {
	return strings.HasPrefix(v, "refs/") && !strings.ContainsAny(v, " ~^:?[\\") && !hasControl(v) && cleanRelative(v)
}

// cleanRelative tells whether v is a path that stays below its folder as text, in its shortest form. "." is none.
func cleanRelative(v string) bool {
	return v != "" && v != "." && path.Clean(v) == v && !path.IsAbs(v) && v != ".." && !strings.HasPrefix(v, "../")
}

// checkName looks at the subsection of what is new: git hands names of remotes to programs of its own as arguments (fetch --all), and makes
// paths of names of submodules.
func checkName(e entry) string {
	section, sub, _, hasSub := e.split()
	if !hasSub {
		return ""
	}
	switch section {
	case "remote":
		if !isRemoteName(sub) {
			return "is of a remote whose name is not a plain one"
		}
	case "branch":
		if sub == "" || sub[0] == '-' || hasControl(sub) {
			return "is of a branch that cannot be"
		}
	case "submodule":
		if sub == "" || slices.Contains(strings.FieldsFunc(sub, func(c rune) bool { return c == '/' || c == '\\' }), "..") {
			return "is of a submodule whose name leads out of its folder"
		}
	}
	return ""
}

func isRemoteName(name string) bool {
	return cleanRelative(name) && name[0] != '-' && strings.Trim(name, plain) == ""
}

// whyNot is the reason for a key that is not among the rows.
func whyNot(e entry) string {
	return cmp.Or(refusedWhy(e), "not a key that is known to run nothing and to lead nowhere")
}
