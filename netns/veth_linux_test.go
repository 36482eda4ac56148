package netns

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/netns/netnstest"
)

func TestAttachFailsCleanly(t *testing.T) {
	netnstest.Run(t, func(t *testing.T) {
		dir := t.TempDir()
		g, err := Setup(t.Context(), dir, "a")
		must(t, err)
		defer func() { must(t, Teardown(dir, "a")) }()
		defer g.Close()

		// An engine was there first.
		taken := newNS(t)
		must(t, Do(taken, func() error { return netlink.LinkAdd(pair("eth0", "x")) }))
		if err := g.Attach(taken); !errors.Is(err, unix.EEXIST) {
			t.Errorf("with an eth0 in box: %v, want EEXIST", err)
		}
		if got := names(t, g.ns); !slices.Equal(got, []string{"lo"}) {
			t.Errorf("gate has %v, want lo", got)
		}
		// BOX's half cannot be configured: its default route is taken.
		taken = newNS(t)
		must(t, Do(taken, func() error {
			if err := netlink.LinkSetUp(index(loIndex)); err != nil {
				return err
			}
			return netlink.RouteAdd(&netlink.Route{LinkIndex: loIndex, Dst: anyIP.Dst, Scope: netlink.SCOPE_LINK})
		}))
		if err := g.Attach(taken); err == nil || !strings.HasPrefix(err.Error(), "box: add default route via 10.200.0.1: ") {
			t.Errorf("with a default route in box: %v", err)
		}
		if got := names(t, g.ns); !slices.Equal(got, []string{"lo"}) {
			t.Errorf("gate has %v, want lo", got)
		}
		// The caller's own namespace, also by another name, and GATE itself.
		own, err := os.Open("/proc/self/ns/net")
		must(t, err)
		defer own.Close()
		pinned := filepath.Join(t.TempDir(), "own")
		must(t, os.WriteFile(pinned, nil, 0o600))
		must(t, unix.Mount(ownNet, pinned, "", unix.MS_BIND, ""))
		defer func() { must(t, dropPin(pinned)) }()
		alias, err := os.Open(pinned)
		must(t, err)
		defer alias.Close()
		for _, ns := range []*os.File{own, alias, g.ns} {
			before := names(t, ns)
			if err := g.Attach(ns); err == nil || !strings.HasPrefix(err.Error(), "box "+ns.Name()+" is the ") {
				t.Errorf("with %s: %v", ns.Name(), err)
			}
			if got := names(t, ns); !slices.Equal(got, before) {
				t.Errorf("%s has %v, want %v as before", ns.Name(), got, before)
			}
		}
		// Not a namespace.
		file, err := os.CreateTemp(t.TempDir(), "")
		must(t, err)
		defer file.Close()
		if err := g.Attach(file); err == nil {
			t.Error("Attach to a file succeeds")
		}
		// And then it works, once.
		box := newNS(t)
		must(t, g.Attach(box))
		must(t, g.Verify(box))
		if err := g.Attach(newNS(t)); !errors.Is(err, unix.EEXIST) {
			t.Errorf("a second Attach: %v, want EEXIST", err)
		}
		must(t, g.Verify(box))
	})
}

// pair is a veth pair, both ends here.
func pair(a, b string) *netlink.Veth {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = a
	v := netlink.NewVeth(attrs)
	v.PeerName = b
	return v
}

func TestVerifyNamesTheStranger(t *testing.T) {
	for _, row := range []struct {
		name   string
		damage func(t *testing.T, l *lab) error
		want   string
	}{
		{"a second veth in box", func(t *testing.T, l *lab) error {
			other := newNS(t)
			v := pair("eth1", "far")
			v.PeerNamespace = netlink.NsFd(int(other.Fd()))
			return Do(l.box, func() error { return netlink.LinkAdd(v) })
		}, `box has an extra interface "eth1"`},
		{"a bridge in box", func(t *testing.T, l *lab) error {
			return Do(l.box, func() error {
				attrs := netlink.NewLinkAttrs()
				attrs.Name = "docker0"
				err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs})
				if errors.Is(err, unix.EOPNOTSUPP) {
					netnstest.Skip(t, "bridge", err.Error())
				}
				return err
			})
		}, `box has an extra interface "docker0"`},
		{"an uplink in gate", func(t *testing.T, l *lab) error {
			other := newNS(t)
			v := pair("wan", "far")
			v.PeerNamespace = netlink.NsFd(int(other.Fd()))
			return l.g.Do(func() error { return netlink.LinkAdd(v) })
		}, `gate has an extra interface "wan"`},
		{"eth0 renamed", func(t *testing.T, l *lab) error {
			return Do(l.box, func() error {
				eth0, err := netlink.LinkByName(BoxLink)
				if err != nil {
					return err
				}
				if err := netlink.LinkSetDown(eth0); err != nil {
					return err
				}
				return netlink.LinkSetName(eth0, "net0")
			})
		}, `box has an extra interface "net0"`},
		{"eth0 gone", func(t *testing.T, l *lab) error {
			return Do(l.box, func() error { return netlink.LinkDel(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: BoxLink}}) })
		}, `box has no interface "eth0"`},
		{"eth0 moved away and another in its place", func(t *testing.T, l *lab) error {
			other := newNS(t)
			v := pair("eth0", "far")
			v.PeerNamespace = netlink.NsFd(int(other.Fd()))
			return Do(l.box, func() error {
				eth0, err := netlink.LinkByName(BoxLink)
				if err != nil {
					return err
				}
				if err := netlink.LinkSetNsFd(eth0, int(other.Fd())); err != nil {
					return err
				}
				v.Attrs().Index = eth0.Attrs().Index // even the number is the same
				return netlink.LinkAdd(v)
			})
		}, `box interface "eth0" is not the other end of "gate"`},
		{"gate's end replaced", func(t *testing.T, l *lab) error {
			other := newNS(t)
			v := pair("gate", "far")
			v.PeerNamespace = netlink.NsFd(int(other.Fd()))
			if err := l.g.Do(func() error {
				gate, err := netlink.LinkByName(GateLink)
				if err != nil {
					return err
				}
				if err := netlink.LinkSetNsFd(gate, int(other.Fd())); err != nil {
					return err
				}
				return netlink.LinkAdd(v)
			}); err != nil {
				return err
			}
			return nil
		}, `box interface "eth0" is not the other end of "gate"`},
		{"another box", func(t *testing.T, l *lab) error {
			l.box = newLab(t).box
			return nil
		}, `box interface "eth0" is not the other end of "gate"`},
	} {
		t.Run(row.name, func(t *testing.T) {
			netnstest.Run(t, func(t *testing.T) {
				l := newLab(t)
				must(t, row.damage(t, l))
				if err := l.g.Verify(l.box); err == nil || err.Error() != row.want {
					t.Errorf("got %v, want %q", err, row.want)
				}
			})
		})
	}
}

// BOX may belong to the container's own user namespace.
func TestBoxOfAnotherUserNamespace(t *testing.T) {
	netnstest.Run(t, func(t *testing.T) {
		cmd := exec.Command("sleep", "1000")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}},
			Pdeathsig:   syscall.SIGKILL,
		}
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		must(t, cmd.Start())
		defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()

		dir := t.TempDir()
		g, err := Setup(t.Context(), dir, "a")
		must(t, err)
		defer func() { must(t, g.Close()); must(t, Teardown(dir, "a")) }()
		box, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid))
		must(t, err)
		defer box.Close()
		must(t, g.Attach(box))
		must(t, g.Verify(box))
		l, err := g.Listen()
		must(t, err)
		defer l.Close()
		ln, err := net.FileListener(l.TCP)
		must(t, err)
		defer ln.Close()
		b := &lab{g: g, box: box, tcp: ln.(*net.TCPListener)}
		b.arrives(t, "8.8.8.8:443")
	})
}

// A BOX that is made is whole before anybody joins it, and ends with its file, and the veth with it.
func TestMakeBox(t *testing.T) {
	netnstest.Run(t, func(t *testing.T) {
		g, err := New(t.Context())
		must(t, err)
		defer g.Close()
		box, err := g.MakeBox()
		must(t, err)
		if err := g.Verify(box); err != nil {
			t.Error(err)
		}
		if got := names(t, box); !slices.Equal(got, []string{"lo", "eth0"}) {
			t.Errorf("box has %v, want lo and eth0", got)
		}
		if _, err := g.MakeBox(); !errors.Is(err, unix.EEXIST) {
			t.Errorf("a second box: %v, want EEXIST", err)
		}
		if err := g.Verify(box); err != nil {
			t.Errorf("after a second box was tried: %v", err)
		}
		must(t, box.Close())
		for end := time.Now().Add(10 * time.Second); len(names(t, g.ns)) > 1; <-time.After(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("gate has %v, want lo", names(t, g.ns))
			}
		}
	})
}
