package sandbox

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"cofferdam.dev/cofferdam/spec"
)

func TestLoadConfig(t *testing.T) {
	tests := []struct {
		name, text string
		want       Config
		err        string // part of the error; empty: none
	}{
		{
			"all keys", "version: 1\nruntime: crun\nrequire_fixed_runtime: true\nlimits: {memory: 2GiB, pids: 99, cpus: 1.5}\n",
			Config{Runtime: "crun", FixedRuntimeFor: "config.yaml", Limits: spec.Limits{MemoryBytes: 2 << 30, Pids: 99, CPUs: 1.5}},
			"",
		},
		{"nothing but the version", "version: 1\n", Config{}, ""},
		{"no version", "runtime: crun\n", Config{}, "version: is 0, want 1"},
		{"an empty file", "", Config{}, "no documents"},
		{"an unknown key", "version: 1\nruntimes: crun\n", Config{}, "runtimes"},
		{"a key twice", "version: 1\nruntime: crun\nruntime: runc\n", Config{}, "runtime"},
		{"a relative path", "version: 1\nruntime: bin/runc\n", Config{}, "neither a name nor an absolute path"},
		{"memory that is no size", "version: 1\nlimits: {memory: lots}\n", Config{}, "limits.memory"},
		{"no memory at all", "version: 1\nlimits: {memory: 0}\n", Config{}, "limits.memory"},
		{"fewer than no pids", "version: 1\nlimits: {pids: -1}\n", Config{}, "limits"},
		{"a pool", "version: 1\nsynthetic_addresses: 29.64.0.0/16\n", Config{Pool: netip.MustParsePrefix("29.64.0.0/16")}, ""},
		{"a pool that is a list", "version: 1\nsynthetic_addresses: [29.64.0.0/16]\n", Config{}, ":2: synthetic_addresses: must be one block"},
		{"a pool that is an address", "version: 1\nsynthetic_addresses: 29.64.0.1\n", Config{}, ":2: synthetic_addresses: \"29.64.0.1\" is not a block"},
		{"a pool of IPv6", "version: 1\nsynthetic_addresses: 2a00::/14\n", Config{}, "is not a block of IPv4"},
		{"a pool with host bits", "version: 1\nsynthetic_addresses: 29.64.0.1/16\n", Config{}, "write 29.64.0.0/16"},
		{"a pool that is too small", "version: 1\nsynthetic_addresses: 29.64.0.0/21\n", Config{}, "a length of 8 to 20"},
		{"a pool that is everything", "version: 1\nsynthetic_addresses: 0.0.0.0/0\n", Config{}, "a length of 8 to 20"},
		{"a private pool", "version: 1\nsynthetic_addresses: 10.0.0.0/8\n", Config{}, "(private)"},
		{"the benchmarks' pool", "version: 1\nsynthetic_addresses: 198.18.0.0/15\n", Config{}, "benchmark"},
		{"a pool with a metadata address in it", "version: 1\nsynthetic_addresses: 168.0.0.0/8\n", Config{}, "metadata"},
		{"a pool of documentation", "version: 1\nsynthetic_addresses: 203.0.112.0/20\n", Config{}, "documentation"},
		{"a multicast pool", "version: 1\nsynthetic_addresses: 239.0.0.0/8\n", Config{}, "multicast"},
		{"cpus that are no number", "version: 1\nlimits: {cpus: .nan}\n", Config{}, "limits"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.yaml")
			if err := os.WriteFile(path, []byte(tt.text), 0o644); err != nil {
				t.Fatal(err)
			}
			got, err := LoadConfig(path)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || !strings.Contains(err.Error(), path) {
					t.Errorf("error %v, want the path and %q in it", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if tt.want.FixedRuntimeFor != "" {
				tt.want.FixedRuntimeFor = path
			}
			if diff := cmp.Diff(tt.want, got, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("a missing file is the zero configuration", func(t *testing.T) {
		if c, err := LoadConfig(filepath.Join(t.TempDir(), "none.yaml")); err != nil || !reflect.DeepEqual(c, Config{}) {
			t.Errorf("%+v, %v", c, err)
		}
	})
	t.Run("a named file narrows and must exist", func(t *testing.T) {
		dir := t.TempDir()
		ours, named := filepath.Join(dir, "config.yaml"), filepath.Join(dir, "named.yaml")
		for path, text := range map[string]string{
			ours:  "version: 1\nrequire_fixed_runtime: true\nlimits: {pids: 100, cpus: 1}\n",
			named: "version: 1\nruntime: crun\nlimits: {memory: 1GiB, pids: 500, cpus: 0.5}\n",
		} {
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := LoadConfigs(ours, named)
		if err != nil {
			t.Fatal(err)
		}
		want := Config{Runtime: "crun", FixedRuntimeFor: ours, Limits: spec.Limits{MemoryBytes: 1 << 30, Pids: 100, CPUs: 0.5}}
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
			t.Error(diff)
		}
		if err := os.WriteFile(named, []byte("version: 1\nsynthetic_addresses: 29.64.0.0/16\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadConfigs(ours, named); err == nil || !strings.Contains(err.Error(), named+":2: synthetic_addresses: only "+ours) {
			t.Errorf("a named file's pool: %v", err)
		}
		if _, err := LoadConfigs(ours, filepath.Join(dir, "none.yaml")); err == nil {
			t.Error("a named file that does not exist must be an error")
		}
	})
	t.Run("a file that others can write is refused", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(path, []byte("version: 1\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadConfig(path); err == nil || !strings.Contains(err.Error(), "chmod go-w") {
			t.Errorf("error %v", err)
		}
	})
}

func TestHomesArePeoplesHomes(t *testing.T) {
	dir := t.TempDir()
	real := filepath.Join(dir, "data", "ann")
	if err := os.MkdirAll(real, 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "ann")
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	passwd := filepath.Join(dir, "passwd")
	text := "root:x:0:0:root:/root:/bin/bash\nwww-data:x:33:33::/var/www:/usr/sbin/nologin\nann:x:1000:1000::" + link + ":/bin/sh\n" +
		"relative:x:1001:1001::home:/bin/sh\nshort:x:1002\n"
	if err := os.WriteFile(passwd, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := homes(passwd)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"/root", link}, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{link, "/none", real}, withTargets([]string{link, "/none"}, map[string]bool{"/": true})); diff != "" {
		t.Error(diff)
	}
}

func TestProxyUserIsNeverAPerson(t *testing.T) {
	seen := map[uint32]bool{}
	for _, id := range []string{"default:a", "default:b", "k8s.io:a", ""} {
		uid := Request{}.proxyUID(id)
		if uid < proxyUIDBase || uid >= proxyUIDBase+proxyUIDs {
			t.Errorf("proxyUID(%q) is %d", id, uid)
		}
		if seen[uid] {
			t.Errorf("proxyUID(%q) is another one's", id)
		}
		seen[uid] = true
		// An ordinary user's has one of its own, or none.
		for _, own := range []uint32{0, 165535} {
			if uid := (Request{Program: &Program{Rootless: true, ProxyID: own}}).proxyUID(id); uid != own {
				t.Errorf("of %d: %d", own, uid)
			}
		}
	}
}
