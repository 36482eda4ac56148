package netns

import "fmt"

// A link is what Verify needs to know of an interface.
type link struct {
	name   string
	kind   string // the driver: "veth"; "device" of lo
	index  int
	peer   int // interface index of the other end of a veth
	peerNS int // namespace ID of it, as seen from here; -1: this one
	up     bool
}

// checkLinks says what is wrong with the links of a BOX and its GATE, boxNS
// being BOX's namespace ID as seen from GATE.
func checkLinks(box, gate []link, boxNS int) error {
	eth0, err := onlyLink("box", box, BoxLink)
	if err != nil {
		return err
	}
	end, err := onlyLink("gate", gate, GateLink)
	if err != nil {
		return err
	}
	if boxNS < 0 || end.peerNS != boxNS || end.peer != eth0.index {
		return fmt.Errorf("box interface %q is not the other end of %q", BoxLink, GateLink)
	}
	return nil
}

// onlyLink returns the veth called name, which must be the only link but lo.
func onlyLink(where string, links []link, name string) (link, error) {
	var found link
	for _, l := range links {
		switch {
		case l.name == name && l.kind == "veth":
			found = l
		case l.name == name:
			return link{}, fmt.Errorf("%s interface %q is no veth but of kind %q", where, l.name, l.kind)
		case l.index == loIndex || l.isFallback():
		default:
			return link{}, fmt.Errorf("%s has an extra interface %q", where, l.name)
		}
	}
	if found.name == "" {
		return link{}, fmt.Errorf("%s has no interface %q", where, name)
	}
	return found, nil
}

// loIndex is the interface index of lo in every namespace (LOOPBACK_IFINDEX):
// it cannot be removed, moved or renumbered.
const loIndex = 1

// isFallback tells the idle tunnel devices that a kernel puts into each new
// namespace once a tunnel module is loaded (net.core.fb_tunnels_only_for_init_net),
// and which cannot be removed. They carry packets of this namespace in packets
// of this namespace, and so lead nowhere else; a tunnel of another namespace
// that was moved here would show that one's ID.
func (l link) isFallback() bool {
	return !l.up && l.peerNS == -1 && fallbackKinds[l.name] == l.kind && l.kind != ""
}

// fallbackKinds has the names and kinds of fallback tunnels.
var fallbackKinds = map[string]string{
	"tunl0": "ipip", "gre0": "gre", "gretap0": "gretap", "erspan0": "erspan", "ip_vti0": "vti",
	"sit0": "sit", "ip6tnl0": "ip6tnl", "ip6gre0": "ip6gre", "ip6_vti0": "vti6",
}
