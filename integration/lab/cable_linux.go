package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Cable joins the caller's network namespace with another one by a plain veth: the link called name, with the address here, and eth0 over
// there, with the address there. remove takes it away.
func Cable(name string, here netip.Prefix, box *os.File, there netip.Prefix) (remove func() error, err error) {
	far := netns.NsHandle(box.Fd())
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerNamespace: netlink.NsFd(far)}
	if err := netlink.LinkAdd(veth); err != nil {
		return nil, fmt.Errorf("create veth %s: %w", name, err)
	}
	remove = func() error { return netlink.LinkDel(veth) }
	ours, err := netlink.NewHandle()
	if err != nil {
		return nil, errors.Join(err, remove())
	}
	defer ours.Close()
	theirs, err := netlink.NewHandleAt(far)
	if err != nil {
		return nil, errors.Join(err, remove())
	}
	defer theirs.Close()
	if _, err = configure(ours, name, here.String()); err == nil {
		_, err = configure(theirs, "eth0", there.String())
	}
	if err != nil {
		return nil, errors.Join(err, remove())
	}
	return remove, nil
}
