package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cofferdam.dev/cofferdam/proxy/policy"
)

func TestNamesSurviveARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "names")
	name := func(s string) policy.Name {
		n, err := policy.ParseName(s)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	open := func() *names {
		n, err := openNames(openFile(t, path, os.O_RDWR|os.O_APPEND), testPool)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	address := func(n *names, s string) netip.Addr {
		a, err := n.address(name(s))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	n := open()
	a, b := address(n, "a.test"), address(n, "b.test")
	if a == b || address(n, "a.test") != a || n.name(b) != name("b.test") {
		t.Fatalf("a is %s, b is %s", a, b)
	}

	// A writer that was killed leaves half a line: it is as if it had not begun.
	f := openFile(t, path, os.O_WRONLY|os.O_APPEND)
	f.WriteString("127.64.0.3 c.te")
	n = open()
	if address(n, "a.test") != a || n.name(b) != name("b.test") || n.name(netip.MustParseAddr("127.64.0.3")) != (policy.Name{}) {
		t.Error("the mappings are others after a restart")
	}
	c := address(n, "c.test")
	if n = open(); n.name(c) != name("c.test") || len(n.byName) != 3 {
		t.Errorf("after the torn line: %v", n.byName)
	}

	// So does one that was killed while it ended such a line.
	f.WriteString("127.64.0.9 d.test" + torn)
	for range 2 {
		if n = open(); n.name(c) != name("c.test") || len(n.byName) != 3 {
			t.Errorf("after the mark of a torn line: %v", n.byName)
		}
	}
}

func TestNamesFileErrors(t *testing.T) {
	for _, text := range []string{
		"127.64.0.1\n", "127.64.0.1 \n", "x a.test\n", "10.0.0.1 a.test\n", "127.64.0.1 A.test\n", "127.64.0.1 a.test \n",
		"127.64.0.1 a.test\n127.64.0.1 b.test\n", "127.64.0.1 a.test\n127.64.0.2 a.test\n", "\n",
	} {
		f := openFile(t, filepath.Join(t.TempDir(), "names"), os.O_RDWR|os.O_APPEND)
		f.WriteString(text)
		if n, err := openNames(f, testPool); err == nil {
			t.Errorf("%q gives %v", text, n.byName)
		}
	}
	for _, pool := range []string{"fd00::/64", "10.0.0.0/25"} {
		if _, err := openNames(nil, netip.MustParsePrefix(pool)); err == nil {
			t.Errorf("pool %s is accepted", pool)
		}
	}
}

func TestNamesRunOut(t *testing.T) {
	n, err := openNames(openFile(t, filepath.Join(t.TempDir(), "names"), os.O_RDWR|os.O_APPEND), netip.MustParsePrefix("255.255.255.0/24"))
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[netip.Addr]bool)
	for i := range 300 {
		name, _ := policy.ParseName(fmt.Sprintf("x%d.test", i))
		a, err := n.address(name)
		if i >= 254 {
			if !errors.Is(err, errNamesFull) {
				t.Fatalf("name %d: %s, %v", i, a, err)
			}
			continue
		}
		if err != nil || seen[a] || strings.HasSuffix(a.String(), ".0") || strings.HasSuffix(a.String(), ".255") {
			t.Fatalf("name %d: %s, %v", i, a, err)
		}
		seen[a] = true
	}
	first, _ := policy.ParseName("x0.test")
	if a, err := n.address(first); err != nil || a.String() != "255.255.255.1" {
		t.Errorf("an old name has %s, %v", a, err)
	}
}

// TestNamesWriteError: an address that is not on disk is not given out, and
// nothing is written after half a line.
func TestNamesWriteError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "names")
	n, err := openNames(openFile(t, path, os.O_RDWR|os.O_APPEND), testPool)
	if err != nil {
		t.Fatal(err)
	}
	n.file.Close()
	name, _ := policy.ParseName("a.test")
	for range 2 {
		if a, err := n.address(name); err == nil {
			t.Errorf("got %s", a)
		}
	}
}
