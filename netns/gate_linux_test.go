package netns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/netns/netnstest"
)

// I1: nothing of the caller's namespace changes, not even for an instant: its
// kernel would tell those who watch.
func TestCallersNamespaceIsUntouched(t *testing.T) {
	netnstest.Run(t, func(t *testing.T) {
		must(t, onThread(func() error { return sysctl("net.ipv4.ip_forward", "1") }))
		before := snapshot(t)
		route := watch(t, unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE,
			unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_NETCONF)
		nft := watch(t, unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)

		dir := t.TempDir()
		box := newNS(t)
		g, err := Setup(t.Context(), dir, "a")
		must(t, err)
		must(t, g.Attach(box))
		l, err := g.Listen()
		must(t, err)
		must(t, g.Verify(box))
		_, err = g.Counters()
		must(t, err)
		must(t, Teardown(dir, "a")) // with the veth deleted
		must(t, l.Close())
		must(t, g.Close())

		if n := heard(t, route); n != 0 {
			t.Errorf("%d messages about links, addresses or routes", n)
		}
		if n := heard(t, nft); n != 0 {
			t.Errorf("%d messages about nft", n)
		}
		if diff := cmp.Diff(before, snapshot(t)); diff != "" {
			t.Errorf("caller's namespace changed (-before +after):\n%s", diff)
		}

		// The control: the watchers hear what does happen here.
		must(t, netlink.LinkSetUp(index(loIndex)))
		ns, err := os.Open(ownNet)
		must(t, err)
		defer ns.Close()
		must(t, Rules().apply(ns))
		if heard(t, route) == 0 || heard(t, nft) == 0 {
			t.Error("the watchers are deaf")
		}
		if cmp.Equal(before, snapshot(t)) {
			t.Error("the snapshot is blind")
		}
	})
}

// watch subscribes to multicast groups of netlink.
func watch(t *testing.T, family int, groups ...int) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, family)
	must(t, err)
	t.Cleanup(func() { _ = unix.Close(fd) })
	must(t, unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	for _, g := range groups {
		must(t, unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g))
	}
	return fd
}

// heard counts the messages that have come.
func heard(t *testing.T, fd int) (n int) {
	t.Helper()
	b := make([]byte, 1<<16)
	for {
		_, _, err := unix.Recvfrom(fd, b, 0)
		if errors.Is(err, unix.EAGAIN) {
			return n
		}
		must(t, err)
		n++
	}
}

// snapshot is the state of the caller's namespace.
func snapshot(t *testing.T) map[string]string {
	t.Helper()
	s := map[string]string{}
	for _, args := range [][]string{
		{"ip", "-d", "-o", "link"},
		{"ip", "-o", "addr"},
		{"ip", "route", "show", "table", "all"},
		{"ip", "rule"},
		{"ip", "-6", "route", "show", "table", "all"},
		{"nft", "list", "ruleset"},
	} {
		if path := netnstest.Program(args[0]); path != "" {
			out, err := exec.Command(path, args[1:]...).CombinedOutput()
			must(t, err)
			s[strings.Join(args, " ")] = string(out)
		}
	}
	for _, c := range append(GateSysctls(), BoxSysctls()...) {
		b, _ := os.ReadFile(c.path())
		s[c.Key] = string(b)
	}
	return s
}

func TestGateHoldsLoAndGate(t *testing.T) {
	netnstest.Run(t, func(t *testing.T) {
		l := newLab(t)
		if got, want := names(t, l.g.ns), []string{"lo", "gate"}; !slices.Equal(got, want) {
			t.Errorf("gate has %v, want %v", got, want)
		}
		if got, want := names(t, l.box), []string{"lo", "eth0"}; !slices.Equal(got, want) {
			t.Errorf("box has %v, want %v", got, want)
		}
	})
}

func TestSetupRefuses(t *testing.T) {
	netnstest.Run(t, func(t *testing.T) {
		dir := t.TempDir()
		g, err := Setup(t.Context(), dir, "a")
		must(t, err)
		defer g.Close()
		defer func() { must(t, Teardown(dir, "a")) }()
		if _, err := Setup(t.Context(), dir, "a"); !errors.Is(err, ErrExists) {
			t.Errorf("a second Setup: %v, want ErrExists", err)
		}
		again, err := Open(dir, "a") // which must not have harmed the first
		must(t, err)
		must(t, again.Do(func() error { return nil }))
		must(t, again.Close())

		file := filepath.Join(dir, "file")
		must(t, os.WriteFile(file, nil, 0o600))
		if _, err := Setup(t.Context(), file, "a"); err == nil {
			t.Error("Setup in a file succeeds")
		}
		for _, id := range []string{"", "..", "a/b"} {
			if _, err := Setup(t.Context(), dir, id); err == nil {
				t.Errorf("Setup(%q) succeeds", id)
			}
			if _, err := Open(dir, id); err == nil {
				t.Errorf("Open(%q) succeeds", id)
			}
			if err := Teardown(dir, id); err == nil {
				t.Errorf("Teardown(%q) succeeds", id)
			}
		}
		if _, err := Open(dir, "file"); err == nil {
			t.Error("Open of a plain file succeeds")
		}
		if _, err := Open(dir, "b"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Open of nothing: %v, want fs.ErrNotExist", err)
		}
	})
}

// I8: a Setup that fails, at whatever step, leaves nothing.
func TestSetupFailsCleanly(t *testing.T) {
	for _, row := range []struct {
		name   string
		damage func(t *testing.T) context.Context
		want   string
	}{
		{"no more namespaces", func(t *testing.T) context.Context {
			must(t, os.WriteFile("/proc/sys/user/max_net_namespaces", []byte("0"), 0))
			return t.Context()
		}, "create network namespace: no space left on device"},
		{"a missing sysctl", func(t *testing.T) context.Context {
			must(t, unix.Mount(t.TempDir(), "/proc/sys/net", "", unix.MS_BIND, ""))
			return t.Context()
		}, "set sysctl net.ipv4.ip_forward=0: no such file or directory"},
		{"read-only sysctls", func(t *testing.T) context.Context { // as in a container
			must(t, unix.Mount("/proc/sys", "/proc/sys", "", unix.MS_BIND, ""))
			must(t, unix.Mount("", "/proc/sys", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""))
			return t.Context()
		}, "set sysctl net.ipv4.ip_forward=0: read-only file system"},
		{"cancelled", func(t *testing.T) context.Context {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			return ctx
		}, "context canceled"},
	} {
		t.Run(row.name, func(t *testing.T) {
			netnstest.Run(t, func(t *testing.T) {
				dir := t.TempDir()
				ctx := row.damage(t)
				g, err := Setup(ctx, dir, "a")
				if err == nil {
					g.Close()
				}
				if err == nil || err.Error() != row.want {
					t.Errorf("got %v, want %q", err, row.want)
				}
				if got := entries(t, dir); len(got) != 0 {
					t.Errorf("left behind: %v", got)
				}
				mounts, err := os.ReadFile("/proc/self/mounts")
				must(t, err)
				if strings.Contains(string(mounts), dir) {
					t.Errorf("left mounted:\n%s", mounts)
				}
			})
		})
	}
}

// The same for each step that opens a file: descriptors run out one step later
// every time, until there are enough.
func TestDescriptorsRunOut(t *testing.T) {
	netnstest.Run(t, func(t *testing.T) {
		dir, box := t.TempDir(), newNS(t)
		limited := func(n uint64, f func() error) error {
			var was unix.Rlimit
			must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &was))
			must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: was.Max}))
			defer func() { must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &was)) }()
			return f()
		}
		var g *Gate
		failed := map[string]int{}
		for n := uint64(3); g == nil; n++ {
			err := limited(n, func() (err error) { g, err = Setup(t.Context(), dir, "a"); return err })
			if err == nil {
				break
			}
			failed["setup"]++
			if got := entries(t, dir); len(got) != 0 {
				t.Fatalf("with %d descriptors: %v; left behind: %v", n, err, got)
			}
			if n > 1000 {
				t.Fatal(err)
			}
		}
		t.Cleanup(func() { g.Close(); must(t, Teardown(dir, "a")) })
		for n := uint64(3); ; n++ {
			err := limited(n, func() error { return g.Attach(box) })
			if err == nil {
				break
			}
			failed["attach"]++
			if got := names(t, g.ns); !slices.Equal(got, []string{"lo"}) {
				t.Fatalf("with %d descriptors: %v; left in gate: %v", n, err, got)
			}
			if n > 1000 {
				t.Fatal(err)
			}
		}
		must(t, g.Verify(box))
		if failed["setup"] < 3 || failed["attach"] < 2 {
			t.Errorf("failures: %v, want some of each", failed)
		}
	})
}

func TestListenTwice(t *testing.T) {
	netnstest.Run(t, func(t *testing.T) {
		l := newLab(t)
		if _, err := l.g.Listen(); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("a second Listen: %v, want EADDRINUSE", err)
		}
		l.hush()
		var err error
		l.l, err = l.g.Listen()
		must(t, err)
		for _, f := range []*os.File{l.l.TCP, l.l.DNS} {
			raw, err := f.SyscallConn()
			must(t, err)
			must(t, raw.Control(func(fd uintptr) {
				fl, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
				if err != nil || fl&unix.O_NONBLOCK == 0 {
					t.Errorf("%s: flags %x, %v; want O_NONBLOCK", f.Name(), fl, err)
				}
				fl, err = unix.FcntlInt(fd, unix.F_GETFD, 0)
				if err != nil || fl&unix.FD_CLOEXEC == 0 {
					t.Errorf("%s: flags %x, %v; want FD_CLOEXEC", f.Name(), fl, err)
				}
			}))
		}
	})
}

func TestOpenAndList(t *testing.T) {
	netnstest.Run(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "new", "folder")
		got, err := List(dir)
		if err != nil || len(got) != 0 {
			t.Errorf("List of nothing = %v, %v", got, err)
		}
		for _, id := range []string{"b", "default:a"} {
			g, err := Setup(t.Context(), dir, id)
			must(t, err)
			must(t, g.Close())
			t.Cleanup(func() { must(t, Teardown(dir, id)) })
		}
		must(t, os.WriteFile(filepath.Join(dir, ".lock"), nil, 0o600))
		must(t, os.Mkdir(filepath.Join(dir, "folder"), 0o700))
		got, err = List(dir)
		if want := []string{"b", "default:a"}; err != nil || !slices.Equal(got, want) {
			t.Errorf("List = %v, %v; want %v", got, err, want)
		}
		g, err := Open(dir, "default:a")
		must(t, err)
		defer g.Close()
		box := newNS(t)
		must(t, g.Attach(box))
		must(t, g.Verify(box))
	})
}

// I8: a GATE without a pin needs no Teardown. It is like a pinned one, and goes with the last that holds it.
func TestNewEndsWithItsHolder(t *testing.T) {
	netnstest.Run(t, func(t *testing.T) {
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		must(t, err)
		g, err := New(t.Context())
		must(t, err)
		l, err := g.Listen()
		must(t, err)
		box := newNS(t)
		must(t, g.Attach(box))
		must(t, g.Verify(box))
		after, err := os.ReadFile("/proc/self/mountinfo")
		must(t, err)
		if diff := cmp.Diff(string(mounts), string(after)); diff != "" {
			t.Errorf("mounts changed:\n%s", diff)
		}
		must(t, g.Close())
		if got, want := names(t, box), []string{"lo", "eth0"}; !slices.Equal(got, want) {
			t.Errorf("with the listeners open box has %v, want %v", got, want)
		}
		must(t, l.Close())
		// The kernel takes namespaces apart in the background.
		for deadline := time.Now().Add(10 * time.Second); ; <-time.After(time.Millisecond) {
			if got := names(t, box); slices.Equal(got, []string{"lo"}) {
				break
			} else if time.Now().After(deadline) {
				t.Fatalf("box still has %v", got)
			}
		}
	})
}

// Many sandboxes may be made and removed at once by one process.
func TestManyAtOnce(t *testing.T) {
	netnstest.Run(t, func(t *testing.T) {
		dir := t.TempDir()
		one := func(id string, box *os.File) error {
			g, err := Setup(t.Context(), dir, id)
			if err != nil {
				return err
			}
			defer g.Close()
			l, err := g.Listen()
			if err != nil {
				return err
			}
			if err := errors.Join(g.Attach(box), g.Verify(box), l.Close()); err != nil {
				return err
			}
			return Teardown(dir, id)
		}
		const n = 24
		done := make(chan error)
		for i := range n {
			box := newNS(t)
			go func() { done <- one(fmt.Sprintf("box-%d", i), box) }()
		}
		for range n {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if got := entries(t, dir); len(got) != 0 {
			t.Errorf("left behind: %v", got)
		}
	})
}

// Do brings its thread home, whatever becomes of f.
func TestDo(t *testing.T) {
	netnstest.Run(t, func(t *testing.T) {
		ns := newNS(t)
		id := func() string { s, err := os.Readlink(ownNet); must(t, err); return s }
		home := id()
		var inside string
		want := errors.New("as it should")
		if err := Do(ns, func() error { inside = id(); return want }); !errors.Is(err, want) {
			t.Errorf("Do = %v, want f's error", err)
		}
		if inside == home {
			t.Error("f ran at home")
		}
		if err := Do(ns, func() error { runtime.Goexit(); return nil }); !errors.Is(err, errGoexit) {
			t.Errorf("Do = %v, want %v", err, errGoexit)
		}
		// Nested, and many at once.
		other := newNS(t)
		done := make(chan error)
		for range 50 {
			go func() {
				done <- Do(ns, func() error { return Do(other, func() error { return nil }) })
			}()
		}
		for range 50 {
			must(t, <-done)
		}
		for range 100 {
			if got := id(); got != home {
				t.Fatalf("a thread stayed in %s", got)
			}
			runtime.Gosched()
		}
		closed := newNS(t)
		closed.Close()
		if err := Do(closed, func() error { t.Error("f ran"); return nil }); err == nil {
			t.Error("Do in a closed namespace succeeds")
		}
	})
}
