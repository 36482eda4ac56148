package spec_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"cofferdam.dev/cofferdam/spec"
)

func base(t testing.TB) *specs.Spec {
	b, err := os.ReadFile("testdata/base.json")
	if err != nil {
		t.Fatal(err)
	}
	s, err := spec.Decode(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// escapes lists what a rewritten spec must never hold. It is written against the runtime-spec rather than against the
// rules: the second opinion.
func escapes(s *specs.Spec, sb spec.Sandbox, h spec.Host) []string {
	var bad []string
	add := func(format string, args ...any) { bad = append(bad, fmt.Sprintf(format, args...)) }
	placeOf := map[string]string{"proc": "/proc", "sysfs": "/sys", "cgroup": "/sys/fs/cgroup", "cgroup2": "/sys/fs/cgroup", "devpts": "/dev/pts", "mqueue": "/dev/mqueue"}
	harmless := []string{"dev", "suid", "exec", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable", "tmpcopyup", "remount", "rrw", "rdev", "rsuid", "rexec", "mand"}

	for i, m := range s.Mounts {
		grant := slices.IndexFunc(sb.Files, func(f spec.FileRule) bool { return f.Path == m.Destination })
		bind := m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
		ro := slices.Contains(m.Options, "ro") && !slices.Contains(m.Options, "rw")
		for _, o := range m.Options {
			if slices.Contains(harmless, o) || strings.Contains(o, ",") {
				add("mount %s has option %s", m.Destination, o)
			}
		}
		for _, o := range []string{"nosuid", "nodev"} {
			if !slices.Contains(m.Options, o) && !(o == "nodev" && (m.Destination == "/dev" || m.Type == "devpts")) {
				add("mount %s lacks %s", m.Destination, o)
			}
		}
		switch {
		case bind && grant >= 0:
			f := sb.Files[grant]
			if m.Source != f.Source || f.Access < spec.Read || f.Access == spec.Read && !ro {
				add("bind %s of %s is not granted so", m.Destination, m.Source)
			}
		case bind && m.Destination == "/etc/resolv.conf":
			if m.Source != h.ResolvConf || !ro {
				add("resolv.conf is %s", m.Source)
			}
		case bind:
			ok := (m.Destination == "/etc/hosts" || m.Destination == "/etc/hostname") && ro &&
				slices.ContainsFunc(h.EngineDirs, func(d string) bool { return strings.HasPrefix(m.Source, d+"/") && !strings.Contains(m.Source, "..") })
			if !ok {
				add("bind %s of %s", m.Destination, m.Source)
			}
		case m.Type == "tmpfs":
			if m.Destination == "/" || strings.HasPrefix(m.Destination+"/", "/proc/") || strings.HasPrefix(m.Destination+"/", "/sys/") {
				add("tmpfs at %s", m.Destination)
			}
		case placeOf[m.Type] != m.Destination:
			add("%s at %q", m.Type, m.Destination)
		case !ro && (m.Type == "sysfs" || strings.HasPrefix(m.Type, "cgroup")):
			add("%s is writable", m.Type)
		}
		for _, f := range sb.Files {
			if strings.HasPrefix(m.Destination, f.Path+"/") {
				add("mount %s below workspace %s", m.Destination, f.Path)
			}
		}
		for _, later := range s.Mounts[i+1:] {
			if later.Destination == m.Destination || strings.HasPrefix(m.Destination, later.Destination+"/") {
				add("mount %s hidden by %s", m.Destination, later.Destination)
			}
		}
	}
	for _, dest := range []string{"/proc", "/dev", "/dev/pts", "/dev/shm", "/sys", "/etc/resolv.conf"} {
		if !slices.ContainsFunc(s.Mounts, func(m specs.Mount) bool { return m.Destination == dest }) {
			add("no mount at %s", dest)
		}
	}
	for _, want := range []specs.LinuxNamespaceType{"pid", "ipc", "uts", "mount", "network", "cgroup"} {
		if !slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == want }) {
			add("host %s namespace", want)
		}
	}
	for _, n := range s.Linux.Namespaces {
		if n.Path != "" {
			add("joins %s namespace %s", n.Type, n.Path)
		}
	}
	bad = append(bad, processEscapes(s.Process)...)
	for _, d := range s.Linux.Devices {
		if !slices.Contains([]string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"}, d.Path) || d.Type == "b" {
			add("device %s", d.Path)
		}
	}
	r := s.Linux.Resources
	if r == nil || r.Memory == nil || r.CPU == nil || r.Pids == nil || len(r.Devices) == 0 || r.Devices[0].Allow {
		add("resources without limits")
		return bad
	}
	for _, d := range r.Devices[1:] {
		if d.Type != "c" || d.Major == nil || !slices.Contains([]int64{1, 5, 136}, *d.Major) {
			add("device rule %+v", d)
		}
	}
	l := sb.Limits.OrDefault()
	if *r.Memory.Limit <= 0 || *r.Memory.Limit > l.MemoryBytes || *r.Pids.Limit <= 0 || *r.Pids.Limit > l.Pids ||
		*r.CPU.Quota <= 0 || float64(*r.CPU.Quota) > l.CPUs*float64(*r.CPU.Period) || r.Memory.Swap != nil && *r.Memory.Swap != 0 && *r.Memory.Swap != *r.Memory.Limit {
		add("limits above the sandbox's")
	}
	if s.Hooks != nil && len(s.Hooks.CreateContainer)+len(s.Hooks.CreateRuntime)+len(s.Hooks.Poststart)+len(s.Hooks.StartContainer)+len(s.Hooks.Prestart) > 0 { //nolint:staticcheck // deprecated
		add("hooks")
	}
	if len(s.Linux.NetDevices) > 0 || s.Linux.IntelRdt != nil || s.Linux.MemoryPolicy != nil || s.Linux.RootfsPropagation != "rprivate" {
		add("kernel features")
	}
	if !slices.Contains(s.Linux.MaskedPaths, "/proc/kcore") || !slices.Contains(s.Linux.ReadonlyPaths, "/proc/sys") {
		add("unmasked")
	}
	for key := range s.Annotations {
		if strings.HasPrefix(key, "run.oci") || strings.HasPrefix(key, "org.systemd") || strings.HasPrefix(key, "org.criu") {
			add("annotation %s", key)
		}
	}
	for key := range s.Linux.Sysctl {
		if strings.Contains(key, "/") || strings.Contains(key, "conf.") {
			add("sysctl %s", key)
		}
	}
	if sc := s.Linux.Seccomp; sc == nil || sc.DefaultAction != specs.ActErrno || sc.ListenerPath != "" || len(sc.Flags) > 0 {
		add("seccomp")
	}
	return bad
}

func processEscapes(p *specs.Process) (bad []string) {
	if !p.NoNewPrivileges {
		bad = append(bad, "new privileges")
	}
	c := p.Capabilities
	if c == nil || len(c.Ambient)+len(c.Inheritable) > 0 {
		return append(bad, "ambient or inheritable capabilities, or unset")
	}
	for _, name := range slices.Concat(c.Bounding, c.Effective, c.Permitted) {
		if !slices.Contains(spec.AllowedCapabilities(), name) {
			bad = append(bad, "capability "+name)
		}
	}
	if p.OOMScoreAdj != nil && *p.OOMScoreAdj < 0 {
		bad = append(bad, "oom score")
	}
	for _, e := range p.Env {
		if strings.HasPrefix(e, "NOTIFY_SOCKET=") {
			bad = append(bad, "notify socket")
		}
	}
	return bad
}

// rewriteMustHold rewrites s as described by itself and reports every way out.
func rewriteMustHold(t *testing.T, s *specs.Spec) {
	t.Helper()
	h := testHost()
	sb, err := spec.Describe(s, "default:web-1")
	if err != nil {
		var r *spec.RefusedError
		if !errors.As(err, &r) {
			t.Fatalf("describe: %v is not a RefusedError", err)
		}
		sb = spec.Sandbox{ID: "default:web-1"}
	}
	out, changes, err := spec.Rewrite(s, sb, h)
	if err != nil {
		var r *spec.RefusedError
		if !errors.As(err, &r) || out != nil {
			t.Fatalf("rewrite: %v is not a RefusedError", err)
		}
		return
	}
	if bad := escapes(out, sb, h); len(bad) > 0 {
		t.Fatalf("way out: %s", strings.Join(bad, "; "))
	}
	had := s.Process.Capabilities
	for _, name := range out.Process.Capabilities.Bounding {
		if had == nil || !slices.Contains(had.Bounding, name) {
			t.Fatalf("capability %s was added", name)
		}
	}
	for _, c := range changes {
		if line := c.String(); strings.ContainsAny(line, "\n\r\x1b") || c.Rule == "" || c.Path == "" || c.Reason == "" {
			t.Fatalf("change %q", line)
		}
	}
	twice, more, err := spec.Rewrite(out, sb, h)
	if err != nil || len(more) > 0 || !cmp.Equal(out, twice) {
		t.Fatalf("not idempotent: %v %v\n%s", err, more, cmp.Diff(out, twice))
	}
	if len(changes) == 0 {
		a, _ := json.Marshal(s)
		b, _ := json.Marshal(out)
		var x, y any
		if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil || !cmp.Equal(x, y) {
			t.Fatalf("changed without a record:\n%s", cmp.Diff(x, y))
		}
	}
}

func FuzzRewrite(f *testing.F) {
	for _, g := range goldens(f) {
		f.Add(g.config(f))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := spec.Decode(bytes.NewReader(b))
		if err != nil {
			return
		}
		rewriteMustHold(t, s)
	})
}

func FuzzDecode(f *testing.F) {
	for _, g := range goldens(f) {
		f.Add(g.config(f))
	}
	f.Add([]byte(`{"ociVersion":"1.0.0"}{}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := spec.Decode(bytes.NewReader(b))
		if (s == nil) == (err == nil) {
			t.Fatalf("spec %v, error %v", s, err)
		}
		if err == nil {
			out, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := spec.Decode(bytes.NewReader(out)); err != nil {
				t.Fatalf("what was decoded and encoded is refused: %v", err)
			}
		}
		if p, err := spec.DecodeProcess(b); err == nil {
			q, _, err := spec.RewriteProcess(p, spec.Sandbox{})
			if err == nil && len(processEscapes(q)) > 0 {
				t.Fatal(processEscapes(q))
			}
		}
	})
}

// TestRandomSpecs fills specs with values that mean something, which a fuzzer of bytes seldom finds.
func TestRandomSpecs(t *testing.T) {
	n := 6000
	if testing.Short() {
		n = 2000
	}
	for seed := range n {
		rnd := rand.New(rand.NewPCG(1, uint64(seed)))
		s := base(t)
		if rnd.IntN(2) == 0 {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/workspace", Type: "bind", Source: "/home/u/project", Options: []string{"rbind"}})
		}
		for range 1 + rnd.IntN(8) {
			mutate(rnd, reflect.ValueOf(s).Elem(), "")
		}
		for range rnd.IntN(4) {
			var m specs.Mount
			mutate(rnd, reflect.ValueOf(&m.Destination).Elem(), "Destination")
			mutate(rnd, reflect.ValueOf(&m.Type).Elem(), "Type")
			mutate(rnd, reflect.ValueOf(&m.Source).Elem(), "Source")
			for range rnd.IntN(4) {
				mutate(rnd, reflect.ValueOf(&m.Options).Elem(), "Options")
			}
			s.Mounts = append(s.Mounts, m)
		}
		rewriteMustHold(t, s)
	}
}

// words by the name of the field that they are for, or "" for any other.
var words = map[string][]string{
	"": {
		"", "a", "/", "/workspace", "/x", "bind", "CAP_SYS_ADMIN", "CAP_CHOWN", "CAP_NET_RAW", "NOTIFY_SOCKET=/x", "A=b", "unconfined",
		"rprivate", "rshared", "SCMP_ACT_ALLOW", "kernel.shmmax", "net.ipv4.ip_forward", "net/core/somaxconn", "memory.max", "max", "0",
		"RLIMIT_RTPRIO", "SCHED_FIFO", "LINUX", "cofferdam.dev/policy", "run.oci.handler", "\x1b[0m\n", "\xff", "/proc/self/fd/7", "/home/u/project",
	},
	"Destination": {
		"/workspace", "/workspace/sub", "/workspace2", "/x", "/", "/etc", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/proc", "/proc/sys",
		"/sys", "/sys/fs/cgroup", "/sys/fs", "/dev", "/dev/shm", "/dev/pts", "/dev/mqueue", "/dev/sda", "/run", "/tmp", "/tmp/x",
	},
	"Type": {"bind", "none", "", "tmpfs", "tmpfs", "proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue", "overlay", "pid", "network", "c", "b", "a"},
	"Source": {
		"/home/u/project", "/home/u", "/etc", "/etc/hosts", "/", "rel", "/run/docker.sock", "tmpfs", "shm", "cgroup", "/home/u/.ssh/x",
		"/var/lib/docker/containers/x/hosts", "/var/lib/docker/containers/../../../../etc/hosts", "/var/lib/nerdctl/1/volumes/v/hosts",
	},
	"Options": {
		"bind", "rbind", "ro", "rw", "rro", "rrw", "rshared", "slave", "suid", "dev", "exec", "nosuid", "nodev", "noexec", "size=0", "size=1m",
		"mode=0777", "mode=4777,dev", "idmap", "ridmap", "remount", "tmpcopyup", "hidepid=0", "newinstance", "nsdelegate", "a,bind",
	},
	"Path": {"", "", "/x", "/proc/1/ns/net", "/dev/null", "/dev/sda", "rootfs", "/home/u/img", "/etc"},
}

// mutate changes one thing at or below v, which is the value of the field name.
func mutate(rnd *rand.Rand, v reflect.Value, name string) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		} else if rnd.IntN(12) == 0 {
			v.SetZero()
			return
		}
		mutate(rnd, v.Elem(), name)
	case reflect.Struct:
		i := rnd.IntN(v.NumField())
		field := v.Type().Field(i).Name
		if specFields[v.Type()][field] == "refused" {
			return // goldens have it, and nothing else could be learnt
		}
		mutate(rnd, v.Field(i), field)
	case reflect.Slice:
		switch {
		case v.Len() == 0 || rnd.IntN(3) == 0:
			e := reflect.New(v.Type().Elem()).Elem()
			for range 3 {
				mutate(rnd, e, name)
			}
			v.Set(reflect.Append(v, e))
		case rnd.IntN(6) == 0:
			v.Set(v.Slice(0, v.Len()-1))
		default:
			mutate(rnd, v.Index(rnd.IntN(v.Len())), name)
		}
	case reflect.Map:
		if v.IsNil() {
			v.Set(reflect.MakeMap(v.Type()))
		}
		k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		mutate(rnd, k, "")
		mutate(rnd, e, "")
		v.SetMapIndex(k, e)
	case reflect.String:
		list, ok := words[name]
		if !ok {
			list = words[""]
		}
		v.SetString(list[rnd.IntN(len(list))])
	case reflect.Bool:
		v.SetBool(rnd.IntN(2) == 0)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt([]int64{-1, 0, 1, 5, 1 << 20, 1 << 40}[rnd.IntN(6)])
	case reflect.Uint, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint([]uint64{0, 1, 5, 1000, 60000}[rnd.IntN(5)])
	}
}
