package attack

// host are ways to the host, to what runs there, and to its files.
var host = []Attack{
	{ID: "host.loopback", Tries: "reach a service on the host's loopback", Wall: Network, Invariant: "I1", Source: "ip(7)", Try: "tcp 127.0.0.1:{HOST}", Down: Outside, Shows: Host},
	{ID: "host.loopback6", Tries: "reach a service on the host's IPv6 loopback", Wall: Network, Invariant: "I1", Source: "ipv6(7)", Try: "tcp [::1]:{HOST}", Down: Outside, Shows: Host},
	{ID: "host.address", Tries: "reach a service on the host's own address", Wall: Network, Invariant: "I1", Source: "ip(7)", Try: "tcp 45.67.90.2:{HOST}", Down: Outside, Shows: Host},
	{ID: "host.gate", Tries: "reach a service on the host through its side of the link", Wall: Network, Invariant: "I1", Source: "ip(7)", Try: "tcp 10.200.0.1:{HOST}", Control: []string{"tcp 45.67.90.2:{HOST}"}, Down: Outside, Shows: Host},
	{ID: "host.abstract", Tries: "reach an abstract socket of the host", Wall: Network, Invariant: "I4", Source: "unix(7)", Try: "unix @cofferdam-lab-host", Down: Outside, Shows: Host},
	{ID: "host.neighbour", Tries: "reach another sandbox, which has the same addresses", Wall: Network, Invariant: "I1", Source: "ARCHITECTURE.md", Try: "tcp-any 10.200.0.2:7777 10.200.0.1:7777 127.0.0.1:7777 45.67.90.2:7777 [::1]:7777 [2a0e:97c0:1::2]:7777", Down: Outside, Shows: Answer},
	{ID: "host.sockets", Tries: "reach any Unix socket that it can see, and those of engines", Wall: Network, Invariant: "I4", Source: "unix(7)", Try: "unix-any", Down: Outside, Shows: Answer},

	{ID: "file.read", Tries: "read a file of the host by its path", Wall: Files, Invariant: "I4", Source: "open(2)", Try: "read {SECRET}", Down: Outside, Shows: Secret},
	{ID: "file.read-root", Tries: "read a file of the host through the first process's root", Wall: Files, Invariant: "I4", Source: "proc_pid_root(5)", Try: "read /proc/1/root{SECRET}", Down: Outside, Shows: Secret},
	{ID: "file.write", Tries: "write to a folder of the host", Wall: Files, Invariant: "I4", Source: "open(2)", Script: "echo x >{CANARY}/made", Down: Outside, Shows: Spoiled},
	{ID: "file.mount", Tries: "mount", Wall: Files, Invariant: "I4", Source: "mount(2)", Try: "mount tmpfs none /tmp", Down: Private, Shows: Answer},
	{ID: "file.unmount", Tries: "unmount what covers something", Wall: Files, Invariant: "I4", Source: "umount(2)", Try: "umount /proc", Control: []string{"mount tmpfs none /home", "umount /home"}, Down: Private, Shows: Answer},
	{ID: "file.device", Tries: "open a device of the host", Wall: Files, Invariant: "I4", Source: "mknod(2)", Try: "mknod /tmp/kmsg c 1 11", Control: []string{"mknod {CANARY}/kmsg c 1 11"}, Down: Private, Shows: Answer},
}
