package netns

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/netns/netnstest"
)

// An engine finds the namespace by the thread's number and puts an interface there; the caller's stays as it is.
func TestUplinkIsFoundByItsThread(t *testing.T) {
	netnstest.Run(t, func(t *testing.T) {
		u, err := NewUplink()
		must(t, err)
		defer func() { must(t, u.Close()) }()
		if u.Thread() == os.Getpid() {
			t.Fatal("the uplink's thread is the main one")
		}
		found, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", u.Thread()))
		must(t, err)
		defer found.Close()
		if !sameNS(t, found, u.NS()) {
			t.Error("the thread is in another namespace")
		}
		for _, path := range []string{"/proc/self/ns/net", ownNet} {
			own, err := os.Open(path)
			must(t, err)
			if sameNS(t, own, u.NS()) {
				t.Errorf("%s is the uplink", path)
			}
			own.Close()
		}
		if links, err := u.Links(); err != nil || len(links) != 0 {
			t.Errorf("new uplink has %v, %v", links, err)
		}
		must(t, Do(found, func() error {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = "cni0"
			veth := netlink.NewVeth(attrs)
			veth.PeerName = "cni1"
			return netlink.LinkAdd(veth)
		}))
		u.Leave()
		u.Leave()
		links, err := u.Links()
		slices.Sort(links)
		if err != nil || !slices.Equal(links, []string{"cni0", "cni1"}) {
			t.Errorf("uplink has %v, %v, want cni0 and cni1", links, err)
		}
	})
}

// The thread ends with Leave, whatever thread the caller is on, and however many there are.
func TestUplinksEndTheirThreads(t *testing.T) {
	netnstest.Run(t, func(t *testing.T) {
		for range 50 {
			u, err := NewUplink()
			must(t, err)
			tid := u.Thread()
			must(t, u.Close())
			for end := time.Now().Add(patience); unix.Tgkill(os.Getpid(), tid, 0) != unix.ESRCH; <-time.After(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("thread %d does not end", tid)
				}
			}
		}
	})
}

func sameNS(t *testing.T, a, b *os.File) bool {
	t.Helper()
	x, err := a.Stat()
	must(t, err)
	y, err := b.Stat()
	must(t, err)
	return os.SameFile(x, y)
}
