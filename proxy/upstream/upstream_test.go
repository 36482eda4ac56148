package upstream

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func TestCarries(t *testing.T) {
	addr := netip.MustParseAddr
	for _, test := range []struct {
		e     Exception
		name  string
		addr  netip.Addr
		takes bool
	}{
		{Exception{}, "good.test", netip.Addr{}, false},
		{Exception{}, "", addr("10.0.0.1"), false},
		{Exception{Below: true}, "good.test", netip.Addr{}, false},
		{Exception{Name: "corp.test"}, "corp.test", netip.Addr{}, true},
		{Exception{Name: "corp.test"}, "corp.test", addr("10.0.0.1"), true},
		{Exception{Name: "corp.test"}, "git.corp.test", netip.Addr{}, false},
		{Exception{Name: "corp.test", Below: true}, "git.corp.test", netip.Addr{}, true},
		{Exception{Name: "corp.test", Below: true}, "a.git.corp.test", netip.Addr{}, true},
		{Exception{Name: "corp.test", Below: true}, "corp.test", netip.Addr{}, false},
		{Exception{Name: "corp.test", Below: true}, "evilcorp.test", netip.Addr{}, false},
		{Exception{Prefix: netip.MustParsePrefix("10.0.0.0/8")}, "", addr("10.0.0.1"), true},
		{Exception{Prefix: netip.MustParsePrefix("10.0.0.0/8")}, "pinned.test", addr("10.0.0.1"), true},
		{Exception{Prefix: netip.MustParsePrefix("10.0.0.0/8")}, "", addr("11.0.0.1"), false},
		{Exception{Prefix: netip.MustParsePrefix("10.0.0.0/8")}, "good.test", netip.Addr{}, false},
	} {
		p := &Proxy{NoProxy: []Exception{{Name: "other.test"}, test.e}}
		if p.Carries(test.name, test.addr) == test.takes {
			t.Errorf("%+v: name %q, address %v: want it taken out: %v", test.e, test.name, test.addr, test.takes)
		}
	}
	if (*Proxy)(nil).Carries("good.test", netip.Addr{}) || !(&Proxy{}).Carries("good.test", netip.Addr{}) {
		t.Error("no proxy carries, or one without exceptions does not")
	}
}

// TestJSON: what the process is told is what the administrator wrote, and only
// JSON tells the credentials.
func TestJSON(t *testing.T) {
	p := Proxy{
		Host: "proxy.corp.test", Port: 3128, Credentials: "ann:hunter2",
		NoProxy: []Exception{{Name: "localhost"}, {Name: "corp.test", Below: true}, {Prefix: netip.MustParsePrefix("10.0.0.0/8")}},
	}
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var again Proxy
	if err := json.Unmarshal(data, &again); err != nil || !reflect.DeepEqual(p, again) {
		t.Errorf("%s: %+v, %v", data, again, err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X"} {
		for _, v := range []any{p, &p, p.Credentials} {
			if text := fmt.Sprintf(verb, v); strings.Contains(text, "hunter2") || strings.Contains(strings.ToLower(text), "68756e74657232") {
				t.Errorf("%s prints %s", verb, text)
			}
		}
	}
}
