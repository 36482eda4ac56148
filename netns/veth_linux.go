package netns

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Attach plugs the veth in: "gate" in GATE, "eth0" in BOX, with addresses and
// routes, and returns once it carries packets. box is an open network
// namespace, such as /proc/PID/ns/net; it may belong to a user namespace below
// the caller's. The pair is created from GATE with its far end in BOX, so it
// passes through no other namespace. On error there is no veth.
//
// A BOX that is the caller's own namespace (a container with the host's
// network) or GATE itself is refused before anything changes.
func (g *Gate) Attach(box *os.File) error {
	if err := g.checkBox(box); err != nil {
		return err
	}
	// A netlink socket belongs to a namespace for life: with one in each, the
	// rest needs no thread in either.
	var inGate, inBox *netlink.Handle
	if err := g.Do(func() (err error) {
		inGate, err = openNetlink()
		return err
	}); err != nil {
		return err
	}
	defer inGate.Close()
	if err := Do(box, func() (err error) {
		// Before eth0, which is born with them.
		if err = (steps{{"box's sysctls", BoxSysctls().apply}}).run("veth"); err == nil {
			inBox, err = openNetlink()
		}
		return err
	}); err != nil {
		return fmt.Errorf("box: %w", err)
	}
	defer inBox.Close()

	gate := 0
	err := steps{
		{"cable", func() (err error) { gate, err = createVeth(inGate, box); return err }},
		{"gate's end", func() error { return configureGate(inGate, gate) }},
		{"box's end", func() error {
			if err := configureBox(inBox); err != nil {
				return fmt.Errorf("box: %w", err)
			}
			return nil
		}},
		{"carrier", func() error { return waitUp(inGate, gate) }},
	}.run("veth")
	if err != nil && gate != 0 {
		_ = inGate.LinkDel(index(gate))
	}
	return err
}

// MakeBox makes a BOX for a container to join, and plugs it in as Attach does. Like a GATE of New it is pinned nowhere: it ends with the returned
// file, which the caller closes, and with those who have joined it. It belongs to the caller's user namespace.
func (g *Gate) MakeBox() (box *os.File, err error) {
	err = onThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("create network namespace: %w", err)
		}
		box, err = os.Open(ownNet)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("box: %w", err)
	}
	if err := g.Attach(box); err != nil {
		box.Close()
		return nil, err
	}
	return box, nil
}

// checkBox refuses namespaces that must not become a BOX.
func (g *Gate) checkBox(box *os.File) error {
	own, err := os.Stat(ownNet)
	if err != nil {
		return fmt.Errorf("find own network namespace: %w", err)
	}
	gate, err := g.ns.Stat()
	if err != nil {
		return fmt.Errorf("find gate: %w", err)
	}
	b, err := box.Stat()
	switch {
	case err != nil:
		return fmt.Errorf("find box: %w", err)
	case os.SameFile(b, own):
		return fmt.Errorf("box %s is the caller's own network namespace", box.Name())
	case os.SameFile(b, gate):
		return fmt.Errorf("box %s is the gate", box.Name())
	}
	return nil
}

// openNetlink opens a socket for links, addresses and routes in the calling
// thread's namespace. Its operations return the error of the kernel, which
// names none of its operands: callers add them.
func openNetlink() (*netlink.Handle, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return h, nil
}

// createVeth creates the pair and returns the interface index of GATE's end,
// which is up already.
func createVeth(inGate *netlink.Handle, box *os.File) (int, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = GateLink
	attrs.Flags = net.FlagUp
	// One queue: the driver takes no lock per queue, and would make one per CPU.
	attrs.NumTxQueues, attrs.NumRxQueues = 1, 1
	veth := netlink.NewVeth(attrs)
	veth.PeerName = BoxLink
	veth.PeerNamespace = netlink.NsFd(int(box.Fd()))
	veth.PeerNumTxQueues, veth.PeerNumRxQueues = 1, 1
	err := inGate.LinkAdd(veth)
	runtime.KeepAlive(box)
	if err != nil {
		return 0, fmt.Errorf("create veth %s to %s: %w", GateLink, BoxLink, err)
	}
	if veth.Index == 0 { // LinkAdd looks it up, and keeps silent if it cannot
		l, err := inGate.LinkByName(GateLink)
		if err != nil {
			return 0, fmt.Errorf("find %s: %w", GateLink, err)
		}
		return l.Attrs().Index, nil
	}
	return veth.Index, nil
}

func configureGate(h *netlink.Handle, gate int) error {
	if err := h.AddrAdd(index(gate), address(GateIP)); err != nil {
		return fmt.Errorf("add address %s to %s: %w", GateIP, GateLink, err)
	}
	// More specific than AnyIP in the same table: the way back to the box.
	if err := h.RouteAdd(&netlink.Route{
		LinkIndex: gate,
		Dst:       &net.IPNet{IP: BoxIP.AsSlice(), Mask: net.CIDRMask(32, 32)},
		Table:     unix.RT_TABLE_LOCAL,
		Type:      unix.RTN_UNICAST,
		Scope:     netlink.SCOPE_LINK,
	}); err != nil {
		return fmt.Errorf("add route %s dev %s: %w", BoxIP, GateLink, err)
	}
	return nil
}

func configureBox(h *netlink.Handle) error {
	eth0, err := h.LinkByName(BoxLink)
	if err != nil {
		return fmt.Errorf("find %s: %w", BoxLink, err)
	}
	if err := h.LinkSetUp(index(loIndex)); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	if err := h.AddrAdd(eth0, address(BoxIP)); err != nil {
		return fmt.Errorf("add address %s to %s: %w", BoxIP, BoxLink, err)
	}
	if err := h.LinkSetUp(eth0); err != nil {
		return fmt.Errorf("set %s up: %w", BoxLink, err)
	}
	if err := h.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: GateIP.AsSlice()}); err != nil {
		return fmt.Errorf("add default route via %s: %w", GateIP, err)
	}
	return nil
}

// waitUp waits until a link can send. eth0, set up last, had its carrier from
// the start; gate got its carrier then, and drops what it is to send until a
// worker of the kernel (linkwatch) has noticed. That would be the answer to
// the box's first ARP request, which is repeated a second later. Asking for
// the link makes newer kernels do the work at once.
func waitUp(h *netlink.Handle, link int) error {
	for end := time.Now().Add(upTimeout); ; <-time.After(50 * time.Microsecond) {
		l, err := h.LinkByIndex(link)
		if err != nil {
			return fmt.Errorf("find %s: %w", GateLink, err)
		}
		if l.Attrs().OperState == netlink.OperUp {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("wait for %s: state is %s", GateLink, l.Attrs().OperState)
		}
	}
}

// upTimeout bounds what takes microseconds, or as long as others hold the
// kernel's lock on links (rtnl).
const upTimeout = 5 * time.Second

// index names a link by its interface index alone.
func index(i int) netlink.Link {
	return &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: i}}
}

func address(ip netip.Addr) *netlink.Addr {
	return &netlink.Addr{IPNet: &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(PrefixLen, 32)}}
}
