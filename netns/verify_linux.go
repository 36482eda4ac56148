package netns

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
)

// Verify reports whether BOX holds lo and our eth0, GATE lo and gate, neither
// anything else, and whether the two are the ends of one veth. The error names
// the stranger: `box has an extra interface "eth1"`. Call it right before the
// container starts: an engine may have plugged something in after Attach.
func (g *Gate) Verify(box *os.File) error {
	var inBox, inGate []link
	var boxNS int
	if err := Do(box, func() (err error) {
		inBox, err = links()
		return err
	}); err != nil {
		return fmt.Errorf("list interfaces of box: %w", err)
	}
	if err := g.Do(func() (err error) {
		if inGate, err = links(); err != nil {
			return err
		}
		boxNS, err = namespaceID(box) // after the list, which makes it exist
		return err
	}); err != nil {
		return fmt.Errorf("list interfaces of gate: %w", err)
	}
	return checkLinks(inBox, inGate, boxNS)
}

// links lists the links of the calling thread's namespace.
func links() ([]link, error) {
	h, err := openNetlink()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	all, err := h.LinkList()
	for try := 0; errors.Is(err, netlink.ErrDumpInterrupted) && try < 8; try++ {
		all, err = h.LinkList() // something changed meanwhile
	}
	if err != nil {
		return nil, err
	}
	list := make([]link, len(all))
	for i, l := range all {
		a := l.Attrs()
		list[i] = link{
			name: a.Name, kind: l.Type(), index: a.Index,
			peer: a.ParentIndex, peerNS: a.NetNsID, up: a.Flags&net.FlagUp != 0,
		}
	}
	return list, nil
}

// namespaceID is the number by which the calling thread's namespace knows
// another one, such as that of a veth's other end.
func namespaceID(ns *os.File) (int, error) {
	h, err := openNetlink()
	if err != nil {
		return 0, err
	}
	defer h.Close()
	defer runtime.KeepAlive(ns)
	return h.GetNetNsIdByFd(int(ns.Fd()))
}
