package spec

import (
	"fmt"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Numbers of the Linux ABI, the same on every architecture that containers run on; package spec builds elsewhere too.
const (
	eperm  = 1
	enosys = 38

	eprotonosupport = 93

	afUnix    = 1
	afInet    = 2
	afInet6   = 10
	afNetlink = 16

	protoTCP, protoUDP = 6, 17

	netlinkRoute, netlinkSockDiag, netlinkAudit, netlinkUevent = 0, 4, 9, 15

	// CLONE_NEWCGROUP|NEWUTS|NEWIPC|NEWUSER|NEWPID|NEWNET|NEWNS. CLONE_NEWTIME is only for unshare and clone3.
	cloneNewFlags = 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000 | 0x00020000

	// What programs set with personality(2): Linux, 32-bit Linux, the version that old programs want, addresses that are not random, for debuggers and
	// sanitizers; and the value that asks.
	perLinux        = 0x0
	noRandomize     = 0x0040000
	perLinux32      = 0x8
	uname26         = 0x20000
	personalityRead = 0xffffffff
)

// Requests of ioctl(2) that put what they are given into a terminal's input, where a shell outside may read it as typed: the first
// is for every terminal (and asks for the caller's own, or CAP_SYS_ADMIN), the second for the machine's console (TIOCL_SETSEL and
// TIOCL_PASTESEL). They have these numbers on every architecture that has a profile.
const (
	tiocsti   = 0x5412
	tioclinux = 0x541c
)

// Requests of fcntl(2) after which others wait who open a file, see /proc/sys/fs/lease-break-time. On a file of a workspace these would be whoever works
// in it outside.
const (
	fSetlease = 1024
	fSetdeleg = 1024 + 16 // Linux 6.19
)

// syscalls may be called with any arguments, on every architecture that has them. It is what containerd's default profile
// allows to a process with [AllowedCapabilities], which a test holds it to, without the names that only 32-bit entry points
// have: those are closed. An architecture ignores names that it does not know.
const syscalls = `
	accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chroot clock_adjtime clock_getres
	clock_gettime clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1
	epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group
	faccessat faccessat2 fadvise64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchownat fdatasync
	fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync ftruncate futex futex_requeue futex_wait
	futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid geteuid getgid
	getgroups getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit getrusage
	getsid getsockname getsockopt gettid gettimeofday getuid getxattr getxattrat inotify_add_watch inotify_init inotify_init1
	inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit ioprio_get ioprio_set kill
	landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lgetxattr link linkat listen listmount listxattr
	listxattrat llistxattr lremovexattr lseek lsetxattr lsm_get_self_attr lsm_list_modules lsm_set_self_attr lstat madvise
	map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap
	mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink mremap mseal msgctl msgget msgrcv msgsnd
	msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat open openat openat2 pause pidfd_open
	pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll prctl pread64 preadv preadv2 prlimit64
	process_mrelease process_vm_readv process_vm_writev pselect6 ptrace pwrite64 pwritev pwritev2 read readahead readlink
	readlinkat readv recvfrom recvmmsg recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2
	restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
	rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr
	sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam sched_setscheduler
	sched_yield seccomp select semctl semget semop semtimedop sendfile sendmmsg sendmsg sendto set_robust_list set_thread_area
	set_tid_address setfsgid setfsuid setgid setgroups setitimer setpgid setpriority setregid setresgid setresuid setreuid
	setrlimit setsid setsockopt setuid setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4
	splice stat statfs statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create
	timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill
	truncate umask uname unlink unlinkat uretprobe utime utimensat utimes vfork vmsplice wait4 waitid write writev
`

// An architecture that a sandbox can run on: its 64-bit entry point, and what may be called on it alone.
type architecture struct {
	name     specs.Arch
	syscalls string
}

// architectures by their name in Go. The entry points beside the native 64-bit one (int 0x80, x32, 32-bit ARM) stay closed:
// they are the part of the kernel that is looked at least, their socket calls cannot be filtered by argument, and the filter
// is compiled anew for each of them at every start (three for x86, which made the filter the dearest part of a container's
// start). The price: 32-bit programs do not run; the kernel ends a thread that tries.
var architectures = map[string]architecture{
	"amd64":   {specs.ArchX86_64, "arch_prctl modify_ldt"},
	"arm64":   {specs.ArchAARCH64, "sync_file_range2"},
	"loong64": {specs.ArchLOONGARCH64, ""},
	"ppc64le": {specs.ArchPPC64LE, "sync_file_range2 swapcontext _llseek _newselect fstatfs64 ipc recv send sigprocmask sigreturn statfs64 ugetrlimit waitpid"},
	"riscv64": {specs.ArchRISCV64, "riscv_flush_icache riscv_hwprobe"},
	"s390x":   {specs.ArchS390X, "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr fstatfs64 ipc sigprocmask sigreturn statfs64"},
}

// Seccomp returns the filter of every sandbox on an architecture, named as in Go (GOARCH). It denies by default. There are no
// flags (runc 1.1 knows none). If asks is set, calls that could change files are [asked] about, and the caller sets a
// listener; else there is none, and no action that hands the decision to somebody else. An architecture without a list of its
// own is an error.
func Seccomp(arch string, asks bool) (*specs.LinuxSeccomp, error) {
	a, ok := architectures[arch]
	if !ok {
		return nil, fmt.Errorf("no seccomp profile for architecture %q", arch)
	}
	allow := func(call string, args ...specs.LinuxSeccompArg) specs.LinuxSyscall {
		return specs.LinuxSyscall{Names: strings.Fields(call), Action: specs.ActAllow, Args: args}
	}
	// "No such call", which makes C libraries fall back to another one.
	missing := func(call string) specs.LinuxSyscall {
		nosys := uint(enosys)
		return specs.LinuxSyscall{Names: []string{call}, Action: specs.ActErrno, ErrnoRet: &nosys}
	}
	// First of all: on architectures that multiplex sockets (32-bit x86, s390x) libseccomp turns a rule for socket with
	// arguments into one for socketcall(SYS_SOCKET) without, since those arguments lie in memory; on 32-bit x86 that opened
	// AF_VSOCK (runc 1.1.5, libseccomp 2.5.4). An earlier rule for socketcall that has no arguments keeps libseccomp from
	// it; its errno is not the default's, or runc would skip the rule. The price: where the C library has no other way,
	// there are no sockets.
	calls := []specs.LinuxSyscall{missing("socketcall")}
	if asks {
		calls = append(calls, allow(without(syscalls+a.syscalls, asked)))
		calls = append(calls, askRules()...)
	} else {
		calls = append(calls, allow(syscalls+a.syscalls))
	}

	// Families: local, internet, and the kernel's interface to look at interfaces. Not AF_VSOCK (reaches the hypervisor
	// from any network namespace), AF_ALG, AF_PACKET and some forty others. Of the internet's, TCP and UDP: not UDP-Lite, SCTP,
	// MPTCP, which the gate would refuse, and whose code in the kernel few have looked at. Of the kernel's, routes, who has which
	// socket (ss) and devices that come (udev); not packet rules, IPsec and generic netlink. Compared whole, so that a number with
	// high bits set matches none.
	equal := func(index uint, value uint64) specs.LinuxSeccompArg {
		return specs.LinuxSeccompArg{Index: index, Value: value, Op: specs.OpEqualTo}
	}
	calls = append(calls, allow("socket socketpair", equal(0, afUnix)))
	for _, of := range []struct {
		family    uint64
		protocols []uint64
	}{{afInet, []uint64{0, protoTCP, protoUDP}}, {afInet6, []uint64{0, protoTCP, protoUDP}}, {afNetlink, []uint64{netlinkRoute, netlinkSockDiag, netlinkUevent}}} {
		for _, protocol := range of.protocols {
			calls = append(calls, allow("socket", equal(0, of.family), equal(2, protocol)))
		}
	}
	// Programs that change accounts and passwords end where audit refuses them, and go on where there is none.
	unsupported := uint(eprotonosupport)
	calls = append(calls, specs.LinuxSyscall{
		Names: []string{"socket"}, Action: specs.ActErrno, ErrnoRet: &unsupported, Args: []specs.LinuxSeccompArg{equal(0, afNetlink), equal(2, netlinkAudit)},
	})
	for _, persona := range []uint64{perLinux, perLinux32, uname26, uname26 | perLinux32, personalityRead, noRandomize} {
		calls = append(calls, allow("personality", specs.LinuxSeccompArg{Index: 0, Value: persona, Op: specs.OpEqualTo}))
	}
	for _, c := range []struct {
		call   string
		others []masked
	}{{"ioctl", otherThan(tiocsti, tioclinux)}, {"fcntl", otherThan(fSetlease, fSetdeleg)}} {
		for _, piece := range c.others {
			calls = append(calls, allow(c.call, specs.LinuxSeccompArg{Index: 1, Value: piece.mask, ValueTwo: piece.want, Op: specs.OpMaskedEqual}))
		}
	}
	flags := uint(0)
	if arch == "s390x" {
		flags = 1 // there the stack comes first
	}
	calls = append(calls,
		allow("clone", specs.LinuxSeccompArg{Index: flags, Value: cloneNewFlags, ValueTwo: 0, Op: specs.OpMaskedEqual}),
		missing("clone3"), // its flags lie in memory, out of a filter's sight
	)
	perm := uint(eperm)
	return &specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno, DefaultErrnoRet: &perm, Architectures: []specs.Arch{a.name}, Syscalls: calls,
	}, nil
}

// A masked is all numbers whose bits in mask are those of want.
type masked struct{ mask, want uint64 }

// otherThan covers exactly the numbers whose lower 32 bits are neither a nor b, which is all that the kernel reads of the
// second argument of ioctl(2) and fcntl(2). It is a list of what is allowed since there is no other way to say it: libseccomp forgets a rule with conditions as it
// is given one without for the same call, knows one comparison an argument and rule, and compares "not equal" with all 64 bits, which
// one of the upper ones gets past.
//
// Of the bits in which a and b agree, one that differs is enough. The others (bits 1 to 3 of the two above) are taken together.
func otherThan(a, b uint32) []masked {
	var pieces []masked
	differ := a ^ b
	for bit := uint32(1); bit != 0; bit <<= 1 {
		if differ&bit == 0 {
			pieces = append(pieces, masked{uint64(bit), uint64(^a & bit)})
		}
	}
	for v := range differ + 1 {
		if v&^differ == 0 && v != a&differ && v != b&differ {
			pieces = append(pieces, masked{uint64(differ), uint64(v)})
		}
	}
	return pieces
}
