package spec_test

import (
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"cofferdam.dev/cofferdam/spec"
)

// calls maps each system call that a profile allows to the arguments that it allows it with, one entry a rule.
func calls(s *specs.LinuxSeccomp) map[string][][]specs.LinuxSeccompArg {
	m := map[string][][]specs.LinuxSeccompArg{}
	for _, call := range s.Syscalls {
		if call.Action != specs.ActAllow {
			continue
		}
		for _, name := range call.Names {
			m[name] = append(m[name], call.Args)
		}
	}
	return m
}

// ownRules are the system calls that the profile allows with other arguments than containerd's does, or not at all.
var ownRules = []string{"socket", "socketpair", "socketcall", "fcntl", "ioctl"}

// onlyOn32 tells the calls that only 32-bit entry points have, by their names: a wider type than the first design had.
func onlyOn32(name string) bool {
	for _, suffix := range []string{"32", "_time64", "64_64"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return slices.Contains([]string{
		"_llseek", "_newselect", "arm_fadvise64_64", "arm_sync_file_range", "breakpoint", "cacheflush", "clock_adjtime64", "clock_gettime64",
		"fcntl64", "fstat64", "fstatat64", "fstatfs64", "ftruncate64", "ipc", "lstat64", "mmap2", "recv", "send", "sendfile64", "set_tls",
		"sigprocmask", "sigreturn", "stat64", "statfs64", "timer_gettime64", "timer_settime64", "timerfd_gettime64", "timerfd_settime64",
		"truncate64", "ugetrlimit", "waitpid",
	}, name)
}

// The profile allows what containerd's allows to a process with the same capabilities, but for what is listed here. A new version
// of containerd that says something else fails this test until somebody has decided.
func TestSeccompIsContainerdsProfileTightened(t *testing.T) {
	ours, err := spec.Seccomp(runtime.GOARCH, false)
	if err != nil {
		t.Fatal(err)
	}
	caps := spec.AllowedCapabilities()
	theirs := seccomp.DefaultProfile(&specs.Spec{
		Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}},
	})
	want, got := calls(theirs), calls(ours)
	// One more persona, of no consequence to anybody else: ADDR_NO_RANDOMIZE.
	want["personality"] = append(want["personality"], []specs.LinuxSeccompArg{{Value: 0x0040000, Op: specs.OpEqualTo}})
	for name, args := range want {
		if slices.Contains(ownRules, name) || onlyOn32(name) {
			continue
		}
		if _, ok := got[name]; !ok {
			t.Errorf("%s: containerd's profile allows it", name)
			continue
		}
		for _, list := range [][][]specs.LinuxSeccompArg{args, got[name]} {
			for i := range list {
				if len(list[i]) == 0 {
					list[i] = nil
				}
			}
		}
		if diff := cmp.Diff(args, got[name]); diff != "" {
			t.Errorf("%s: arguments (-containerd +ours):\n%s", name, diff)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s: containerd's profile does not allow it", name)
		}
	}
}

// On every architecture the ways out are closed, and what programs need is open.
func TestSeccompOfEveryArchitecture(t *testing.T) {
	out := []string{
		"unshare", "setns", "mount", "umount2", "pivot_root", "move_mount", "open_tree", "fsopen", "fsmount", "mount_setattr",
		"io_uring_setup", "io_uring_enter", "io_uring_register", "keyctl", "add_key", "request_key", "bpf", "userfaultfd",
		"perf_event_open", "kexec_load", "kexec_file_load", "init_module", "finit_module", "open_by_handle_at", "pidfd_getfd",
		"socketcall", "clone3", "syslog", "reboot", "iopl", "settimeofday", "clock_settime", "acct", "vhangup", "quotactl",
		"fanotify_init", "kcmp", "process_madvise", "mbind", "sethostname", "swapon", "uselib", "ustat", "sysfs",
	}
	in := []string{"read", "execve", "openat", "connect", "ptrace", "chroot", "inotify_init1", "landlock_restrict_self", "vfork"}
	for _, arch := range []string{"amd64", "arm64", "loong64", "ppc64le", "riscv64", "s390x"} {
		t.Run(arch, func(t *testing.T) {
			got, err := spec.Seccomp(arch, false)
			if err != nil {
				t.Fatal(err)
			}
			if first := got.Syscalls[0]; first.Action != specs.ActErrno || !slices.Equal(first.Names, []string{"socketcall"}) ||
				*first.ErrnoRet == *got.DefaultErrnoRet || len(first.Args) > 0 {
				t.Errorf("first rule %+v: want socketcall denied, with an errno of its own", first)
			}
			if got.DefaultAction != specs.ActErrno || len(got.Architectures) != 1 || len(got.Flags) > 0 || got.ListenerPath != "" {
				t.Errorf("default action %s, architectures %v, flags %v, listener %q", got.DefaultAction, got.Architectures, got.Flags, got.ListenerPath)
			}
			allowed := calls(got)
			for _, name := range out {
				if len(allowed[name]) > 0 {
					t.Errorf("%s is allowed", name)
				}
			}
			for _, name := range in {
				if len(allowed[name]) == 0 {
					t.Errorf("%s is denied", name)
				}
			}
			var sockets []string
			for _, args := range allowed["socket"] {
				one := ""
				for _, arg := range args {
					if arg.Op != specs.OpEqualTo {
						t.Errorf("socket allowed with %+v", args)
					}
					one += fmt.Sprintf(" %d=%d", arg.Index, arg.Value)
				}
				sockets = append(sockets, one)
			}
			want := []string{" 0=1", " 0=2 2=0", " 0=2 2=6", " 0=2 2=17", " 0=10 2=0", " 0=10 2=6", " 0=10 2=17", " 0=16 2=0", " 0=16 2=4", " 0=16 2=15"}
			if diff := cmp.Diff(want, sockets); diff != "" {
				t.Errorf("socket, by argument (-want +got):\n%s", diff)
			}
			pairs := [][]specs.LinuxSeccompArg{{{Value: 1, Op: specs.OpEqualTo}}}
			if diff := cmp.Diff(pairs, allowed["socketpair"]); diff != "" {
				t.Errorf("socketpair (-want +got):\n%s", diff)
			}
			for _, row := range ioctls {
				for _, request := range []uint64{row.request, row.request | 1<<32, row.request | 0xffffffff<<32} {
					if got := matches(t, allowed["ioctl"], 1, request); got != row.allowed {
						t.Errorf("ioctl %#x allowed: %v", request, got)
					}
				}
			}
			flags := uint(0)
			if arch == "s390x" {
				flags = 1
			}
			clones := [][]specs.LinuxSeccompArg{{{Index: flags, Value: 0x7e020000, Op: specs.OpMaskedEqual}}}
			if diff := cmp.Diff(clones, allowed["clone"]); diff != "" {
				t.Errorf("clone (-want +got):\n%s", diff)
			}
		})
	}
}

// ioctls are requests, and whether the profile allows them.
var ioctls = []struct {
	request uint64
	allowed bool
}{
	{0x5412, false},
	{0x541c, false}, // TIOCSTI, TIOCLINUX
	{0, true},
	{0xffffffff, true},
	{0x5410, true},
	{0x5414, true},
	{0x541e, true},
	{0x5418, true},
	{0x541a, true},
	{0x5416, true},
	{0x5413, true},
	{0x541d, true},
	{0x5401, true},
	{0x5402, true},
	{0x5421, true},
	{0x12, true},
	{0x1c, true},
	{0x80005412, true},
	{0x15412, true},
}

// matches tells whether one of the rules holds for an argument.
func matches(t *testing.T, rules [][]specs.LinuxSeccompArg, index uint, value uint64) bool {
	t.Helper()
	for _, args := range rules {
		if len(args) != 1 || args[0].Index != index || args[0].Op != specs.OpMaskedEqual {
			t.Fatalf("conditions %+v: want one, of argument %d, with a mask", args, index)
		}
		if value&args[0].Value == args[0].ValueTwo {
			return true
		}
	}
	return false
}

// Of all 2^16 requests those of input into terminals and of leases are denied, and no other.
func TestSeccompDeniesRequests(t *testing.T) {
	profile, err := spec.Seccomp(runtime.GOARCH, false)
	if err != nil {
		t.Fatal(err)
	}
	for call, want := range map[string][]uint64{"ioctl": {0x5412, 0x541c}, "fcntl": {0x400, 0x410}} {
		rules := calls(profile)[call]
		var denied []uint64
		for request := range uint64(1 << 16) {
			if !matches(t, rules, 1, request) {
				denied = append(denied, request)
			}
		}
		if !slices.Equal(denied, want) {
			t.Errorf("%s: denied: %#x", call, denied)
		}
	}
}

func TestUnknownArchitectureHasNoProfile(t *testing.T) {
	h := testHost()
	for _, arch := range []string{"", "386", "mips"} {
		h.Arch = arch
		if _, _, err := spec.Rewrite(base(t), spec.Sandbox{ID: "x"}, h); err == nil {
			t.Errorf("architecture %q: want an error", arch)
		}
	}
}

// A filter that asks refuses nothing that the other one lets through, and lets nothing through that it refuses.
func TestSeccompAsksOrLetsThrough(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64", "loong64", "ppc64le", "riscv64", "s390x"} {
		plain, err := spec.Seccomp(arch, false)
		if err != nil {
			t.Fatal(err)
		}
		asking, err := spec.Seccomp(arch, true)
		if err != nil {
			t.Fatal(err)
		}
		may, asks := calls(plain), map[string][]specs.LinuxSeccompArg{}
		through := calls(asking)
		for _, rule := range asking.Syscalls {
			if rule.Action != specs.ActNotify {
				continue
			}
			for _, name := range rule.Names {
				asks[name] = append(asks[name], rule.Args...)
			}
		}
		for name, conditions := range asks {
			switch {
			case len(may[name]) != 1 || len(may[name][0]) != 0:
				t.Errorf("%s: %s asks, and is not let through otherwise", arch, name)
			case len(conditions) == 0 && len(through[name]) > 0:
				t.Errorf("%s: %s always asks, and is let through", arch, name)
			case len(conditions) > 0:
				bits := uint64(0)
				for _, c := range conditions {
					if c.Op != specs.OpMaskedEqual || c.Value != c.ValueTwo || c.Value == 0 {
						t.Errorf("%s: %s asks if %+v", arch, name, c)
					}
					bits |= c.Value
				}
				want := specs.LinuxSeccompArg{Index: conditions[0].Index, Value: bits, Op: specs.OpMaskedEqual}
				if len(through[name]) != 1 || len(through[name][0]) != 1 || through[name][0][0] != want {
					t.Errorf("%s: %s is let through if %+v, want %+v", arch, name, through[name], want)
				}
			}
			delete(may, name)
			delete(through, name)
		}
		if len(asks) == 0 || !reflect.DeepEqual(may, through) {
			t.Errorf("%s: %d calls ask; the others differ", arch, len(asks))
		}
	}
}
