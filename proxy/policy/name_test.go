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
