package attack

// kernel are system calls by which an agent would gain rights, or reach more of the kernel than programs need.
var kernel = []Attack{
	{ID: "kernel.every-call", Tries: "make every system call that the profile does not let through", Wall: Kernel, Invariant: "I5", Source: "syscalls(2)", Down: Private, Shows: Answer, Test: "TestEverySystemCall"},
	{ID: "kernel.userns", Tries: "become root of a user namespace", Wall: Kernel, Invariant: "I5", Source: "user_namespaces(7)", Try: "in-userns euid", Down: Outside, Shows: Answer},
	{ID: "kernel.userns-clone3", Tries: "become root of a user namespace through clone3", Wall: Kernel, Invariant: "I5", Source: "clone(2)", Try: "clone3-userns", Down: Outside, Shows: Answer},
	{ID: "kernel.io-uring", Tries: "use io_uring", Wall: Kernel, Invariant: "I5", Source: "io_uring_setup(2)", Try: "io-uring", Down: Outside, Shows: Answer},
	{ID: "kernel.keyring", Tries: "use kernel keyrings", Wall: Kernel, Invariant: "I5", Source: "keyctl(2)", Try: "keyctl", Down: Outside, Shows: Answer},
	{ID: "kernel.bpf", Tries: "load BPF", Wall: Kernel, Invariant: "I5", Source: "bpf(2)", Try: "bpf", Down: Outside, Shows: Answer},
	{ID: "kernel.userfaultfd", Tries: "use userfaultfd", Wall: Kernel, Invariant: "I5", Source: "userfaultfd(2)", Try: "userfaultfd", Down: Outside, Shows: Answer},
	{ID: "kernel.perf", Tries: "use perf events", Wall: Kernel, Invariant: "I5", Source: "perf_event_open(2)", Try: "perf", Down: Outside, Shows: Answer},
	{ID: "kernel.tiocsti", Tries: "type into a terminal", Wall: Kernel, Invariant: "I5", Source: "TIOCSTI(2const)", Try: "type-ahead 0", Down: Private, Shows: Answer, Refused: []string{"EPERM"}},
	{ID: "kernel.tiocsti-bits", Tries: "type into a terminal with bits that the kernel ignores", Wall: Kernel, Invariant: "I5", Source: "CVE-2019-10063", Try: "type-ahead 1", Down: Private, Shows: Answer, Refused: []string{"EPERM"}},
	{ID: "kernel.setuid", Tries: "gain rights from a set-user-ID file", Wall: Kernel, Invariant: "I5", Source: "execve(2)", Try: "setuid-exec {SUID}", Down: Outside, Shows: Answer},
}
