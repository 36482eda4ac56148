package policy

import (
	"net/netip"
	"testing"
)

// TestSpecial has, for every block of IANA's two registries and for the
// addresses of metadata services, its first and last address, and those right
// before and after it that are global: the control of each row.
func TestSpecial(t *testing.T) {
	const (
		metadata  = "a cloud metadata address"
		loopback  = "a loopback address"
		private   = "private"
		multicast = "a multicast address"
		document  = "a documentation address"
		benchmark = "a benchmark address"
		sixToFour = "a tunnel address (6to4)"
		teredo    = "a tunnel address (Teredo)"
		amt       = "a tunnel address (AMT)"
		as112     = "an AS112 address"
		orchid    = "an identifier, not an address (ORCHID, DET)"
		reserved  = "reserved"
		nat       = "in the carrier-grade NAT block"
	)
	for _, test := range []struct {
		name   string
		inside []string
		want   string
		global []string
	}{
		{"this network", []string{"0.0.0.0", "0.255.255.255"}, "unspecified", []string{"1.0.0.0"}},
		{"private 10", []string{"10.0.0.0", "10.255.255.255"}, private, []string{"9.255.255.255", "11.0.0.0"}},
		{"shared (CGNAT)", []string{"100.64.0.0", "100.127.255.255"}, nat, []string{"100.63.255.255", "100.128.0.0"}},
		{"loopback", []string{"127.0.0.0", "127.255.255.255"}, loopback, []string{"126.255.255.255", "128.0.0.0"}},
		{"link-local", []string{"169.254.0.0", "169.254.255.255"}, "link-local", []string{"169.253.255.255", "169.255.0.0"}},
		{"private 172", []string{"172.16.0.0", "172.31.255.255"}, private, []string{"172.15.255.255", "172.32.0.0"}},
		{"protocol assignments", []string{"192.0.0.0", "192.0.0.9", "192.0.0.170", "192.0.0.255"}, reserved, []string{"191.255.255.255", "192.0.1.0"}},
		{"TEST-NET-1", []string{"192.0.2.0", "192.0.2.255"}, document, []string{"192.0.1.255", "192.0.3.0"}},
		{"AS112", []string{"192.31.196.0", "192.31.196.255"}, as112, []string{"192.31.195.255", "192.31.197.0"}},
		{"AMT", []string{"192.52.193.0", "192.52.193.255"}, amt, []string{"192.52.192.255", "192.52.194.0"}},
		{"6to4 relays", []string{"192.88.99.0", "192.88.99.2", "192.88.99.255"}, sixToFour, []string{"192.88.98.255", "192.88.100.0"}},
		{"private 192", []string{"192.168.0.0", "192.168.255.255"}, private, []string{"192.167.255.255", "192.169.0.0"}},
		{"AS112 by delegation", []string{"192.175.48.0", "192.175.48.255"}, as112, []string{"192.175.47.255", "192.175.49.0"}},
		{"benchmark", []string{"198.18.0.0", "198.19.255.255"}, benchmark, []string{"198.17.255.255", "198.20.0.0"}},
		{"TEST-NET-2", []string{"198.51.100.0", "198.51.100.255"}, document, []string{"198.51.99.255", "198.51.101.0"}},
		{"TEST-NET-3", []string{"203.0.113.0", "203.0.113.255"}, document, []string{"203.0.112.255", "203.0.114.0"}},
		{"multicast", []string{"224.0.0.0", "239.255.255.255"}, multicast, []string{"223.255.255.255"}},
		{"class E", []string{"240.0.0.0", "255.255.255.254"}, reserved, nil},
		{"broadcast", []string{"255.255.255.255"}, "the broadcast address", nil},

		{"metadata: EC2 and many others", []string{"169.254.169.254", "169.254.170.2", "169.254.170.23", "fd00:ec2::254", "fd00:ec2::23"}, metadata, nil},
		{"metadata: Alibaba", []string{"100.100.100.200"}, metadata, nil},
		{"metadata: Azure", []string{"168.63.129.16"}, metadata, []string{"168.63.129.15", "168.63.129.17"}},
		{"metadata: Oracle, Google", []string{"192.0.0.192", "fd20:ce::254"}, metadata, nil},

		{"unspecified", []string{"::"}, "unspecified", nil},
		{"loopback, IPv6", []string{"::1"}, loopback, nil},
		{"IPv4-compatible", []string{"::2", "::1.1.1.1", "::127.0.0.1"}, reserved, nil},
		{"v4-mapped", []string{"::ffff:10.0.0.1"}, private, []string{"::ffff:9.255.255.255", "::ffff:11.0.0.0"}},
		{"v4-mapped metadata", []string{"::ffff:169.254.169.254"}, metadata, nil},
		{"v4-translated", []string{"::ffff:0:1.1.1.1"}, reserved, nil},
		{"NAT64", []string{"64:ff9b::10.0.0.1", "64:ff9b::10.255.255.255"}, private, []string{"64:ff9b::9.255.255.255", "64:ff9b::11.0.0.0"}},
		{"NAT64 metadata", []string{"64:ff9b::169.254.169.254"}, metadata, nil},
		{"NAT64 broadcast", []string{"64:ff9b::255.255.255.255"}, "the broadcast address", nil},
		{"outside of NAT64", []string{"64:ff9b::1:0:0", "64:ff9a:ffff:ffff:ffff:ffff:ffff:ffff"}, reserved, nil},
		{"ISATAP", []string{"2606:2800:220:1::5efe:10.0.0.1", "2606:2800:220:1:200:5efe:169.254.169.254"}, "a tunnel address (ISATAP)", []string{"2606:2800:220:1::5eff:a00:1", "2606:2800:220:1:100:5efe:a00:1"}},
		{"local NAT64", []string{"64:ff9b:1::1.1.1.1", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff"}, reserved, nil},
		{"discard", []string{"100::", "100::ffff:ffff:ffff:ffff"}, reserved, nil},
		{"dummy", []string{"100:0:0:1::", "100:0:0:1:ffff:ffff:ffff:ffff"}, reserved, nil},
		{"outside of global unicast", []string{"1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "4000::"}, reserved, []string{"2000::", "3ffe::"}},
		{"Teredo", []string{"2001::", "2001:0:ffff:ffff:ffff:ffff:ffff:ffff"}, teredo, []string{"2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}},
		{"anycast of protocols", []string{"2001:1::1", "2001:1::2", "2001:1::3"}, reserved, nil},
		{"benchmark, IPv6", []string{"2001:2::", "2001:2:0:ffff:ffff:ffff:ffff:ffff"}, benchmark, nil},
		{"AMT, IPv6", []string{"2001:3::", "2001:3:ffff:ffff:ffff:ffff:ffff:ffff"}, amt, nil},
		{"AS112, IPv6", []string{"2001:4:112::", "2001:4:112:ffff:ffff:ffff:ffff:ffff"}, as112, nil},
		{"ORCHID", []string{"2001:10::", "2001:1f:ffff:ffff:ffff:ffff:ffff:ffff"}, orchid, nil},
		{"ORCHIDv2", []string{"2001:20::", "2001:2f:ffff:ffff:ffff:ffff:ffff:ffff"}, orchid, nil},
		{"DET", []string{"2001:30::", "2001:3f:ffff:ffff:ffff:ffff:ffff:ffff"}, orchid, nil},
		{"protocol assignments, IPv6", []string{"2001:5::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff"}, reserved, []string{"2001:200::"}},
		{
			"documentation, IPv6",
			[]string{"2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"},
			document,
			[]string{"2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db9::"},
		},
		{
			"6to4",
			[]string{"2002::", "2002:0101:0101::1", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
			sixToFour,
			[]string{"2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2003::"},
		},
		{
			"AS112 by delegation, IPv6",
			[]string{"2620:4f:8000::", "2620:4f:8000:ffff:ffff:ffff:ffff:ffff"},
			as112,
			[]string{"2620:4f:7fff:ffff:ffff:ffff:ffff:ffff", "2620:4f:8001::"},
		},
		{"more documentation", []string{"3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff"}, document, []string{"3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "3fff:1000::"}},
		{"segment routing", []string{"5f00::", "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}, reserved, nil},
		{"unique local", []string{"fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}, private, nil},
		{"link-local, IPv6", []string{"fe80::", "fe80::a9fe:a9fe", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}, "link-local", nil},
		{"site-local", []string{"fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}, private, nil},
		{"multicast, IPv6", []string{"ff00::", "ff02::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}, multicast, nil},
		{"global", nil, "", []string{"93.184.216.34", "28.0.0.1", "2606:2800:220:1::1", "::ffff:93.184.216.34", "64:ff9b::93.184.216.34"}},
		{"a zone", []string{"fe80::1%eth0", "2606:4700::1%eth0"}, "an address with a zone", []string{"2606:4700::1"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, a := range test.inside {
				if got := special(netip.MustParseAddr(a)); got != test.want {
					t.Errorf("%s: got %q, want %q", a, got, test.want)
				}
			}
			for _, a := range test.global {
				if got := special(netip.MustParseAddr(a)); got != "" {
					t.Errorf("%s: got %q, want it to be global", a, got)
				}
			}
		})
	}
	if special(netip.Addr{}) == "" {
		t.Error("no address is global")
	}
}

// TestSpecialBlock: a block that only touches what is special is special, and so is whatever is no IPv4 block.
func TestSpecialBlock(t *testing.T) {
	for block, want := range map[string]string{
		"28.0.0.0/14": "", "9.0.0.0/8": "", "11.0.0.0/8": "",
		"8.0.0.0/6": "private", "10.200.0.0/30": "private", "100.64.0.0/20": "in the carrier-grade NAT block",
		"126.0.0.0/7": "a loopback address", "240.0.0.0/8": "reserved",
		"2600::/12": "no block of IPv4 addresses", "::ffff:28.0.0.0/110": "no block of IPv4 addresses", "": "no block of IPv4 addresses",
	} {
		b, _ := netip.ParsePrefix(block) // the zero Prefix of ""
		if got := SpecialBlock(b); got != want {
			t.Errorf("%q is %q, want %q", block, got, want)
		}
	}
}
