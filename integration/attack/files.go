package attack

// files are ways to the host's files that do not go by their paths: through descriptors and processes, handles, devices, and files of the kernel
// by which it can be told to do something, or tells of itself.
var files = []Attack{
	{ID: "file.descriptors", Tries: "find a descriptor of something outside in any process that it sees", Wall: Files, Invariant: "I4", Source: "CVE-2024-21626, proc_pid_fd(5)", Try: "fds", Control: []string{"leak / fds"}, Down: Outside, Shows: Answer},
	{ID: "file.read-processes", Tries: "read a file of the host through the root, the working folder and the descriptors of every process", Wall: Files, Invariant: "I4", Source: "proc_pid_root(5), CVE-2024-21626", Try: "roots {SECRET}", Down: Outside, Shows: Secret},
	{ID: "file.environment", Tries: "read a variable that whoever started the sandbox has in its environment", Wall: Files, Invariant: "I4", Source: "proc_pid_environ(5)", Try: "environs COFFERDAM_LAB_SECRET", Down: Outside, Shows: Secret},
	{ID: "file.handle", Tries: "open a file by its handle", Wall: Files, Invariant: "I4", Source: "open_by_handle_at(2), \"shocker\"", Try: "handle {WORKSPACE}", Down: Outside, Shows: Answer, Refused: []string{"EPERM"}},
	{ID: "file.nodes-tmp", Tries: "make devices in /tmp", Wall: Files, Invariant: "I4", Source: "mknod(2)", Try: "nodes /tmp", Control: []string{"nodes {CANARY}"}, Down: Private, Shows: Answer},
	{ID: "file.nodes-shm", Tries: "make devices in /dev/shm", Wall: Files, Invariant: "I4", Source: "mknod(2)", Try: "nodes /dev/shm", Control: []string{"nodes {CANARY}"}, Down: Private, Shows: Answer},
	{ID: "file.nodes-dev", Tries: "make devices in /dev", Wall: Files, Invariant: "I4", Source: "mknod(2)", Try: "nodes /dev", Control: []string{"nodes {CANARY}"}, Down: Private, Shows: Answer},
	{ID: "file.nodes-workspace", Tries: "make devices in the workspace, where they would be the host's", Wall: Files, Invariant: "I4", Source: "mknod(2)", Try: "nodes {WORKSPACE}", Control: []string{"nodes {CANARY}"}, Down: Private, Shows: Answer},
	{ID: "file.devices", Tries: "open a device that is not every container's", Wall: Files, Invariant: "I4", Source: "kernel: admin-guide/devices", Try: "devices", Control: []string{"devices /dev/kmsg /dev/loop-control /dev/ttyS0"}, Down: Outside, Shows: Answer},

	{ID: "file.sysctls", Tries: "open a setting of the kernel for writing", Wall: Files, Invariant: "I5", Source: "proc_sys(5)", Try: "writable /proc/sys", Down: Outside, Shows: Answer},
	{ID: "file.proc", Tries: "open another file of /proc for writing that is not a process's", Wall: Files, Invariant: "I5", Source: "proc(5)", Try: "writable /proc", Control: []string{"writable /proc/sys/kernel"}, Down: Outside, Shows: Answer},
	{ID: "file.sys", Tries: "open a file of /sys for writing", Wall: Files, Invariant: "I5", Source: "sysfs(5)", Try: "writable /sys", Control: []string{"writable /sys/kernel/mm"}, Down: Outside, Shows: Answer},
	{ID: "file.core-pattern", Tries: "name the program that the kernel runs on a crash", Wall: Files, Invariant: "I5", Source: "core(5)", Try: "open-write /proc/sys/kernel/core_pattern", Down: Outside, Shows: Answer},
	{ID: "file.core-pattern-self", Tries: "name it through the root of its process", Wall: Files, Invariant: "I5", Source: "core(5)", Try: "open-write /proc/self/root/proc/sys/kernel/core_pattern", Down: Outside, Shows: Answer},
	{ID: "file.core-pattern-mode", Tries: "change the mode of the file that names it", Wall: Files, Invariant: "I5", Source: "core(5)", Try: "mode /proc/sys/kernel/core_pattern 666", Control: []string{"mode {CANARY} 777"}, Down: Outside, Shows: Answer},
	{ID: "file.helper", Tries: "give the programs that the kernel runs more capabilities", Wall: Files, Invariant: "I5", Source: "kernel: admin-guide/sysctl/kernel", Try: "open-write /proc/sys/kernel/usermodehelper/bset", Down: Outside, Shows: Answer},
	{ID: "file.caches", Tries: "drop the host's caches", Wall: Files, Invariant: "I5", Source: "kernel: admin-guide/sysctl/vm", Try: "open-write /proc/sys/vm/drop_caches", Down: Outside, Shows: Answer},
	{ID: "file.power", Tries: "put the machine to sleep", Wall: Files, Invariant: "I5", Source: "kernel: admin-guide/pm/sleep-states", Try: "open-write /sys/power/state", Down: Outside, Shows: Answer},
	{ID: "file.release-agent", Tries: "name the program that the kernel runs when a cgroup is empty", Wall: Files, Invariant: "I5", Source: "CVE-2022-0492, cgroups(7)", Try: "writable /sys/fs/cgroup", Down: Outside, Shows: Answer},
	{ID: "file.release-agent-mount", Tries: "mount a cgroup hierarchy to name it there", Wall: Files, Invariant: "I5", Source: "CVE-2022-0492, cgroups(7)", Try: "mount cgroup none /tmp", Control: []string{"mount tmpfs none /tmp"}, Down: Private, Shows: Answer},

	{ID: "file.kernel-addresses", Tries: "read where the kernel's code is", Wall: Kernel, Invariant: "I5", Source: "kernel: kptr_restrict", Try: "symbols", Down: Outside, Shows: Answer},
	{ID: "file.kernel-log", Tries: "read the kernel's log", Wall: Kernel, Invariant: "I5", Source: "syslog(2)", Try: "kernel-log", Down: Outside, Shows: Answer, Refused: []string{"EPERM"}},
	{ID: "file.kernel-messages", Tries: "read the kernel's messages", Wall: Kernel, Invariant: "I5", Source: "proc_kmsg(5)", Try: "open-read /proc/kmsg", Down: Outside, Shows: Answer},
	{ID: "file.timers", Tries: "read the host's timers", Wall: Files, Invariant: "I4", Source: "kernel: timer_list", Try: "some-of /proc/timer_list", Down: Outside, Shows: Answer},
	{ID: "file.keys", Tries: "read the list of keys", Wall: Files, Invariant: "I4", Source: "proc_keys(5)", Try: "some-of /proc/keys", Down: Outside, Shows: Answer},
	{ID: "file.interrupts", Tries: "read the host's interrupts, which tell of keys that are pressed", Wall: Files, Invariant: "I4", Source: "proc_interrupts(5)", Try: "some-of /proc/interrupts", Down: Outside, Shows: Answer},
	{ID: "file.page-flags", Tries: "read what each page of the host's memory is used for", Wall: Files, Invariant: "I4", Source: "kernel: admin-guide/mm/pagemap", Try: "some-of /proc/kpageflags", Down: Outside, Shows: Answer},
	{ID: "file.page-cgroups", Tries: "read whose each page of the host's memory is", Wall: Files, Invariant: "I4", Source: "kernel: admin-guide/mm/pagemap", Try: "some-of /proc/kpagecgroup", Down: Outside, Shows: Answer},
	{ID: "file.slabs", Tries: "read how the kernel's memory is filled", Wall: Files, Invariant: "I4", Source: "slabinfo(5)", Try: "some-of /proc/slabinfo", Down: Outside, Shows: Answer},
	{ID: "file.page-map", Tries: "learn at which physical address it lies", Wall: Kernel, Invariant: "I5", Source: "kernel: admin-guide/mm/pagemap, rowhammer", Try: "page-map", Down: Outside, Shows: Answer},

	{ID: "file.stream-input", Tries: "write to a file that it was given as input", Wall: Files, Invariant: "I4", Source: "proc_pid_fd(5)", Down: Outside, Shows: Spoiled, Test: "TestStreamsGiveNothingAway"},
	{ID: "file.stream-folder", Tries: "reach the host's files from a folder that it was given as input", Wall: Files, Invariant: "I4", Source: "proc_pid_fd(5)", Down: Outside, Shows: Secret, Test: "TestStreamsGiveNothingAway"},
	{ID: "file.stream-output", Tries: "make the file that its output goes to a set-user-ID program", Wall: Files, Invariant: "I4", Source: "chmod(2)", Down: Outside, Shows: Spoiled, Test: "TestStreamsGiveNothingAway"},
	{ID: "file.stream-device", Tries: "change the mode of the host's null device, which is its input", Wall: Files, Invariant: "I4", Source: "null(4)", Down: Outside, Shows: Spoiled, Test: "TestStreamsGiveNothingAway"},
	{ID: "file.stream-inherited", Tries: "use a descriptor that whoever started the sandbox has left open", Wall: Files, Invariant: "I4", Source: "CVE-2024-21626", Down: Outside, Shows: Secret, Test: "TestStreamsGiveNothingAway"},

	{ID: "cve.2023-25809", Tries: "write to a cgroup that the runtime mounted writable", Wall: Kernel, Invariant: "I5", Source: "CVE-2023-25809 (runc, rootless)", Try: "writable /sys/fs/cgroup", Down: Outside, Shows: Answer},
	{ID: "cve.2019-5736", Tries: "overwrite the runtime's program through /proc/self/exe", Wall: Files, Invariant: "I4", Source: "CVE-2019-5736 (runc)", Try: "open-write /proc/1/exe", Control: []string{"open-write {SECRET}"}, Down: Outside, Shows: Answer},
}
