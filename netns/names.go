package netns

import (
	"errors"
	"fmt"
	"net/netip"
)

// Every sandbox has the same addresses and interface names: the namespaces are
// separate, and the listener that accepted a connection identifies the sandbox.
const (
	BoxLink  = "eth0" // BOX's end of the veth
	GateLink = "gate" // GATE's end of the veth

	PrefixLen = 30 // of the network that holds BoxIP and GateIP

	ProxyPort = 15001 // TCP port of the catch-all listener in GATE
	DNSPort   = 53    // UDP port of the DNS socket in GATE
)

// The two ends of the cable.
var (
	BoxIP  = netip.AddrFrom4([4]byte{10, 200, 0, 2}) // address of eth0 in BOX
	GateIP = netip.AddrFrom4([4]byte{10, 200, 0, 1}) // address of gate in GATE, BOX's router and name server
)

// ErrExists is matched by the error of Setup when the ID is taken.
var ErrExists = errors.New("gate exists already")

// maxID bounds an ID so that it, and a suffix for a temporary name, fit into a
// file name (255 bytes).
const maxID = 160

// CheckID reports whether id can name a sandbox: 1 to 160 ASCII letters,
// digits and "._:-", the first of them a letter or digit. Such an ID is a file
// name as it stands, and never ".", "..", hidden or an option.
func CheckID(id string) error {
	if len(id) == 0 || len(id) > maxID {
		return fmt.Errorf("id %.16q: length %d is not in 1..%d", id, len(id), maxID)
	}
	for i := range len(id) {
		c := id[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case i > 0 && (c == '.' || c == '_' || c == ':' || c == '-'):
		default:
			return fmt.Errorf("id %q: byte %q at %d is not allowed", id, c, i)
		}
	}
	return nil
}
