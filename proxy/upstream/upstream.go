// Package upstream describes the HTTP proxy of a site, which the administrator
// puts between the proxies of sandboxes and the network. It is data; it opens no
// socket, and stays free of what the shim does not need.
//
// # What goes through
//
// Everything that a policy allows, by CONNECT, cleartext HTTP too, but for what
// an [Exception] takes out. A name that goes through is not resolved here: it is
// told to the HTTP proxy, and only once it is allowed. If a rule pins addresses,
// the address is told instead of the name. Exceptions about names are compared
// with the name of the connection, those about addresses with the address that a
// rule pins: nothing is resolved to find out whether one applies.
package upstream

import (
	"net/netip"
	"strings"
)

// MaxServers bounds the DNS servers of a resolver, like resolv.conf(5).
const MaxServers = 3

// Proxy is an HTTP proxy, spoken to in cleartext. A nil one means none. It
// travels to the process that uses it as JSON.
type Proxy struct {
	Host        string // a name in policy's canonical form, or an address
	Port        uint16
	Credentials Credentials // empty: none are sent
	NoProxy     []Exception
}

// Carries reports whether a connection goes through the HTTP proxy. name, in
// canonical form, is empty for a bare address; addr is zero unless it is known
// without resolving the name.
func (p *Proxy) Carries(name string, addr netip.Addr) bool {
	if p == nil {
		return false
	}
	for _, e := range p.NoProxy {
		if e.matches(name, addr) {
			return false
		}
	}
	return true
}

// Credentials are "user:password" (RFC 7617), a secret: printed by fmt they show
// nothing, and only JSON carries them.
type Credentials string

func (c Credentials) String() string {
	if c == "" {
		return "none"
	}
	return "hidden"
}

// GoString is [Credentials.String], for %#v.
func (c Credentials) GoString() string { return c.String() }

// Exception is what does not go through the HTTP proxy: one name, all names
// below one, or the addresses of a prefix. The zero Exception is nothing.
type Exception struct {
	Name   string       // in policy's canonical form
	Below  bool         // one label or more before Name, never Name itself
	Prefix netip.Prefix // valid: an exception about addresses, and the rest is zero
}

func (e Exception) matches(name string, addr netip.Addr) bool {
	switch {
	case e.Prefix.IsValid():
		return e.Prefix.Contains(addr)
	case e.Name == "":
		return false
	case e.Below:
		return strings.HasSuffix(name, "."+e.Name)
	default:
		return name == e.Name
	}
}
