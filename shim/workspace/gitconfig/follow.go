package gitconfig

import "strings"

// checkFollow keeps an owner's push and pull where they went. A branch may follow what git's commands use anyway: the repository itself, origin, the
// only remote there is, a remote that another branch follows. What is added from inside is none of these and, by that, never becomes one. Only
// where there is no remote at all, as in a repository that has just been made, any will do; where there are some and none is used, an agent may have made it so
// in an earlier session.
//
// git takes a value that is no remote's name for an address, so there must be such a remote.
func checkFollow(name string, s state) string {
	switch {
	case name == ".":
		return ""
	case !isRemoteName(name) || !s.exists[name]:
		return "must name a remote of this file: git takes anything else for an address"
	case len(s.trusted) > 0 && !s.trusted[name]:
		return "must name a remote that a branch follows already, or origin: the owner's next push would go elsewhere"
	case len(s.trusted) == 0 && len(s.remotes) > 0:
		return "is for the owner to set: no branch follows one of the remotes"
	}
	return ""
}

// checkAddress judges the address of a remote or a submodule.
//
// git runs the program git-remote-X for "X::address" and for a scheme that it does not know itself, and hands host and path to ssh: what starts with a
// dash would be an option. It unescapes hosts of ssh before that.
func checkAddress(e entry, s state) string {
	if section, sub, _, _ := e.split(); section == "remote" {
		switch {
		case s.remotes[sub]:
			return "may only come as the first of its remote: the owner's next push would go elsewhere"
		case s.trusted[sub], sub == "origin" && len(s.remotes) > 0:
			return "is of a remote that commands use unasked: the owner's next push would go elsewhere"
		}
	}
	v := e.value
	switch low := strings.ToLower(v); {
	case v == "" || hasControl(v):
		return "is empty, or has control characters"
	case v[0] == '-':
		return "starts with a dash: git would take it for an option"
	case helper(v):
		return "names a remote helper: git would run it"
	case strings.Contains(low, "%0") || strings.Contains(low, "%1"):
		return "has escaped control characters"
	}
	scheme, rest, isURL := strings.Cut(v, "://")
	if !isURL {
		return checkScp(v)
	}
	switch scheme {
	case "http", "https", "file":
		return ""
	case "ssh", "git":
		host, _, _ := strings.Cut(rest, "/")
		if strings.Contains(host, "%") || dashed(host) {
			return "has a host that ssh could take for an option"
		}
		return ""
	}
	return "has a scheme that git has no transport of its own for"
}

// helper tells whether git reads v as "transport::address". Elsewhere two colons are a part of a path or of an IPv6 address.
func helper(v string) bool {
	name, _, ok := strings.Cut(v, "::")
	return ok && strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789+-.") == ""
}

// checkScp judges a path, or the form host:path, which has a colon before its first slash.
func checkScp(v string) string {
	host, p, ok := strings.Cut(v, ":")
	if !ok || strings.Contains(host, "/") {
		return ""
	}
	if strings.HasPrefix(v, "[") || strings.Contains(host, "@[") { // [host:port]:path
		host, p, ok = strings.Cut(v, "]:")
		if !ok {
			return "is not an address that can be read"
		}
	}
	if host == "" || dashed(host) || strings.HasPrefix(p, "-") {
		return "has a host or path that ssh could take for an option"
	}
	return ""
}

// dashed tells whether the host, or the user before it, starts with a dash.
func dashed(host string) bool {
	for part := range strings.SplitSeq(host, "@") {
		if strings.HasPrefix(strings.TrimLeft(part, "["), "-") {
			return true
		}
	}
	return false
}
