package syscalls

import "golang.org/x/sys/unix"

// GoRuntime lets the runtime of Go work in the process with that ID
// (runtime/sys_linux_*.s): memory, threads and signals, and no process, code or
// file. What polls descriptors is for who has some.
func GoRuntime(pid int) []Rule {
	var rules []Rule
	allow := func(call string, number uint32, why string, when ...Condition) {
		rules = append(rules, Rule{Call: call, Number: number, When: when, Why: why})
	}

	// Memory. Private, so that no file is written through it.
	allow("mmap", unix.SYS_MMAP, "neither code nor shared memory",
		Without(2, unix.PROT_EXEC), Without(3, unix.MAP_SHARED)) // MAP_SHARED is a bit of MAP_SHARED_VALIDATE too
	allow("munmap", unix.SYS_MUNMAP, "")
	allow("madvise", unix.SYS_MADVISE, "")

	// Threads and signals.
	allow("clone", unix.SYS_CLONE, "a thread as the Go runtime makes it, never a process", Condition{
		Mask: WholeAll &^ unix.CLONE_SETTLS, // which only some architectures need
		Want: unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_SYSVSEM | unix.CLONE_THREAD,
	})
	rules = append(rules, Rule{
		Call: "clone3", Number: unix.SYS_CLONE3, Errno: unix.ENOSYS,
		Why: "its flags lie in memory, which no filter sees: whoever tries it falls back to clone",
	})
	allow("tgkill", unix.SYS_TGKILL, "the runtime interrupts its own threads", Is(0, pid))
	for _, c := range []struct {
		call   string
		number uint32
	}{
		{"futex", unix.SYS_FUTEX},
		{"nanosleep", unix.SYS_NANOSLEEP},
		{"restart_syscall", unix.SYS_RESTART_SYSCALL}, // by the kernel, after SIGSTOP and SIGCONT
		{"clock_gettime", unix.SYS_CLOCK_GETTIME},     // where the vDSO has no clock
		{"sched_yield", unix.SYS_SCHED_YIELD},
		{"sched_getaffinity", unix.SYS_SCHED_GETAFFINITY}, // GOMAXPROCS follows it
		{"getpid", unix.SYS_GETPID},
		{"gettid", unix.SYS_GETTID},
		{"rt_sigaction", unix.SYS_RT_SIGACTION},
		{"rt_sigprocmask", unix.SYS_RT_SIGPROCMASK},
		{"rt_sigreturn", unix.SYS_RT_SIGRETURN},
		{"sigaltstack", unix.SYS_SIGALTSTACK},
		{"getrandom", unix.SYS_GETRANDOM},
		{"exit", unix.SYS_EXIT},
		{"exit_group", unix.SYS_EXIT_GROUP},
	} {
		allow(c.call, c.number, "")
	}
	return rules
}
