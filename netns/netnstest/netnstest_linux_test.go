package netnstest

import (
	"net"
	"os"
	"strings"
	"testing"
)

func TestRunIsRootOfAFreshNamespace(t *testing.T) {
	Run(t, func(t *testing.T) {
		if got := os.Geteuid(); got != 0 {
			t.Errorf("uid = %d, want 0", got)
		}
		links, err := net.Interfaces()
		if err != nil {
			t.Fatal(err)
		}
		if len(links) != 1 || links[0].Name != "lo" || links[0].Flags&net.FlagUp != 0 {
			t.Errorf("links = %v, want lo, down", links)
		}
	})
}

func TestRunInASubtest(t *testing.T) {
	t.Run("with (odd) name", func(t *testing.T) {
		Run(t, func(t *testing.T) {
			if !strings.HasSuffix(t.Name(), "/with_(odd)_name") {
				t.Errorf("name = %q", t.Name())
			}
		})
	})
}

// A test that fails inside fails outside, and one that skips, skips: shown by
// running both as processes.
func TestRunBringsBack(t *testing.T) {
	Require(t, "netns")
	for _, row := range []struct{ name, want string }{
		{"TestFailsInside", "--- FAIL: TestFailsInside ("},
		{"TestSkipsInside", "--- SKIP: TestSkipsInside ("},
	} {
		t.Run(row.name, func(t *testing.T) {
			out, _ := run(os.Args[0], []string{"-test.run=^" + row.name + "$", "-test.v"}, "NETNSTEST_SAMPLES=1")
			if !strings.Contains(string(out), "in namespaces:") || !strings.Contains(string(out), row.want) {
				t.Errorf("output lacks %q:\n%s", row.want, out)
			}
		})
	}
}

func TestFailsInside(t *testing.T) {
	sample(t)
	Run(t, func(t *testing.T) { t.Error("as it should") })
}

func TestSkipsInside(t *testing.T) {
	sample(t)
	Run(t, func(t *testing.T) { t.Skip("as it should") })
}

func sample(t *testing.T) {
	if os.Getenv("NETNSTEST_SAMPLES") == "" {
		t.Skip("a sample for TestRunBringsBack")
	}
}

func TestRequired(t *testing.T) {
	for _, row := range []struct {
		list, what string
		want       bool
	}{
		{"", "nft", false},
		{"nft", "nft", true},
		{"netns,nft", "nft", true},
		{"netns,nftables", "nft", false},
		{"all", "nft", true},
	} {
		if got := required(row.list, row.what); got != row.want {
			t.Errorf("required(%q, %q) = %v, want %v", row.list, row.what, got, row.want)
		}
	}
}
