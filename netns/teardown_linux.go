package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Teardown removes the GATE pinned at dir/id, whoever made it and however far
// they got. That there is none is no error, so it may run twice. If it fails,
// the pin is still there, for another try.
//
// Without its pin GATE vanishes as soon as nobody holds it, and the veth with
// it, shortly after in the background. Sockets that are still open in GATE, such
// as the listeners of a proxy that lives on, would keep it: then the veth is
// deleted here and now, which takes some 20 ms. Handles ([Gate]) keep GATE too,
// but carry nothing: close them first.
func Teardown(dir, id string) error {
	if err := CheckID(id); err != nil {
		return err
	}
	path := filepath.Join(dir, id)
	ns, err := openPin(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, errNotNS):
	case err != nil:
		return err
	default:
		err = Do(ns, func() error {
			if n, err := openSockets(); err == nil && n == 0 {
				return nil
			}
			return unplug() // also if the sockets cannot be told
		})
		ns.Close()
		if err != nil {
			return fmt.Errorf("gate %s: %w", path, err)
		}
	}
	return dropPin(path)
}

// openSockets counts the sockets of the calling thread's namespace, of all
// protocols. (The total in /proc/net/sockstat will not do: it includes netlink
// sockets for some time after they were closed.)
func openSockets() (int, error) {
	const path = "/proc/thread-self/net/protocols"
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	// protocol  size sockets  memory press maxhdr  slab module ...
	// TCP       2304      1       0   no     320   yes  kernel ...
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	sum := 0
	for i, line := range lines {
		f := strings.Fields(line)
		if len(f) < 3 || i == 0 && f[2] != "sockets" {
			return 0, fmt.Errorf("read %s: unknown format %q", path, line)
		}
		if i == 0 {
			continue
		}
		n, err := strconv.Atoi(f[2])
		if err != nil {
			return 0, fmt.Errorf("read %s: %w", path, err)
		}
		if n > 0 { // -1: the protocol does not count
			sum += n
		}
	}
	return sum, nil
}

// unplug deletes the veth, if there is one, from the calling thread's GATE.
func unplug() error {
	h, err := openNetlink()
	if err != nil {
		return err
	}
	defer h.Close()
	gate, err := h.LinkByName(GateLink)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find %s: %w", GateLink, err)
	}
	if err := h.LinkDel(gate); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete veth %s: %w", GateLink, err)
	}
	return nil
}
