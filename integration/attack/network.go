package attack

// what a kernel says that has no such thing, or refuses UDP: the packet got nowhere.
var refusedUDP = []string{"ECONNREFUSED", "ENETUNREACH", "EHOSTUNREACH", "EADDRNOTAVAIL", "EPERM"}

// network are ways past the proxy, from the link up.
var network = []Attack{
	{ID: "net.icmp-raw", Tries: "send an echo request through a raw socket", Wall: Network, Invariant: "I1", Source: "raw(7)", Try: "icmp 45.67.89.66", Down: Outside, Shows: Internet, Refused: []string{"EPERM"}},
	{ID: "net.icmp6-raw", Tries: "send an ICMPv6 echo request through a raw socket", Wall: Network, Invariant: "I1", Source: "ipv6(7)", Try: "icmp 2a0e:97c0:ffff::1", Down: Outside, Shows: Internet, Refused: []string{"EPERM"}},
	{ID: "net.gre", Tries: "send GRE, another IP protocol", Wall: Network, Invariant: "I1", Source: "RFC 2784", Try: "raw 47 45.67.89.66", Down: Outside, Shows: Internet, Refused: []string{"EPERM"}},
	{
		ID: "net.ping", Tries: "ping without a raw socket", Wall: Network, Invariant: "I1", Source: "icmp(7)", Try: "ping 45.67.89.66",
		Control: []string{"write /proc/sys/net/ipv4/ping_group_range 0\t0", "ping 45.67.89.66"}, Down: Outside, Shows: Internet,
	},
	{ID: "net.packet", Tries: "send a frame through a packet socket", Wall: Network, Invariant: "I1", Source: "packet(7)", Try: "packet", Control: []string{"packet uplink"}, Down: Outside, Shows: Internet, Refused: []string{"EPERM"}},
	{ID: "net.vsock", Tries: "talk to the hypervisor", Wall: Network, Invariant: "I1", Source: "vsock(7)", Try: "vsock", Down: Outside, Shows: Answer},
	{ID: "net.vsock-i386-socket", Tries: "talk to the hypervisor through the 32-bit socket call", Wall: Network, Invariant: "I1", Source: "syscalls(2)", Try: "vsock-int80-socket", Down: Outside, Shows: Answer},
	{ID: "net.vsock-i386-socketcall", Tries: "talk to the hypervisor through the 32-bit socketcall", Wall: Network, Invariant: "I1", Source: "socketcall(2)", Try: "vsock-int80-socketcall", Down: Outside, Shows: Answer},
	{ID: "net.vsock-x32", Tries: "talk to the hypervisor through the x32 socket call", Wall: Network, Invariant: "I1", Source: "syscall(2), x32 ABI", Try: "vsock-x32", Down: Outside, Shows: Answer},
	{ID: "net.af-alg", Tries: "open an AF_ALG socket", Wall: Network, Invariant: "I1", Source: "kernel: crypto/userspace-if", Try: "socket 38 5 0", Down: Outside, Shows: Answer},
	{ID: "net.af-xdp", Tries: "open an AF_XDP socket", Wall: Network, Invariant: "I1", Source: "kernel: networking/af_xdp", Try: "socket 44 3 0", Down: Outside, Shows: Answer},
	{ID: "net.sctp", Tries: "open an SCTP socket", Wall: Network, Invariant: "I1", Source: "sctp(7)", Try: "socket 2 1 132", Down: Outside, Shows: Answer},
	{ID: "net.udp", Tries: "send UDP", Wall: Network, Invariant: "I1", Source: "udp(7)", Try: "udp 45.67.89.66:51820 tunnel", Down: Outside, Shows: Internet, Refused: refusedUDP, At: 1000},
	{ID: "net.quic", Tries: "use QUIC", Wall: Network, Invariant: "I1", Source: "RFC 9000", Try: "udp 45.67.89.10:443 initial", Down: Outside, Shows: Internet, Refused: refusedUDP, At: 1000},
	{ID: "net.udp6", Tries: "send UDP over IPv6", Wall: Network, Invariant: "I1", Source: "ipv6(7)", Try: "udp [2a0e:97c0:ffff::1]:123 tunnel", Down: Outside, Shows: Internet, Refused: refusedUDP, At: 1000},
	{ID: "net.address", Tries: "connect to an address", Wall: Network, Invariant: "I2", Source: "hard-coded addresses", Try: "tcp 45.67.89.66:443 hello", Control: []string{"https 45.67.89.66:443 evil.test"}, Down: Outside, Shows: Internet, At: 1000},
	{ID: "net.address-port", Tries: "connect to an address on another port", Wall: Network, Invariant: "I2", Source: "hard-coded addresses", Try: "tcp 45.67.89.66:5432 hello", Down: Outside, Shows: Internet, At: 1000},
	{ID: "net.address6", Tries: "connect over IPv6", Wall: Network, Invariant: "I2", Source: "ipv6(7)", Try: "tcp [2a0e:97c0:ffff::1]:5432 hello", Down: Outside, Shows: Internet, At: 1000},
	{ID: "net.address-mapped", Tries: "connect to an IPv4 address that is mapped to IPv6", Wall: Network, Invariant: "I2", Source: "RFC 4291, 2.5.5.2", Try: "tcp [::ffff:45.67.89.66]:5432 hello", Down: Outside, Shows: Internet, At: 1000},
	{ID: "net.address-nat64", Tries: "connect to a NAT64 address", Wall: Network, Invariant: "I2", Source: "RFC 6052", Try: "tcp [64:ff9b::2d43:5942]:5432 hello", Down: Outside, Shows: Internet, At: 1000},
	{ID: "net.metadata", Tries: "read the metadata service", Wall: Network, Invariant: "I2", Source: "169.254.169.254 of the clouds", Try: "http 169.254.169.254:80 169.254.169.254 GET /latest/meta-data/", Down: Outside, Shows: Internet, At: 1000},
	{
		ID: "net.route", Tries: "change the route", Wall: Network, Invariant: "I1", Source: "rtnetlink(7)", Try: "route 10.200.0.9 eth0",
		Control: []string{"link-add eth0", "link-up eth0", "addr-add eth0 10.200.0.2/30", "route 10.200.0.1 eth0"}, Down: Private, Shows: Answer, Refused: []string{"EPERM"},
	},
	{ID: "net.link-down", Tries: "take the link down", Wall: Network, Invariant: "I1", Source: "rtnetlink(7)", Try: "link-down eth0", Control: []string{"link-add eth1", "link-up eth1", "link-down eth1"}, Down: Private, Shows: Answer, Refused: []string{"EPERM"}},
	{ID: "net.address-add", Tries: "add an address", Wall: Network, Invariant: "I1", Source: "rtnetlink(7)", Try: "addr-add eth0 45.67.90.77/24", Control: []string{"addr-add lo 45.67.90.77/24"}, Down: Private, Shows: Answer, Refused: []string{"EPERM"}},
	{ID: "net.forward", Tries: "forward packets", Wall: Network, Invariant: "I1", Source: "kernel: networking/ip-sysctl", Try: "write /proc/sys/net/ipv4/ip_forward 1", Down: Private, Shows: Answer},
	{ID: "net.setns", Tries: "enter another network namespace", Wall: Network, Invariant: "I1", Source: "setns(2)", Try: "setns /proc/1/ns/net", Down: Outside, Shows: Answer, Refused: []string{"EPERM", "EACCES"}},
	{ID: "net.unshare", Tries: "unshare the network namespace", Wall: Network, Invariant: "I1", Source: "unshare(2)", Try: "unshare 1073741824", Down: Outside, Shows: Answer},
	{ID: "net.userns", Tries: "make a network namespace of its own, as root of a user namespace", Wall: Network, Invariant: "I1", Source: "user_namespaces(7)", Try: "in-userns-net link-up lo", Down: Outside, Shows: Answer},
}
