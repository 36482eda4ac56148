package sandbox

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/go-units"
	"go.yaml.in/yaml/v4"
	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/proxy/policy"
	"cofferdam.dev/cofferdam/proxy/process"
	"cofferdam.dev/cofferdam/spec"
)

// Config is the administrator's configuration of this host, /etc/cofferdam/config.yaml. A missing file is the zero Config.
type Config struct {
	// Runtime is the OCI runtime: a name looked up in PATH, or an absolute path. Empty means runc.
	Runtime string
	// FixedRuntimeFor is the file that wants every container refused while the OCI runtime is older than the fixes that Cofferdam knows
	// of (require_fixed_runtime); empty: none does.
	FixedRuntimeFor string
	// Limits is the most that any sandbox gets; zero fields mean spec.DefaultLimits.
	Limits spec.Limits
	// Upstream is the way out of every sandbox.
	Upstream Upstream
	// Pool holds the synthetic addresses that names get in a sandbox; the zero Prefix is process.DefaultPool.
	Pool netip.Prefix
}

// configFile is the text form of Config.
type configFile struct {
	Version             int    `yaml:"version"`
	Runtime             string `yaml:"runtime"`
	RequireFixedRuntime bool   `yaml:"require_fixed_runtime"`
	Limits              struct {
		Memory string  `yaml:"memory"`
		Pids   int64   `yaml:"pids"`
		CPUs   float64 `yaml:"cpus"`
	} `yaml:"limits"`
	Upstream yaml.Node `yaml:"upstream"` // see upstreamSection
	Pool     yaml.Node `yaml:"synthetic_addresses"`
}

// LoadConfig reads a configuration file strictly: an unknown or repeated key is an error. A file that anybody but root (or the
// caller) can write is refused, since whoever writes it chooses a program that root runs.
func LoadConfig(path string) (Config, error) {
	c, f, err := loadConfig(path)
	if err == nil && f.Upstream.Kind != 0 {
		c.Upstream, err = upstreamSection{path}.read(&f.Upstream)
	}
	if err == nil && f.Pool.Kind != 0 {
		c.Pool, err = readPool(path, &f.Pool)
	}
	if err != nil {
		return Config{}, err
	}
	return c, nil
}

// loadConfig reads all but the nodes of the file, whose Kind is 0 where there is none.
func loadConfig(path string) (c Config, f configFile, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Config{}, f, nil
	}
	if err != nil {
		return Config{}, f, err
	}
	if err := trusted(path); err != nil {
		return Config{}, f, err
	}
	if err := yaml.Load(b, &f, yaml.WithKnownFields(), yaml.WithUniqueKeys()); err != nil {
		return Config{}, f, fmt.Errorf("%s: %w", path, err)
	}
	if f.Version != 1 {
		return Config{}, f, fmt.Errorf("%s: version: is %d, want 1", path, f.Version)
	}
	c = Config{Runtime: f.Runtime}
	if f.RequireFixedRuntime {
		c.FixedRuntimeFor = path
	}
	if strings.ContainsRune(f.Runtime, '/') && !filepath.IsAbs(f.Runtime) {
		return Config{}, f, fmt.Errorf("%s: runtime: %q is neither a name nor an absolute path", path, f.Runtime)
	}
	if f.Limits.Memory != "" {
		if c.Limits.MemoryBytes, err = units.RAMInBytes(f.Limits.Memory); err != nil {
			return Config{}, f, fmt.Errorf("%s: limits.memory: %w", path, err)
		}
		if c.Limits.MemoryBytes <= 0 {
			return Config{}, f, fmt.Errorf("%s: limits.memory: %q is not above zero", path, f.Limits.Memory)
		}
	}
	if f.Limits.Pids < 0 || f.Limits.CPUs < 0 || math.IsNaN(f.Limits.CPUs) || math.IsInf(f.Limits.CPUs, 0) {
		return Config{}, f, fmt.Errorf("%s: limits: pids and cpus are numbers above zero", path)
	}
	c.Limits.Pids, c.Limits.CPUs = f.Limits.Pids, f.Limits.CPUs
	return c, f, nil
}

// LoadConfigs reads the administrator's configuration and, unless named is empty, the file that an engine names for one container. That one
// must exist, and it can only narrow: the lower limits count, a fixed runtime is required if either says so, and the way out of the host
// is not its business.
func LoadConfigs(path, named string) (Config, error) {
	c, err := LoadConfig(path)
	if err != nil || named == "" {
		return c, err
	}
	if _, err := os.Stat(named); err != nil {
		return Config{}, err
	}
	if filepath.Clean(named) == filepath.Clean(path) {
		return c, nil
	}
	n, f, err := loadConfig(named)
	if err != nil {
		return Config{}, err
	}
	for _, only := range []struct {
		key  string
		node yaml.Node
	}{{"upstream", f.Upstream}, {"synthetic_addresses", f.Pool}} {
		if only.node.Kind != 0 {
			return Config{}, fmt.Errorf("%s:%d: %s: only %s may say it", named, only.node.Line, only.key, path)
		}
	}
	if n.Runtime != "" {
		c.Runtime = n.Runtime
	}
	c.FixedRuntimeFor = cmp.Or(c.FixedRuntimeFor, n.FixedRuntimeFor)
	ceiling, narrow := c.Limits.OrDefault(), n.Limits.OrDefault()
	c.Limits = spec.Limits{
		MemoryBytes: min(ceiling.MemoryBytes, narrow.MemoryBytes),
		Pids:        min(ceiling.Pids, narrow.Pids),
		CPUs:        min(ceiling.CPUs, narrow.CPUs),
	}
	return c, nil
}

// The sizes of a pool, in bits of its prefix. The proxy gives out 65536 names at most; a sandbox with fewer addresses runs out of them sooner.
const (
	poolShortest = 8
	poolLongest  = 20
)

// readPool reads a block of addresses that are to stand for names. Programs must take them for the addresses of servers on the internet: the
// guards of many refuse special-purpose ones.
func readPool(path string, n *yaml.Node) (netip.Prefix, error) {
	fail := func(format string, args ...any) (netip.Prefix, error) {
		return netip.Prefix{}, fmt.Errorf("%s:%d: synthetic_addresses: %w", path, n.Line, fmt.Errorf(format, args...))
	}
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		return fail("must be one block of IPv4 addresses, as in %s", process.DefaultPool)
	}
	p, err := netip.ParsePrefix(n.Value)
	switch {
	case err != nil || !p.Addr().Is4():
		return fail("%q is not a block of IPv4 addresses, as in %s", n.Value, process.DefaultPool)
	case p != p.Masked():
		return fail("%s has bits beyond its length: write %s", p, p.Masked())
	case p.Bits() < poolShortest || p.Bits() > poolLongest:
		return fail("%s: a length of %d to %d is wanted", p, poolShortest, poolLongest)
	}
	if what := policy.SpecialBlock(p); what != "" {
		return fail("%s holds addresses that programs do not take for a server's (%s)", p, what)
	}
	return p, nil
}

// trusted refuses a file that somebody other than root and the caller could have written.
func trusted(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&0o022 != 0 {
		return fmt.Errorf("%s: writable by group or others (mode %#o): chmod go-w %[1]s", path, st.Mode&0o777)
	}
	if st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s: owned by uid %d: chown root %[1]s", path, st.Uid)
	}
	return nil
}
