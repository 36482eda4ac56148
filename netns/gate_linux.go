package netns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/netns/fault"
)

// A Gate is an open GATE: it keeps the namespace alive until it is closed. Its
// methods may be called concurrently, except Close.
type Gate struct {
	ns *os.File
}

// anyIP is the route that makes every address one of GATE's own. It must lie in
// the table "local": the kernel looks for the source address of its answers
// there and nowhere else.
var anyIP = netlink.Route{
	LinkIndex: loIndex,
	Dst:       &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
	Table:     unix.RT_TABLE_LOCAL,
	Type:      unix.RTN_LOCAL,
	Scope:     netlink.SCOPE_HOST,
}

// Setup makes GATE for the sandbox id and pins it as a bind mount at dir/id in
// the caller's mount namespace; dir is created if need be. The error matches
// ErrExists if there is such a pin already. On error nothing is left behind.
// If the caller is killed half-way, Teardown removes what there is.
//
// It needs CAP_SYS_ADMIN and CAP_NET_ADMIN in the caller's user namespace,
// which then owns GATE. The caller closes the Gate.
func Setup(ctx context.Context, dir, id string) (*Gate, error) {
	if err := CheckID(id); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create gate folder: %w", err)
	}
	path := filepath.Join(dir, id)
	pin, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o400)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("create gate %s: %w", path, ErrExists)
	}
	if err != nil {
		return nil, fmt.Errorf("create gate: %w", err)
	}
	pin.Close()

	var g *Gate
	if err = fault.Point("gate", "file to pin it at"); err == nil {
		g, err = makeGate(path)
	}
	if err == nil && ctx.Err() != nil {
		g.Close()
		err = ctx.Err()
	}
	if err != nil {
		return nil, errors.Join(err, dropPin(path))
	}
	return g, nil
}

// New makes a GATE that is pinned nowhere: it ends with the last that holds it,
// which are the returned Gate, and sockets that were opened in it. So there is
// nothing to tear down after whoever made it was killed. It needs the rights
// that Setup needs, but no folder. The caller closes the Gate.
func New(ctx context.Context) (*Gate, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return makeGate("")
}

// makeGate makes the namespace and, unless path is empty, mounts it over the
// file at path, first of all: from then on Teardown can find it.
func makeGate(path string) (*Gate, error) {
	var ns *os.File
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("create network namespace: %w", err)
		}
		h, err := openNetlink()
		if err != nil {
			return err
		}
		defer h.Close()
		return steps{
			{"namespace", func() (err error) {
				if path == "" {
					ns, err = os.Open(ownNet)
				} else if err = unix.Mount(ownNet, path, "", unix.MS_BIND, ""); err != nil {
					err = fmt.Errorf("pin network namespace at %s: %w", path, err)
				} else {
					ns, err = openPin(path)
				}
				return err
			}},
			{"sysctls", GateSysctls().apply},
			{"lo", func() error {
				if err := h.LinkSetUp(index(loIndex)); err != nil {
					return fmt.Errorf("set lo up: %w", err)
				}
				return nil
			}},
			{"AnyIP", func() error {
				if err := h.RouteAdd(&anyIP); err != nil {
					return fmt.Errorf("add route local 0.0.0.0/0: %w", err)
				}
				return nil
			}},
		}.run("gate")
	})
	if err == nil {
		err = steps{{"rules", func() error { return Rules().apply(ns) }}}.run("gate")
	}
	if err != nil {
		if ns != nil {
			ns.Close()
		}
		return nil, err
	}
	return &Gate{ns: ns}, nil
}

// Open opens the GATE pinned at dir/id. The error matches fs.ErrNotExist if
// there is none. The caller closes the Gate. What a Setup left that was killed
// half-way may open too, without its rules: use a Gate whose Setup returned, and
// tear down the others.
func Open(dir, id string) (*Gate, error) {
	if err := CheckID(id); err != nil {
		return nil, err
	}
	ns, err := openPin(filepath.Join(dir, id))
	if err != nil {
		return nil, err
	}
	return &Gate{ns: ns}, nil
}

// steps are what there is to do, in this order. Each but the last leaves
// something to the next, at which whoever does them may be killed.
type steps []struct {
	name string
	do   func() error
}

// run does them until one fails. kind is what they make: after each there is a
// fault point.
func (all steps) run(kind string) error {
	for _, s := range all {
		if err := s.do(); err != nil {
			return err
		}
		if err := fault.Point(kind, s.name); err != nil {
			return err
		}
	}
	return nil
}

// Do runs f inside GATE, see [Do].
func (g *Gate) Do(f func() error) error { return Do(g.ns, f) }

// Close closes the handle; GATE lives on, pinned, until Teardown.
func (g *Gate) Close() error { return g.ns.Close() }

// List returns the IDs that are pinned in dir, sorted, including those whose
// Setup was killed half-way. A missing dir holds none.
func List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list gates: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if CheckID(e.Name()) == nil && e.Type().IsRegular() {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}
