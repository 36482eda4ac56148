package spec_test

import (
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"cofferdam.dev/cofferdam/spec"
)

// containerd's profile, for few capabilities and for all that open a system call, has none of the ways out once it is
// tightened, and keeps what programs need.
func TestTightenedProfileOfContainerd(t *testing.T) {
	every := []string{
		"CAP_SYS_ADMIN", "CAP_DAC_READ_SEARCH", "CAP_SYS_BOOT", "CAP_SYS_CHROOT", "CAP_SYS_MODULE", "CAP_SYS_PACCT", "CAP_SYS_PTRACE",
		"CAP_SYS_RAWIO", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_SYS_NICE", "CAP_SYSLOG", "CAP_BPF", "CAP_PERFMON",
	}
	out := []string{
		"unshare", "setns", "mount", "umount2", "pivot_root", "move_mount", "open_tree", "fsopen", "fsmount", "mount_setattr",
		"io_uring_setup", "io_uring_enter", "io_uring_register", "keyctl", "add_key", "request_key", "bpf", "userfaultfd",
		"perf_event_open", "kexec_load", "kexec_file_load", "init_module", "finit_module", "open_by_handle_at", "pidfd_getfd",
		"socketcall", "clone3", "syslog", "reboot", "iopl", "settimeofday", "acct", "vhangup", "quotactl",
	}
	for name, caps := range map[string][]string{"allowed capabilities": spec.AllowedCapabilities(), "every capability": every} {
		t.Run(name, func(t *testing.T) {
			h := testHost()
			h.Seccomp = seccomp.DefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}}})
			s, _, err := spec.Rewrite(base(t), spec.Sandbox{ID: "x"}, h)
			if err != nil {
				t.Fatal(err)
			}
			got := s.Linux.Seccomp
			if first := got.Syscalls[0]; first.Action != specs.ActErrno || !slices.Equal(first.Names, []string{"socketcall"}) ||
				*first.ErrnoRet == *got.DefaultErrnoRet || len(first.Args) > 0 {
				t.Errorf("first rule %+v: want socketcall denied, with an errno of its own", first)
			}
			if len(got.Architectures) > 1 || len(h.Seccomp.Architectures) > 0 && len(got.Architectures) == 0 {
				t.Errorf("architectures %v of %v, want the 64-bit one", got.Architectures, h.Seccomp.Architectures)
			}
			if len(got.Flags) > 0 {
				t.Errorf("flags %v", got.Flags)
			}
			allowed := map[string][][]specs.LinuxSeccompArg{}
			for _, call := range got.Syscalls {
				if call.Action != specs.ActAllow {
					continue
				}
				for _, name := range call.Names {
					allowed[name] = append(allowed[name], call.Args)
				}
			}
			for _, name := range out {
				if len(allowed[name]) > 0 {
					t.Errorf("%s is allowed", name)
				}
			}
			for _, name := range []string{"socket", "socketpair"} {
				var families []uint64
				for _, args := range allowed[name] {
					if len(args) != 1 || args[0].Index != 0 || args[0].Op != specs.OpEqualTo {
						t.Errorf("%s allowed with %+v", name, args)
						continue
					}
					families = append(families, args[0].Value)
				}
				if diff := cmp.Diff([]uint64{1, 2, 10, 16}, families); diff != "" {
					t.Errorf("%s families (-want +got):\n%s", name, diff)
				}
			}
			if c := allowed["clone"]; len(c) != 1 || len(c[0]) != 1 || c[0][0].Value != 0x7e020000 || c[0][0].Op != specs.OpMaskedEqual || c[0][0].ValueTwo != 0 {
				t.Errorf("clone allowed with %+v", c)
			}
			for _, name := range []string{"read", "execve", "openat", "connect", "ptrace", "chroot", "inotify_init1", "landlock_restrict_self", "vfork"} {
				if len(allowed[name]) == 0 {
					t.Errorf("%s is denied", name)
				}
			}
		})
	}
}

func TestHostProfileThatAllowsByDefaultIsAnError(t *testing.T) {
	h := testHost()
	h.Seccomp.DefaultAction = specs.ActAllow
	if _, _, err := spec.Rewrite(base(t), spec.Sandbox{ID: "x"}, h); err == nil {
		t.Error("want an error")
	}
}
