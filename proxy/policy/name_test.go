package policy

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestParseName(t *testing.T) {
	long := strings.Repeat("a", 63)
	for _, test := range []struct {
		in, want string
		err      error
	}{
		{"example.org", "example.org", nil},
		{"EXAMPLE.Org.", "example.org", nil},
		{"_dmarc.example.org", "_dmarc.example.org", nil},
		{"r3---sn-4g5e.example.org", "r3---sn-4g5e.example.org", nil},
		{"1.1.1.1.nip.io", "1.1.1.1.nip.io", nil},
		{"db", "db", nil},
		{"bücher.example", "xn--bcher-kva.example", nil},
		{"BÜCHER.example", "xn--bcher-kva.example", nil},
		{"xn--bcher-kva.example", "xn--bcher-kva.example", nil},
		{"gіthub.com", "xn--gthub-n2e.com", nil}, // Cyrillic: another name
		{"", "", errNameEmpty},
		{".", "", errNameEmpty},
		{"example.org..", "", errLabelEmpty},
		{"..", "", errLabelEmpty},
		{".example.org", "", errLabelEmpty},
		{"a..b", "", errLabelEmpty},
		{"a.-b.c", "", errLabelHyphen},
		{"a.b-.c", "", errLabelHyphen},
		{long + "a.example", "", errLabelLong},
		{strings.Repeat(long+".", 4) + "example", "", errNameLong},
		{"good.test\x00.evil.test", "", errNameBytes},
		{"good.test%00", "", errNameBytes},
		{"good.test evil.test", "", errNameBytes},
		{"user@good.test", "", errNameBytes},
		{"good.test:443", "", errNameBytes},
		{"good.test/", "", errNameBytes},
		{`good.test\.evil`, "", errNameBytes},
		{"*.example.org", "", errNameBytes},
		{"good。test", "", errNameBytes},
		{"good．test", "", errNameBytes},
		{"good｡test", "", errNameBytes},
		{"xn--a.example", "", errNamePuny},
		{"xn--bcher-kvb-.example", "", errLabelHyphen},
		{"\u202egro.elpmaxe", "", errNamePuny},
		{"127.0.0.1", "", errNameIP},
		{"::1", "", errNameIP},
		{"[::1]", "", errNameIP},
		{"fe80::1%lo", "", errNameIP},
		{"127.1", "", errNameNumber},
		{"2130706433", "", errNameNumber},
		{"0177.0.0.1", "", errNameNumber},
		{"0x7f.1", "", errNameNumber},
		{"example.0x7F", "", errNameNumber},
		{"127.0.0.1.", "", errNameIP},
	} {
		got, err := ParseName(test.in)
		if got.String() != test.want || !errors.Is(err, test.err) {
			t.Errorf("ParseName(%q) = %q, %v; want %q, %v", test.in, got, err, test.want, test.err)
		}
	}
	if n, err := ParseWireName("bücher.example"); err == nil {
		t.Errorf("ParseWireName accepts Unicode as %q", n)
	}
}

func TestSpecial(t *testing.T) {
	for _, test := range []struct{ addr, want string }{
		{"93.184.216.34", ""},
		{"2606:2800:220:1::1", ""},
		{"28.0.0.1", ""},
		{"0.0.0.0", "unspecified"},
		{"0.1.2.3", "unspecified"},
		{"127.0.0.1", "a loopback address"},
		{"127.255.255.254", "a loopback address"},
		{"::1", "a loopback address"},
		{"::", "unspecified"},
		{"169.254.169.254", "a cloud metadata address"},
		{"100.100.100.200", "a cloud metadata address"},
		{"168.63.129.16", "a cloud metadata address"},
		{"fd00:ec2::254", "a cloud metadata address"},
		{"169.254.1.1", "link-local"},
		{"fe80::1", "link-local"},
		{"fe80::1%lo", "an address with a zone"},
		{"2606:2800::1%eth0", "an address with a zone"},
		{"10.1.2.3", "private"},
		{"172.16.0.1", "private"},
		{"172.31.255.255", "private"},
		{"172.32.0.1", ""},
		{"192.168.0.1", "private"},
		{"fc00::1", "private"},
		{"fdff::1", "private"},
		{"fec0::1", "private"},
		{"100.64.0.1", "in the carrier-grade NAT block"},
		{"100.127.255.255", "in the carrier-grade NAT block"},
		{"100.128.0.1", ""},
		{"224.0.0.251", "a multicast address"},
		{"ff02::1", "a multicast address"},
		{"192.0.2.1", "a documentation address"},
		{"2001:db8::1", "a documentation address"},
		{"198.19.0.1", "a benchmark address"},
		{"192.0.0.8", "reserved"},
		{"240.0.0.1", "reserved"},
		{"255.255.255.255", "reserved"},
		{"::ffff:127.0.0.1", "a loopback address"},
		{"::ffff:93.184.216.34", ""},
		{"::7f00:1", "reserved"},
		{"64:ff9b::7f00:1", "a loopback address"},
		{"64:ff9b::a9fe:a9fe", "a cloud metadata address"},
		{"64:ff9b::a00:1", "private"},
		{"64:ff9b::5db8:d822", ""},
		{"64:ff9b:1::7f00:1", "reserved"},
		{"2002:7f00:1::", "a tunnel address (6to4)"},
		{"2002:5db8:d822::", "a tunnel address (6to4)"},
		{"2001::7f00:1", "a tunnel address (Teredo)"},
		{"100::1", "reserved"},
		{"5f00::1", "reserved"},
		{"4000::1", "reserved"},
	} {
		if got := special(netip.MustParseAddr(test.addr)); got != test.want {
			t.Errorf("special(%s) = %q, want %q", test.addr, got, test.want)
		}
	}
	if special(netip.Addr{}) == "" {
		t.Error("the zero Addr counts as global")
	}
}

func FuzzParseName(f *testing.F) {
	for _, s := range []string{"example.org", "EXAMPLE.org.", "bücher.example", "xn--bcher-kva.example", "127.1", "[::1]", "a\x00b", "ß.example"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseName(s)
		if err != nil {
			if !n.IsZero() {
				t.Fatalf("ParseName(%q) = %q and %v", s, n, err)
			}
			return
		}
		text := n.String()
		again, err := ParseWireName(text)
		if err != nil || again != n {
			t.Fatalf("ParseName(%q) = %q, which parses as %q, %v", s, text, again, err)
		}
		if strings.Trim(text, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" || len(text) > 253 || text == "" {
			t.Fatalf("ParseName(%q) = %q", s, text)
		}
		if _, err := netip.ParseAddr(text); err == nil {
			t.Fatalf("ParseName(%q) = %q, an address", s, text)
		}
	})
}
