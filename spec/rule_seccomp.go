package spec

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Numbers of the Linux ABI, the same on every architecture that containers run on; package spec builds elsewhere too.
const (
	eperm  = 1
	enosys = 38

	afUnix    = 1
	afInet    = 2
	afInet6   = 10
	afNetlink = 16

	// CLONE_NEWCGROUP|NEWUTS|NEWIPC|NEWUSER|NEWPID|NEWNET|NEWNS. CLONE_NEWTIME is only for unshare and clone3.
	cloneNewFlags = 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000 | 0x00020000
)

// deniedSyscalls are taken out of the host's profile wherever it allows them. Most it has only with capabilities that no
// sandbox has; they are listed so that a profile computed for other capabilities opens nothing.
var deniedSyscalls = []string{
	// Rights over others' namespaces, new namespaces (each a large part of the kernel's attack surface), mounts.
	"unshare", "setns", "mount", "umount", "umount2", "pivot_root", "mount_setattr", "move_mount", "open_tree",
	"open_tree_attr", "fsopen", "fsconfig", "fsmount", "fspick",
	// Rings carry out system calls that no filter sees.
	"io_uring_setup", "io_uring_enter", "io_uring_register",
	// Keyrings are not namespaced; the others are the kernel's programming and profiling interfaces.
	"add_key", "request_key", "keyctl", "bpf", "userfaultfd", "perf_event_open", "lookup_dcookie", "fanotify_init",
	// The machine: kernel images and modules, clock, power, ports, swap, accounting, log.
	"kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "create_module", "reboot",
	"settimeofday", "stime", "clock_settime", "clock_settime64", "iopl", "ioperm", "swapon", "swapoff", "acct",
	"quotactl", "quotactl_fd", "syslog", "vhangup", "nfsservctl", "_sysctl", "sysfs", "ustat", "uselib",
	"sethostname", "setdomainname", "vm86", "vm86old",
	// Other processes and files by other means than their names.
	"kcmp", "pidfd_getfd", "process_madvise", "open_by_handle_at",
	"get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node", "migrate_pages", "move_pages",
	// Have rules of their own below.
	"socket", "socketpair", "socketcall", "clone", "clone3",
}

// compatArchitectures are entry points beside the native 64-bit one. They are the part of the kernel that is looked at
// least, their socket calls cannot be filtered by argument, and the filter is compiled anew for each of them at every start
// (three for x86, which made the filter the dearest part of a container's start). The price: 32-bit programs do not run.
var compatArchitectures = []specs.Arch{
	specs.ArchX86, specs.ArchX32, specs.ArchARM, specs.ArchMIPS, specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64N32,
	specs.ArchPPC, specs.ArchS390, specs.ArchPARISC,
}

// ruleSeccomp replaces the spec's filter by the host's default one, tightened. What engines put into the spec is their
// default or a user's choice, and neither was made for an agent.
func ruleSeccomp(p *pass) error {
	profile, err := tighten(p.host.Seccomp)
	if err != nil {
		return err
	}
	if profile, err = clone(profile); err != nil { // as it will come back from JSON
		return err
	}
	switch old := p.in.Linux.Seccomp; {
	case old == nil:
		p.added("linux.seccomp", "", "every sandbox has the same filter")
	case !reflect.DeepEqual(old, profile):
		p.changed("linux.seccomp", "", "every sandbox has the same filter")
	}
	p.out.Linux.Seccomp = profile
	return nil
}

// tighten returns a filter that allows what base allows, less deniedSyscalls and with arguments checked for sockets and
// new processes. It must deny by default; anything else would turn every list here around.
//
// Only the 64-bit architectures of base stay: the kernel ends the thread that calls by another entry point (int 0x80, x32).
// There are no flags (runc 1.1 knows none), no listener, and no action that hands the decision to somebody else.
func tighten(base *specs.LinuxSeccomp) (*specs.LinuxSeccomp, error) {
	switch base.DefaultAction {
	case specs.ActErrno, specs.ActKill, specs.ActKillProcess, specs.ActKillThread:
	default:
		return nil, fmt.Errorf("host seccomp profile: default action %q does not deny", base.DefaultAction)
	}
	perm, nosys := uint(eperm), uint(enosys)
	out := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: &perm, Architectures: slices.DeleteFunc(
		slices.Clone(base.Architectures), func(a specs.Arch) bool { return slices.Contains(compatArchitectures, a) })}

	// First of all: on architectures that multiplex sockets (32-bit x86, s390x) libseccomp turns a rule for socket with
	// arguments into one for socketcall(SYS_SOCKET) without, since those arguments lie in memory; on 32-bit x86 that opened
	// AF_VSOCK (runc 1.1.5, libseccomp 2.5.4). An earlier rule for socketcall that has no arguments keeps libseccomp from
	// it; its errno is not the default's, or runc would skip the rule. The price: where the C library has no other way,
	// there are no sockets.
	out.Syscalls = append(out.Syscalls, specs.LinuxSyscall{Names: []string{"socketcall"}, Action: specs.ActErrno, ErrnoRet: &nosys})

	for _, call := range base.Syscalls {
		switch call.Action {
		case specs.ActAllow, specs.ActErrno, specs.ActKill, specs.ActKillProcess, specs.ActKillThread:
		default:
			continue // trace, log, notify, trap: left to the default action
		}
		call.Names = slices.DeleteFunc(slices.Clone(call.Names), func(name string) bool { return slices.Contains(deniedSyscalls, name) })
		if len(call.Names) > 0 {
			out.Syscalls = append(out.Syscalls, call)
		}
	}
	// Families: local, internet, and the kernel's interface to look at interfaces. Not AF_VSOCK (reaches the hypervisor
	// from any network namespace), AF_ALG, AF_PACKET and some forty others. Compared whole, so that a number with high
	// bits set matches none.
	for _, family := range []uint64{afUnix, afInet, afInet6, afNetlink} {
		out.Syscalls = append(out.Syscalls, specs.LinuxSyscall{
			Names:  []string{"socket", "socketpair"},
			Action: specs.ActAllow,
			Args:   []specs.LinuxSeccompArg{{Index: 0, Value: family, Op: specs.OpEqualTo}},
		})
	}
	flags := uint(0)
	if slices.Contains(base.Architectures, specs.ArchS390X) || slices.Contains(base.Architectures, specs.ArchS390) {
		flags = 1 // there the stack comes first
	}
	out.Syscalls = append(out.Syscalls,
		specs.LinuxSyscall{
			Names:  []string{"clone"},
			Action: specs.ActAllow,
			Args:   []specs.LinuxSeccompArg{{Index: flags, Value: cloneNewFlags, ValueTwo: 0, Op: specs.OpMaskedEqual}},
		},
		// Its flags lie in memory, out of a filter's sight. "No such call" makes C libraries fall back to clone.
		specs.LinuxSyscall{Names: []string{"clone3"}, Action: specs.ActErrno, ErrnoRet: &nosys},
	)
	return out, nil
}
