package spec

import (
	"fmt"
	"sort"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// nodes are the device nodes that a spec may ask for, by path; the runtime makes them anyway. /dev/console and /dev/ptmx are
// not among them: the one would be the host's console rather than the container's terminal, the other the host's set of
// terminals, and the runtime puts its own there.
var nodes = map[string][2]int64{
	"/dev/null":    {1, 3},
	"/dev/zero":    {1, 5},
	"/dev/full":    {1, 7},
	"/dev/random":  {1, 8},
	"/dev/urandom": {1, 9},
	"/dev/tty":     {5, 0},
}

// ruleDevices keeps none of the host's devices: neither nodes nor network devices.
func ruleDevices(p *pass) error {
	for _, d := range p.in.Linux.Devices {
		number, ok := nodes[d.Path]
		if !ok || d.Type != "c" && d.Type != "u" || d.Major != number[0] || d.Minor != number[1] {
			p.dropped("linux.devices["+d.Path+"]", fmt.Sprintf("%s %d:%d", d.Type, d.Major, d.Minor), "the host's devices are not handed over")
			continue
		}
		p.out.Linux.Devices = append(p.out.Linux.Devices, d)
	}
	names := make([]string, 0, len(p.in.Linux.NetDevices))
	for name := range p.in.Linux.NetDevices {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		p.dropped("linux.netDevices["+name+"]", "", "the only interface is the one that ends at the proxy")
	}
	return nil
}

// deviceRules returns containerd's default list (oci.WithDefaultUnixDevices) without /dev/console: a node 5:1 in an image
// would be the host's console, while the container's is a pseudo terminal (136:*).
func deviceRules() []specs.LinuxDeviceCgroup {
	char := func(major int64, minor ...int64) specs.LinuxDeviceCgroup {
		d := specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &major, Access: "rwm"}
		if len(minor) > 0 {
			d.Minor = &minor[0]
		}
		return d
	}
	return []specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"},
		char(1, 3), // null
		char(1, 8), // random
		char(1, 7), // full
		char(5, 0), // tty
		char(1, 5), // zero
		char(1, 9), // urandom
		char(136),  // pts
		char(5, 2), // ptmx
	}
}
