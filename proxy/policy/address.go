package policy

import "net/netip"

// class names a set of addresses that a resolved name must not lead to.
type class struct {
	name     string
	prefixes []netip.Prefix
}

func prefixes(texts ...string) []netip.Prefix {
	list := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		list[i] = netip.MustParsePrefix(text)
	}
	return list
}

// classes in the order of the check, the narrow ones first. Sources: the IANA
// IPv4 and IPv6 special-purpose address registries (RFC 6890), and the vendors'
// documents for metadata services. What the registries call globally reachable
// is here too where no server can be that is meant by a name: anycast of
// protocols, sinks of AS112 (RFC 7534, 7535), relays of tunnels.
func classes() []class {
	return []class{
		{"a cloud metadata address", prefixes(
			"169.254.169.254/32", "169.254.170.2/32", "169.254.170.23/32", // EC2 and many others; ECS; EKS
			"100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32", // Alibaba, Azure, Oracle
			"fd00:ec2::254/128", "fd00:ec2::23/128", "fd20:ce::254/128")}, // EC2, EKS, Google
		{"unspecified", prefixes("0.0.0.0/8", "::/128")}, // Linux connects 0.0.0.0 to itself
		{"a loopback address", prefixes("127.0.0.0/8", "::1/128")},
		{"link-local", prefixes("169.254.0.0/16", "fe80::/10")},
		{"private", prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10")},
		{"in the carrier-grade NAT block", prefixes("100.64.0.0/10")},
		{"the broadcast address", prefixes("255.255.255.255/32")},
		{"a multicast address", prefixes("224.0.0.0/4", "ff00::/8")},
		{"a documentation address", prefixes("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20")},
		{"a benchmark address", prefixes("198.18.0.0/15", "2001:2::/48")},
		{"a tunnel address (6to4)", prefixes("2002::/16", "192.88.99.0/24")},
		{"a tunnel address (Teredo)", prefixes("2001::/32")},
		{"a tunnel address (AMT)", prefixes("192.52.193.0/24", "2001:3::/32")},
		{"an AS112 address", prefixes("192.31.196.0/24", "192.175.48.0/24", "2001:4:112::/48", "2620:4f:8000::/48")},
		{"an identifier, not an address (ORCHID, DET)", prefixes("2001:10::/28", "2001:20::/28", "2001:30::/28")},
		{"reserved", prefixes("192.0.0.0/24", "240.0.0.0/4", "2001::/23")},
	}
}

var (
	specialPurpose = classes()
	globalIPv6     = netip.MustParsePrefix("2000::/3")
	nat64          = netip.MustParsePrefix("64:ff9b::/96")
)

// special says what kind of address a is if a name must not lead there, and is
// empty for global unicast. IPv4 inside IPv6 is judged as what it contains: a
// v4-mapped address always, NAT64's well-known prefix (RFC 6052) because that
// is how an IPv6-only host reaches IPv4. Tunnels and NAT64's local-use prefix
// (RFC 8215), where the place of the IPv4 address is not known, are refused
// whatever they contain, and so is what is made for ISATAP in anybody's prefix. A NAT64 prefix out of a network's own global block looks
// like any other address of that network.
func special(a netip.Addr) string {
	if !a.IsValid() {
		return "no address"
	}
	if a.Zone() != "" {
		return "an address with a zone" // and no Prefix contains it
	}
	a = a.Unmap()
	if nat64.Contains(a) {
		b := a.As16()
		a = netip.AddrFrom4([4]byte(b[12:]))
	}
	for _, c := range specialPurpose {
		for _, p := range c.prefixes {
			if p.Contains(a) {
				return c.name
			}
		}
	}
	if isISATAP(a) {
		return "a tunnel address (ISATAP)"
	}
	if a.Is6() && !globalIPv6.Contains(a) {
		return "reserved" // also ::/96, ::ffff:0:0:0/96, 64:ff9b:1::/48, 100::/64, 5f00::/16
	}
	return ""
}

// isISATAP reports whether the interface identifier holds an IPv4 address to which a
// router of that network tunnels (RFC 5214, 6.1), whatever the prefix is.
func isISATAP(a netip.Addr) bool {
	if !a.Is6() {
		return false
	}
	b := a.As16()
	return b[8]&^2 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe
}

// SpecialBlock says what kind of special-purpose addresses an IPv4 block shares,
// and is empty if all of it is global unicast.
func SpecialBlock(b netip.Prefix) string {
	if !b.Addr().Is4() {
		return "no block of IPv4 addresses"
	}
	for _, c := range specialPurpose {
		for _, p := range c.prefixes {
			if p.Overlaps(b) {
				return c.name
			}
		}
	}
	return ""
}

// CheckAddr says what is wrong with an address in a configuration: it cannot be
// that of one server, or can be written in a way that compares differently. Empty
// is nothing.
func CheckAddr(a netip.Addr) string {
	switch {
	case a.Zone() != "":
		return "has a zone"
	case a.Is4In6():
		return "is an IPv4 address in IPv6 form: write " + a.Unmap().String()
	case a.IsUnspecified(), a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "is not the address of one host"
	}
	return ""
}
