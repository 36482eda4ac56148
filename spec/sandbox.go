package spec

import (
	"fmt"
	"path"
	"strings"
	"unicode/utf8"
)

// Sandbox says what one agent may touch. It names no mechanism, and the zero Sandbox grants nothing.
type Sandbox struct {
	// ID is unique on this host and safe as a file name, see [CheckID]: "default:web-1".
	ID string
	// Agent says who asked, for logs and prompts: the image or the command. It is free text from the spec, never trusted.
	Agent string
	// Files are the only files of the host that the agent sees, apart from what engines generate (/etc/hosts, /etc/hostname).
	Files []FileRule
	// Workspace says what of the workspace, the one of Files that may be written, is more or less than writable.
	Workspace Workspace
	// Tools are the host's own programs and what these need, for an agent that has no image: read-only, each at its own
	// place, see [IsTool].
	Tools []string
	// Network says how much of the network there is.
	Network Network
	// Env holds KEY=VALUE entries that every process gets, over those of its own with the same key. The last of several
	// entries with one key counts.
	Env []string
	// Limits bound what the sandbox uses of the machine. A zero field stands for that of [DefaultLimits].
	Limits Limits
}

// FileRule grants access to Path, a folder with everything below it, or a regular file that may only be read. Rules may not nest (a mount below a workspace can be swapped
// by the agent that writes there, the family of CVE-2025-31133), so a Deny below a grant is refused for now, as is
// every other Deny: what the host has is denied by leaving it out.
type FileRule struct {
	Path   string // in the container: absolute, clean
	Source string // on the host: absolute, clean, symbolic links resolved by the caller
	Access Access
}

// Workspace has patterns of paths within a workspace: with slashes between names, in which "*" and "?" mean what they do in
// [path.Match], and nothing else means anything. One that begins with a slash is about the workspace's top, any other about
// every folder in it. What matches a folder is about all that it holds.
//
// What is written is judged by whoever answers the filter, see [Seccomp]; what is hidden Rewrite masks, see Host.Hidden.
type Workspace struct {
	ReadOnly []string // cannot be changed
	Hidden   []string // cannot be seen
	Writable []string // can be changed although it is protected by itself
}

// The most that a Workspace holds: a list comes from a few policies.
const (
	maxPatterns = 4096
	maxPattern  = 4096 // bytes, as of a path
)

type patternList struct {
	name     string
	patterns []string
}

func (w Workspace) lists() []patternList {
	return []patternList{{"read_only", w.ReadOnly}, {"hidden", w.Hidden}, {"writable", w.Writable}}
}

func (w Workspace) check() error {
	for _, list := range w.lists() {
		if len(list.patterns) > maxPatterns {
			return fmt.Errorf("workspace %s: more than %d patterns", list.name, maxPatterns)
		}
		for _, p := range list.patterns {
			at := strings.TrimPrefix(p, "/")
			if at == "" || len(p) > maxPattern || path.Clean("/"+at) != "/"+at || strings.ContainsAny(p, "[\\\x00") || !utf8.ValidString(p) {
				return fmt.Errorf("workspace %s: %.100q is not a pattern of a path", list.name, p)
			}
		}
	}
	return nil
}

// Access is what an agent may do to files. The zero value is [Deny].
type Access uint8

// The kinds of access, each including those before it.
const (
	Deny Access = iota
	Read
	Write
)

// String returns "deny", "read" or "write".
func (a Access) String() string {
	switch a {
	case Deny:
		return "deny"
	case Read:
		return "read"
	case Write:
		return "write"
	}
	return fmt.Sprintf("access(%d)", uint8(a))
}

// Network says what the agent may reach.
type Network struct {
	Mode NetworkMode
	// Policy names the policy that the proxy applies, see [CheckPolicyName]; "" is the default one, which denies everything.
	Policy string
}

// NetworkMode says how a sandbox is connected. The zero value is [None].
type NetworkMode uint8

// The network modes. Either way the container has a network namespace of its own; they differ in what is put into it.
const (
	None    NetworkMode = iota // no interface but lo
	Proxied                    // one veth that ends at the proxy
)

// String returns "none" or "proxied".
func (m NetworkMode) String() string {
	switch m {
	case None:
		return "none"
	case Proxied:
		return "proxied"
	}
	return fmt.Sprintf("network(%d)", uint8(m))
}

var (
	// Their lengths are looked at beside them: a bounded repetition is compiled as so many patterns.
	idPattern     = lazily(`^[A-Za-z0-9][A-Za-z0-9_.:@-]*$`)
	policyPattern = lazily(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)
	envKeyPattern = lazily(`^[^=\x00]+$`)
)

// CheckID returns an error unless id is 1 to 200 bytes of letters, digits and "_.:@-" that begin with a letter or
// digit, so that it can be a file name on its own. containerd's namespaces and container IDs have at most 76 bytes each.
func CheckID(id string) error {
	if len(id) > 200 || !idPattern().MatchString(id) {
		return fmt.Errorf("sandbox id %q: want 1 to 200 of A-Z a-z 0-9 _ . : @ -, a letter or digit first", id)
	}
	return nil
}

// CheckPolicyName returns an error unless name is "" or 1 to 64 bytes of letters, digits and "_.-" that begin with a
// letter or digit: it becomes part of a file name.
func CheckPolicyName(name string) error {
	if name != "" && (len(name) > 64 || !policyPattern().MatchString(name)) {
		return fmt.Errorf("policy name %q: want up to 64 of A-Z a-z 0-9 _ . -, a letter or digit first", name)
	}
	return nil
}

// check validates everything but Files, which need the Host.
func (sb Sandbox) check() error {
	if err := CheckID(sb.ID); err != nil {
		return err
	}
	switch sb.Network.Mode {
	case None, Proxied:
	default:
		return fmt.Errorf("sandbox network mode %d: not known", sb.Network.Mode)
	}
	if err := CheckPolicyName(sb.Network.Policy); err != nil {
		return err
	}
	if err := checkEnv(sb.Env); err != nil {
		return err
	}
	if err := checkTools(sb.Tools); err != nil {
		return err
	}
	if err := sb.Workspace.check(); err != nil {
		return err
	}
	return sb.Limits.Validate()
}

// checkEnv never repeats a value: it may be a secret.
func checkEnv(env []string) error {
	for i, e := range env {
		key, value, ok := strings.Cut(e, "=")
		switch {
		case !ok || !envKeyPattern().MatchString(key):
			return fmt.Errorf("sandbox env entry %d: want KEY=VALUE", i)
		case strings.Contains(value, "\x00") || !utf8.ValidString(e):
			return fmt.Errorf("sandbox env %q: value is not text", key)
		case sideEffect(key) != "":
			return fmt.Errorf("sandbox env %s: %s", key, sideEffect(key))
		}
	}
	return nil
}

// checkPath returns why p is not a path that a rule can judge by its text, or "".
// config.json is UTF-8: other bytes would be replaced when it is written, and then name another file.
func checkPath(p string) string {
	switch {
	case p == "":
		return "path is empty"
	case !utf8.ValidString(p) || strings.ContainsRune(p, 0):
		return "path is not UTF-8 text"
	case !path.IsAbs(p):
		return "path is not absolute"
	case path.Clean(p) != p:
		return "path is not in its shortest form (as from path.Clean)"
	}
	return ""
}

// within reports whether p is dir or lies below it. Both are clean and absolute.
func within(p, dir string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir+"/")
}

// below reports whether p lies below dir and is not dir itself.
func below(p, dir string) bool { return p != dir && within(p, dir) }

// overlap reports whether one of the two trees holds the other.
func overlap(a, b string) bool { return within(a, b) || within(b, a) }
