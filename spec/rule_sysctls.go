package spec

import (
	"maps"
	"slices"
)

// sysctlKeys belong to the container's own IPC or network namespace and open nothing. Keys that name an interface or
// turn on forwarding no longer apply: the interfaces are not the engine's.
var sysctlKeys = map[string]bool{
	"fs.mqueue.msg_default":               true,
	"fs.mqueue.msg_max":                   true,
	"fs.mqueue.msgsize_default":           true,
	"fs.mqueue.msgsize_max":               true,
	"fs.mqueue.queues_max":                true,
	"kernel.msgmax":                       true,
	"kernel.msgmnb":                       true,
	"kernel.msgmni":                       true,
	"kernel.sem":                          true,
	"kernel.shm_rmid_forced":              true,
	"kernel.shmall":                       true,
	"kernel.shmmax":                       true,
	"kernel.shmmni":                       true,
	"net.core.somaxconn":                  true,
	"net.ipv4.ip_local_port_range":        true,
	"net.ipv4.ip_unprivileged_port_start": true,
	"net.ipv4.tcp_keepalive_intvl":        true,
	"net.ipv4.tcp_keepalive_probes":       true,
	"net.ipv4.tcp_keepalive_time":         true,
}

// ruleSysctls keeps the listed keys, in the form with dots alone: "a/b" would be the same key under another name.
func ruleSysctls(p *pass) error {
	for _, key := range slices.Sorted(maps.Keys(p.in.Linux.Sysctl)) {
		value := p.in.Linux.Sysctl[key]
		if !sysctlKeys[key] {
			p.dropped("linux.sysctl["+key+"]", value, "not a setting of the container's own that the sandbox knows to be harmless")
			continue
		}
		if p.out.Linux.Sysctl == nil {
			p.out.Linux.Sysctl = map[string]string{}
		}
		p.out.Linux.Sysctl[key] = value
	}
	// As engines have it: an ordinary user's server may be at port 80, in a network namespace of its own.
	const low = "net.ipv4.ip_unprivileged_port_start"
	if _, said := p.out.Linux.Sysctl[low]; !said {
		if p.out.Linux.Sysctl == nil {
			p.out.Linux.Sysctl = map[string]string{}
		}
		p.out.Linux.Sysctl[low] = "0"
		p.added("linux.sysctl["+low+"]", "0", "whoever runs in the container may serve at any port of it")
	}
	return nil
}
