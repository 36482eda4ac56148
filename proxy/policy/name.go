package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"
)

// Name is a host name in canonical form: A-labels in lower case, letters,
// digits, hyphens and underscores, at most 253 bytes, without a trailing dot,
// and no form of an IP address. Names are compared with ==; nothing behind
// [ParseName] compares the strings that came over the wire. The zero Name is no
// name.
type Name struct{ s string }

// String is the canonical text; empty for the zero Name.
func (n Name) String() string { return n.s }

// IsZero reports whether n is no name.
func (n Name) IsZero() bool { return n.s == "" }

// Errors of names. The texts say what is wrong with the name and are shown to
// the agent, so they do not repeat it.
var (
	errNameEmpty   = errors.New("empty host name")
	errNameLong    = errors.New("host name longer than 253 bytes")
	errLabelEmpty  = errors.New("empty label in host name")
	errLabelLong   = errors.New("label longer than 63 bytes in host name")
	errLabelHyphen = errors.New("label begins or ends with a hyphen in host name")
	errNameBytes   = errors.New("host name has other bytes than letters, digits, hyphens, underscores and dots")
	errNameIP      = errors.New("is an IP address, not a host name")
	errNameNumber  = errors.New("host name ends in a number, like an IP address")
	errNamePuny    = errors.New("invalid internationalised label in host name")
)

// ParseName returns the canonical form of a name that a person wrote. It
// converts internationalised names by IDNA's lookup rules (RFC 5891, UTS 46).
func ParseName(s string) (Name, error) {
	if isASCII(s) {
		return ParseWireName(s)
	}
	// IDNA treats these as dots; here they are more likely an attempt.
	if strings.ContainsAny(s, "\u3002\uff0e\uff61") {
		return Name{}, errNameBytes
	}
	ascii, err := idna.Lookup.ToASCII(s)
	if err != nil || !isASCII(ascii) {
		return Name{}, errNamePuny
	}
	return ParseWireName(ascii)
}

// ParseWireName returns the canonical form of a name as it stands in DNS, TLS
// or HTTP, where internationalised names are A-labels already: anything but
// ASCII is an error.
func ParseWireName(s string) (Name, error) {
	s = strings.TrimSuffix(s, ".")
	switch {
	case s == "":
		return Name{}, errNameEmpty
	case len(s) > 253:
		return Name{}, errNameLong
	}
	if isAddress(s) {
		return Name{}, errNameIP
	}
	s = lower(s)
	last := ""
	for label := range strings.SplitSeq(s, ".") {
		if err := checkLabel(label); err != nil {
			return Name{}, err
		}
		last = label
	}
	// What inet_aton reads as a number would make the whole an address for some
	// programs: 127.1, 0x7f.1, 2130706433 (WHATWG URL, "ends in a number").
	if isNumber(last) {
		return Name{}, errNameNumber
	}
	return Name{s}, nil
}

func checkLabel(label string) error {
	switch {
	case label == "":
		return errLabelEmpty
	case len(label) > 63:
		return errLabelLong
	}
	for i := range len(label) {
		switch c := label[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return errNameBytes
		}
	}
	if label[0] == '-' || label[len(label)-1] == '-' {
		return errLabelHyphen
	}
	if strings.HasPrefix(label, "xn--") {
		unicode, err := idna.Lookup.ToUnicode(label)
		if err != nil {
			return errNamePuny
		}
		if again, err := idna.Lookup.ToASCII(unicode); err != nil || again != label {
			return errNamePuny
		}
	}
	return nil
}

// isAddress reports whether s is an IP address, with or without brackets. Names
// that cannot be one do not cost the making of an error.
func isAddress(s string) bool {
	s = strings.Trim(s, "[]")
	if s == "" || !strings.Contains(s, ":") && (s[len(s)-1] < '0' || s[len(s)-1] > '9') {
		return false
	}
	_, err := netip.ParseAddr(s)
	return err == nil
}

func isNumber(label string) bool {
	if hex, ok := strings.CutPrefix(label, "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// lower is strings.ToLower for ASCII; other bytes stay and are refused later.
func lower(s string) string {
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				if 'A' <= b[i] && b[i] <= 'Z' {
					b[i] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}

// Pattern is what a rule is about: one name, or all names below one.
type Pattern struct {
	Base     Name
	Wildcard bool // one label or more before Base, never Base itself
}

func (p Pattern) String() string {
	if p.Wildcard {
		return "*." + p.Base.String()
	}
	return p.Base.String()
}

// parsePattern reads the value of allow or deny. Its errors say what to write
// instead.
func parsePattern(s string) (Pattern, error) {
	switch {
	case s == "":
		return Pattern{}, errNameEmpty
	case s == "*":
		return Pattern{}, errors.New(`"*" would be every host: name them`)
	case strings.Contains(s, "://"):
		return Pattern{}, fmt.Errorf("%q is a URL: only the host name belongs here", s)
	case strings.Contains(s, "/") && isPrefix(s):
		return Pattern{}, fmt.Errorf("%q is a block of addresses: a rule has a host name", s)
	case strings.ContainsAny(s, "/?#\\"):
		return Pattern{}, fmt.Errorf("%q has a path: only the host name belongs here", s)
	case strings.Contains(s, "@"):
		return Pattern{}, fmt.Errorf("%q has a user: only the host name belongs here", s)
	}
	if isAddress(s) {
		return Pattern{}, fmt.Errorf("%q is an IP address: a rule has a host name, and may pin it with addresses: [%s]", s, strings.Trim(s, "[]"))
	}
	if strings.Contains(s, ":") {
		return Pattern{}, fmt.Errorf("%q has a port: that belongs into ports: [...]", s)
	}
	base, wildcard := strings.CutPrefix(s, "*.")
	if strings.Contains(base, "*") {
		return Pattern{}, fmt.Errorf(`%q: a wildcard is "*." and then a name without further stars`, s)
	}
	name, err := ParseName(base)
	if err != nil {
		return Pattern{}, fmt.Errorf("%q: %w", s, err)
	}
	return Pattern{name, wildcard}, nil
}

func isPrefix(s string) bool {
	_, err := netip.ParsePrefix(s)
	return err == nil
}

// localDomains are top-level names that the public DNS does not have (RFC 6761,
// RFC 6762, RFC 7686, RFC 9476, and ICANN's "internal"). Search suffixes end in
// them, and an answer for api.example.org.ns.svc.cluster.local would keep a
// client from ever asking for api.example.org.
var localDomains = [...]string{"local", "internal", "localhost", "invalid", "onion", "alt", "arpa", "lan", "localdomain"}

// checkBreadth refuses patterns that would allow more than one owner's names.
func (p Pattern) checkBreadth(shared bool) error {
	base := p.Base.String()
	tld := base[strings.LastIndexByte(base, '.')+1:]
	if tld == "localhost" {
		return fmt.Errorf("%q is the sandbox itself and never leaves it", p)
	}
	if !p.Wildcard {
		if shared {
			return errors.New("belongs to a wildcard over a shared-hosting suffix")
		}
		return nil
	}
	for _, local := range localDomains {
		if tld == local {
			return fmt.Errorf("%q: a wildcard below .%s would catch search suffixes: name each host", p, tld)
		}
	}
	suffix, managed := publicsuffix.PublicSuffix(base)
	// "*.kawasaki.jp" in the list makes every name below kawasaki.jp a suffix.
	below, managedBelow := publicsuffix.PublicSuffix("x." + base)
	isSuffix, isBelow := suffix == base, below == "x."+base
	switch {
	case isSuffix && (managed || !strings.Contains(base, ".")), isBelow && managedBelow:
		return fmt.Errorf("%q is a public suffix: it would allow the names of anybody", p)
	case (isSuffix || isBelow) && !shared:
		return fmt.Errorf("%q is shared hosting, where anybody can get a name: if that is meant, add shared: true", p)
	}
	return nil
}
