package seccomp

import (
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/netns/netnstest"
	"cofferdam.dev/cofferdam/proxy/confine/syscalls"
	"cofferdam.dev/cofferdam/proxy/confine/syscalls/load"
	"cofferdam.dev/cofferdam/proxy/confine/syscalls/syscallstest"
	"cofferdam.dev/cofferdam/spec"
)

var update = flag.Bool("update", false, "write the golden files")

// sandbox is the profile of every sandbox on an architecture.
func sandbox(t testing.TB, arch string) *specs.LinuxSeccomp {
	t.Helper()
	profile, err := spec.Seccomp(arch, false)
	if err != nil {
		t.Fatal(err)
	}
	return profile
}

// What a reviewer should read: all that an agent may ask of the kernel.
func TestSandboxFilter(t *testing.T) {
	for name, arch := range architectures {
		f, err := arch.filter(sandbox(t, name))
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "sandbox."+name+".filter", f)
		profile, err := spec.Seccomp(name, true)
		if err != nil {
			t.Fatal(err)
		}
		if f, err = arch.filter(profile); err != nil {
			t.Fatal(err)
		}
		golden(t, "workspace."+name+".filter", f)
	}
}

func golden(t *testing.T, name string, f syscalls.Filter) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(f.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(path); err != nil || string(want) != f.String() {
		t.Errorf("%s differs (-update writes it), %v:\n%s", path, err, f)
	}
}

// numbers reads definitions of system calls, NAME NUMBER, out of a file.
func numbers(t *testing.T, path, definition string) map[string]uint32 {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]uint32{}
	for _, m := range regexp.MustCompile(definition).FindAllSubmatch(text, -1) {
		n, err := strconv.ParseUint(string(m[2]), 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		found[strings.ToLower(string(m[1]))] = uint32(n)
	}
	if len(found) < 300 {
		t.Fatalf("%s defines %d system calls", path, len(found))
	}
	return found
}

func table(t *testing.T, arch string) map[string]uint32 {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/sys").Output()
	if err != nil {
		t.Fatal(err)
	}
	return numbers(t, filepath.Join(strings.TrimSpace(string(dir)), "unix", "zsysnum_linux_"+arch+".go"), `(?m)^\s*SYS_(\w+)\s*=\s*(\d+)$`)
}

// A call that a new version of golang.org/x/sys knows, or that this machine's headers name, is in the table (go generate).
func TestTablesAreComplete(t *testing.T) {
	for name, arch := range architectures {
		for call, want := range table(t, name) {
			if got, ok := arch.number(call); !ok || got != want {
				t.Errorf("%s: %s is %d, %v, want %d", name, call, got, ok, want)
			}
		}
		if got, ok := arch.number("nothing"); ok {
			t.Errorf("%s: an unknown call is %d", name, got)
		}
	}
	t.Run("headers", func(t *testing.T) {
		paths, _ := filepath.Glob("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
		if runtime.GOARCH != "amd64" || len(paths) == 0 {
			netnstest.Skip(t, "kernel headers", "linux-libc-dev of amd64")
		}
		for call, want := range numbers(t, paths[0], `(?m)^#define __NR_(\w+) (\d+)$`) {
			if got, ok := amd64(call); !ok || got != want {
				t.Errorf("%s is %d, %v, want %d", call, got, ok, want)
			}
		}
	})
}

// All names of the profile mean something, but those of calls that only older architectures have.
func TestNamesThatAnArchitectureDoesNotKnow(t *testing.T) {
	for name, want := range map[string]string{
		"amd64": "socketcall",
		"arm64": "access alarm chmod chown creat dup2 epoll_create epoll_ctl_old epoll_wait epoll_wait_old eventfd fork futimesat " +
			"get_thread_area getdents getpgrp inotify_init lchown link lstat mkdir mknod open pause pipe poll readlink rename rmdir " +
			"select set_thread_area signalfd socketcall stat symlink sync_file_range2 time unlink uretprobe utime utimes vfork",
	} {
		var unknown []string
		for _, call := range sandbox(t, name).Syscalls {
			for _, n := range call.Names {
				if _, ok := architectures[name].number(n); !ok {
					unknown = append(unknown, n)
				}
			}
		}
		slices.Sort(unknown)
		if got := strings.Join(slices.Compact(unknown), " "); got != want {
			t.Errorf("%s does not know\n%s\nwant\n%s", name, got, want)
		}
	}
}

// interpret says what a profile means, reading nothing but the profile.
func interpret(p *specs.LinuxSeccomp, known map[string]uint32, c syscallstest.Call) uint32 {
	if c.Arch != syscalls.AuditArch || c.Number >= 1<<30 && c.Number != 1<<32-1 {
		return syscallstest.Killed
	}
	newest := uint32(0)
	for _, call := range p.Syscalls {
		for _, name := range call.Names {
			number, ok := known[name]
			newest = max(newest, number)
			if !ok || number != c.Number {
				continue
			}
			holds := true
			for _, a := range call.Args {
				switch v := c.Args[a.Index]; a.Op {
				case specs.OpEqualTo:
					holds = holds && v == a.Value
				case specs.OpMaskedEqual:
					holds = holds && v&a.Value == a.ValueTwo
				default:
					panic(a.Op)
				}
			}
			switch {
			case !holds:
			case call.Action == specs.ActAllow:
				return syscallstest.Allowed
			case call.ErrnoRet == nil:
				return syscallstest.Refused(unix.EPERM)
			default:
				return syscallstest.Refused(unix.Errno(*call.ErrnoRet))
			}
		}
	}
	if newest > 0 && c.Number > newest && c.Number != 1<<32-1 {
		return syscallstest.Refused(unix.ENOSYS)
	}
	if p.DefaultErrnoRet == nil {
		return syscallstest.Refused(unix.EPERM)
	}
	return syscallstest.Refused(unix.Errno(*p.DefaultErrnoRet))
}

// check compares the compiled filter with the profile: for every number, with arguments at which some rule begins or ends to hold.
func check(t *testing.T, p *specs.LinuxSeccomp, known map[string]uint32, r *rand.Rand) {
	t.Helper()
	f, err := Filter(p)
	if err != nil {
		t.Fatal(err)
	}
	run := syscallstest.Compile(t, f)
	values := []uint64{0, 1, 1<<32 - 1, 1 << 32, 1<<64 - 1, r.Uint64()}
	for _, call := range p.Syscalls {
		for _, a := range call.Args {
			want := a.Value
			if a.Op == specs.OpMaskedEqual {
				want = a.ValueTwo
			}
			values = append(values, want, want^1<<r.IntN(64), want^a.Value, want|1<<40, want|^a.Value, want+1, want-1)
		}
	}
	slices.Sort(values)
	values = slices.Compact(values)
	ask := func(c syscallstest.Call) {
		if got, want := run(c), interpret(p, known, c); got != want {
			t.Fatalf("%+v: %#x, want %#x", c, got, want)
		}
	}
	for number := range uint32(600) {
		for i, v := range values {
			same := [6]uint64{v, v, v, v, v, v}
			mixed := [6]uint64{v, values[(i+1)%len(values)], values[r.IntN(len(values))], v, 0, 1}
			for _, args := range [][6]uint64{same, mixed} {
				ask(syscallstest.Call{Arch: syscalls.AuditArch, Number: number, Args: args})
			}
		}
		ask(syscallstest.Call{Arch: syscalls.AuditArch, Number: number | 1<<30})
		ask(syscallstest.Call{Arch: unix.AUDIT_ARCH_I386, Number: number})
		ask(syscallstest.Call{Arch: unix.AUDIT_ARCH_ARM, Number: number})
	}
	for _, number := range []uint32{1<<32 - 1, 1<<32 - 2, 1<<31 - 1, 1 << 31, 1<<30 - 1, 1 << 30} {
		ask(syscallstest.Call{Arch: syscalls.AuditArch, Number: number})
	}
}

func known(t *testing.T) map[string]uint32 {
	t.Helper()
	if _, ok := architectures[runtime.GOARCH]; !ok {
		netnstest.Skip(t, "system call table", "of "+runtime.GOARCH)
	}
	return table(t, runtime.GOARCH)
}

func TestFilterDoesWhatTheProfileSays(t *testing.T) {
	known, r := known(t), rand.New(rand.NewPCG(1, 2))
	check(t, sandbox(t, runtime.GOARCH), known, r)
	check(t, &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{architectures[runtime.GOARCH].name}}, known, r)
}

// FuzzFilter makes profiles of bytes: ten make a rule.
func FuzzFilter(f *testing.F) {
	f.Add([]byte{}, uint64(1))
	f.Add([]byte("\x00\x01\x01\x00\x07\x00\x07\x01\x00\x02\x00\x00\x26\x00\x00\x00\x00\x00\x00\x00"), uint64(2))
	f.Fuzz(func(t *testing.T, data []byte, seed uint64) {
		names := []string{"read", "write", "ioctl", "clone3", "getpid", "mseal", "nothing"}
		known := map[string]uint32{}
		for _, n := range names {
			if number, ok := architectures[runtime.GOARCH].number(n); ok {
				known[n] = number
			}
		}
		p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{architectures[runtime.GOARCH].name}}
		for ; len(data) >= 10 && len(p.Syscalls) < 40; data = data[10:] {
			call := specs.LinuxSyscall{Names: []string{names[int(data[0])%len(names)], names[int(data[1])%len(names)]}, Action: specs.ActAllow}
			if n := uint(data[2]); n%2 == 1 {
				call.Action, call.ErrnoRet = specs.ActErrno, &n
			}
			for i := range data[3] % 3 {
				mask := uint64(binary.LittleEndian.Uint16(data[4+2*i:])) << (data[8] % 64)
				arg := specs.LinuxSeccompArg{Index: uint(data[9]+i) % 6, Op: specs.OpMaskedEqual, Value: mask, ValueTwo: mask & 0x5555555555555555}
				if data[9]&0x80 != 0 {
					arg = specs.LinuxSeccompArg{Index: arg.Index, Op: specs.OpEqualTo, Value: mask}
				}
				call.Args = append(call.Args, arg)
			}
			p.Syscalls = append(p.Syscalls, call)
		}
		check(t, p, known, rand.New(rand.NewPCG(seed, 0)))
	})
}

// What the filter would not do exactly is refused.
func TestRefusals(t *testing.T) {
	known(t) // or everything is refused
	for what, change := range map[string]func(*specs.LinuxSeccomp){
		"default allow":        func(p *specs.LinuxSeccomp) { p.DefaultAction = specs.ActAllow },
		"default kill":         func(p *specs.LinuxSeccomp) { p.DefaultAction = specs.ActKillProcess },
		"no default":           func(p *specs.LinuxSeccomp) { p.DefaultAction = "" },
		"default error 0":      func(p *specs.LinuxSeccomp) { p.DefaultErrnoRet = new(uint(0)) },
		"default error 4096":   func(p *specs.LinuxSeccomp) { p.DefaultErrnoRet = new(uint(4096)) },
		"no architecture":      func(p *specs.LinuxSeccomp) { p.Architectures = nil },
		"another architecture": func(p *specs.LinuxSeccomp) { p.Architectures = []specs.Arch{specs.ArchMIPS} },
		"two architectures":    func(p *specs.LinuxSeccomp) { p.Architectures = append(p.Architectures, specs.ArchX86) },
		"a flag":               func(p *specs.LinuxSeccomp) { p.Flags = []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagSpecAllow} },
		"a listener":           func(p *specs.LinuxSeccomp) { p.ListenerPath = "/x" },
		"listener metadata":    func(p *specs.LinuxSeccomp) { p.ListenerMetadata = "x" },
		"no names":             func(p *specs.LinuxSeccomp) { p.Syscalls[0].Names = nil },
		"an empty name":        func(p *specs.LinuxSeccomp) { p.Syscalls[0].Names = []string{"read", ""} },
		"no action":            func(p *specs.LinuxSeccomp) { p.Syscalls[0].Action = "" },
		"kill":                 func(p *specs.LinuxSeccomp) { p.Syscalls[0].Action = specs.ActKill },
		"log":                  func(p *specs.LinuxSeccomp) { p.Syscalls[0].Action = specs.ActLog },
		"trace":                func(p *specs.LinuxSeccomp) { p.Syscalls[0].Action = specs.ActTrace },
		"notify with an error": func(p *specs.LinuxSeccomp) {
			p.Syscalls[0].Action, p.Syscalls[0].ErrnoRet = specs.ActNotify, new(uint(1))
		},
		"error 0":             func(p *specs.LinuxSeccomp) { p.Syscalls[1].ErrnoRet = new(uint(0)) },
		"error 4096":          func(p *specs.LinuxSeccomp) { p.Syscalls[1].ErrnoRet = new(uint(4096)) },
		"allow with an error": func(p *specs.LinuxSeccomp) { p.Syscalls[0].ErrnoRet = new(uint(1)) },
		"argument 6":          func(p *specs.LinuxSeccomp) { p.Syscalls[0].Args[0].Index = 6 },
		"no operator":         func(p *specs.LinuxSeccomp) { p.Syscalls[0].Args[0].Op = "" },
		"not equal":           func(p *specs.LinuxSeccomp) { p.Syscalls[0].Args[0].Op = specs.OpNotEqual },
		"greater":             func(p *specs.LinuxSeccomp) { p.Syscalls[0].Args[0].Op = specs.OpGreaterThan },
		"equal to two":        func(p *specs.LinuxSeccomp) { p.Syscalls[0].Args[0].ValueTwo = 1 },
		"never": func(p *specs.LinuxSeccomp) {
			p.Syscalls[0].Args[0] = specs.LinuxSeccompArg{Op: specs.OpMaskedEqual, Value: 1, ValueTwo: 2}
		},
		"an argument twice": func(p *specs.LinuxSeccomp) { p.Syscalls[0].Args = append(p.Syscalls[0].Args, p.Syscalls[0].Args[0]) },
	} {
		p := &specs.LinuxSeccomp{
			DefaultAction: specs.ActErrno, Architectures: []specs.Arch{architectures[runtime.GOARCH].name},
			Syscalls: []specs.LinuxSyscall{
				{Names: []string{"read"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Op: specs.OpEqualTo, Value: 1}}},
				{Names: []string{"write"}, Action: specs.ActErrno},
			},
		}
		if _, err := Filter(p); err != nil {
			t.Fatal(err)
		}
		change(p)
		if f, err := Filter(p); err == nil {
			t.Errorf("%s gives\n%s", what, f)
		}
	}
	if f, err := Filter(nil); err == nil {
		t.Errorf("no profile gives\n%s", f)
	}
}

// A field that a new version of the runtime-spec adds means something that somebody must decide about.
func TestEveryFieldIsReadOrRefused(t *testing.T) {
	for _, row := range []struct {
		value  any
		fields int
	}{{specs.LinuxSeccomp{}, 7}, {specs.LinuxSyscall{}, 4}, {specs.LinuxSeccompArg{}, 4}} {
		if typ := reflect.TypeOf(row.value); typ.NumField() != row.fields {
			t.Errorf("%s has %d fields, %d are known", typ, typ.NumField(), row.fields)
		}
	}
}

// envLoaded tells a test binary that it is the process which confines itself.
const envLoaded = "COFFERDAM_SECCOMP_LOADED"

// acts are system calls of which the filter refuses some; free is how they end without it.
var acts = []struct {
	name           string
	do             func() unix.Errno
	free, filtered unix.Errno
}{
	{"getpid", raw(unix.SYS_GETPID), 0, 0},
	{"unshare nothing", raw(unix.SYS_UNSHARE, 0), 0, unix.EPERM},
	{"clone3", raw(unix.SYS_CLONE3, 0, 0), unix.EINVAL, unix.ENOSYS},
	{"clone into a namespace", raw(unix.SYS_CLONE, unix.CLONE_NEWUSER|unix.CLONE_SIGHAND), unix.EINVAL, unix.EPERM},
	{"clone", raw(unix.SYS_CLONE, unix.CLONE_SIGHAND), unix.EINVAL, unix.EINVAL},
	{"socket", raw(unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM), 0, 0},
	{"socket of a family with upper bits", raw(unix.SYS_SOCKET, 1<<32|unix.AF_UNIX, unix.SOCK_STREAM), 0, unix.EPERM},
	{"socket of no family", raw(unix.SYS_SOCKET, 999, unix.SOCK_STREAM), unix.EAFNOSUPPORT, unix.EPERM},
	{"TIOCGWINSZ", raw(unix.SYS_IOCTL, 0, unix.TIOCGWINSZ), unix.ENOTTY, unix.ENOTTY},
	{"TIOCSTI", raw(unix.SYS_IOCTL, 0, unix.TIOCSTI), unix.ENOTTY, unix.EPERM},
	{"TIOCSTI with upper bits", raw(unix.SYS_IOCTL, 0, 1<<32|unix.TIOCSTI), unix.ENOTTY, unix.EPERM},
	{"TIOCLINUX", raw(unix.SYS_IOCTL, 0, unix.TIOCLINUX), unix.ENOTTY, unix.EPERM},
	{"keyctl", raw(unix.SYS_KEYCTL, 1<<20), unix.EOPNOTSUPP, unix.EPERM},
	{"a call to come", raw(5000), unix.ENOSYS, unix.ENOSYS},
	{"skipped", raw(1<<64 - 1), unix.ENOSYS, unix.EPERM},
}

func raw(number uintptr, args ...uintptr) func() unix.Errno {
	var a [6]uintptr
	copy(a[:], args)
	return func() unix.Errno {
		_, _, errno := unix.RawSyscall6(number, a[0], a[1], a[2], a[3], a[4], a[5])
		return errno
	}
}

func TestMain(m *testing.M) {
	if how, ok := os.LookupEnv(envLoaded); ok {
		runtime.LockOSThread()
		if how == "yes" {
			confine()
		}
		for _, a := range acts {
			fmt.Println(int(a.do()))
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func confine() {
	profile, err := spec.Seccomp(runtime.GOARCH, false)
	if err != nil {
		panic(err)
	}
	f, err := Filter(profile)
	if err != nil {
		panic(err)
	}
	program, err := f.Program()
	if err != nil {
		panic(err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	if err := load.Filter(program); err != nil {
		panic(err)
	}
}

func TestKernelTakesTheFilter(t *testing.T) {
	known(t)
	for _, how := range []string{"no", "yes"} {
		cmd := exec.Command("/proc/self/exe") // with /dev/null as its input
		cmd.Env = []string{envLoaded + "=" + how, "GORACE=atexit_sleep_ms=10"}
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Fields(string(out))
		if len(got) != len(acts) {
			t.Fatalf("%d acts, %q", len(acts), out)
		}
		for i, a := range acts {
			want := a.free
			if how == "yes" {
				want = a.filtered
			}
			if got[i] != strconv.Itoa(int(want)) {
				t.Errorf("loaded: %s: %s ends with error %s, want %d", how, a.name, got[i], want)
			}
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	profile := sandbox(b, runtime.GOARCH)
	for b.Loop() {
		f, err := Filter(profile)
		if err != nil {
			b.Fatal(err)
		}
		program, err := f.Program()
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(program)), "instructions")
	}
}
