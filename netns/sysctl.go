package netns

import "strings"

// A Sysctl is one desired kernel setting of a namespace.
type Sysctl struct {
	Key   string // as sysctl(8) writes it; no interface name in it may contain a dot
	Value string
	// Optional says that a kernel without the key has not got the feature that
	// the key would switch off. Without it a missing key is an error.
	Optional bool
}

// Sysctls is an ordered list of settings; it prints as a sysctl.conf(5), where
// a leading "-" marks an optional key.
type Sysctls []Sysctl

func (s Sysctls) String() string {
	var b strings.Builder
	for _, c := range s {
		if c.Optional {
			b.WriteByte('-')
		}
		b.WriteString(c.Key + " = " + c.Value + "\n")
	}
	return b.String()
}

// path is the file of the setting below /proc/sys.
func (c Sysctl) path() string {
	return "/proc/sys/" + strings.ReplaceAll(c.Key, ".", "/")
}

// GateSysctls are the settings of GATE, to be made before its links go up.
//
// All are written, defaults too: a new namespace inherits its IPv4 settings
// from the host (net.core.devconf_inherit_init_net), and hosts of containers
// forward, loosen rp_filter and log martians. For most IPv4 keys the kernel
// combines "all" with the interface's own, hence both are set; "default" is
// what the veth is born with. See ip-sysctl.rst and mptcp-sysctl.rst in the
// kernel's Documentation/networking.
func GateSysctls() Sysctls {
	return Sysctls{
		// No forwarding: there is nowhere to forward to (I1), this says so again.
		{Key: "net.ipv4.ip_forward", Value: "0"},
		{Key: "net.ipv4.conf.default.forwarding", Value: "0"},

		// No IPv6 on any link of GATE.
		{Key: "net.ipv6.conf.all.disable_ipv6", Value: "1", Optional: true},
		{Key: "net.ipv6.conf.default.disable_ipv6", Value: "1", Optional: true},
		{Key: "net.ipv6.conf.all.forwarding", Value: "0", Optional: true},
		{Key: "net.ipv6.conf.default.accept_ra", Value: "0", Optional: true},

		// Accepted sockets are plain TCP: no subflows that nobody planned for.
		{Key: "net.mptcp.enabled", Value: "0", Optional: true},

		// With AnyIP the kernel would answer ping for every address there is,
		// which looks like connectivity.
		{Key: "net.ipv4.icmp_echo_ignore_all", Value: "1"},
		{Key: "net.ipv6.icmp.echo_ignore_all", Value: "1", Optional: true},

		// No rate limit for ICMP errors: each refused datagram is to fail at once,
		// not the first six of a second; and the errors do not use up a bucket
		// that older kernels share with the host.
		{Key: "net.ipv4.icmp_ratemask", Value: "0"},

		// Sources other than the box's address are martians: with AnyIP they are
		// local addresses, and those are not accepted from outside.
		{Key: "net.ipv4.conf.all.rp_filter", Value: "1"},
		{Key: "net.ipv4.conf.default.rp_filter", Value: "1"},
		{Key: "net.ipv4.conf.all.accept_local", Value: "0"},
		{Key: "net.ipv4.conf.default.accept_local", Value: "0"},
		{Key: "net.ipv4.conf.all.route_localnet", Value: "0"},
		{Key: "net.ipv4.conf.default.route_localnet", Value: "0"},
		// They are not to fill the host's kernel log.
		{Key: "net.ipv4.conf.all.log_martians", Value: "0"},
		{Key: "net.ipv4.conf.default.log_martians", Value: "0"},

		{Key: "net.ipv4.conf.all.accept_redirects", Value: "0"},
		{Key: "net.ipv4.conf.default.accept_redirects", Value: "0"},
		{Key: "net.ipv4.conf.all.send_redirects", Value: "0"},
		{Key: "net.ipv4.conf.default.send_redirects", Value: "0"},

		// A flood of half-open connections does not lock out the others.
		{Key: "net.ipv4.tcp_syncookies", Value: "1", Optional: true},
		{Key: "net.core.somaxconn", Value: "4096"},
	}
}

// BoxSysctls are the settings of BOX, to be made before eth0 is plugged in.
//
// IPv6 is off on eth0, which takes its settings from "default"; ::1 stays, as
// servers on "localhost" inside the box expect it.
func BoxSysctls() Sysctls {
	return Sysctls{
		{Key: "net.ipv6.conf.default.disable_ipv6", Value: "1", Optional: true},
		{Key: "net.ipv4.ip_forward", Value: "0"},
		{Key: "net.mptcp.enabled", Value: "0", Optional: true},
	}
}
