package lab

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Addresses of the lab. They look public, because the proxy refuses what does not; every other address also ends in INTERNET, and the
// sinks answer on all of them.
const (
	Good     = "45.67.89.10" // good.test and www.good.test
	Bad      = "45.67.89.11" // bad.good.test
	CDN      = "45.67.89.20" // cdn-good.test and cdn-evil.test
	SSH      = "45.67.89.22" // ssh.good.test
	Evil     = "45.67.89.66" // evil.test
	Resolver = resolver      // of UPLINK's resolv.conf
	Metadata = "169.254.169.254"
	Good6    = "2a0e:97c0:2::10"

	Uplink  = "45.67.90.2" // the host's own address in the lab
	Uplink6 = "2a0e:97c0:1::2"

	gateway  = "45.67.90.1"
	gateway6 = "2a0e:97c0:1::1"
	fence    = "45.67.91.254" // off the link
)

// names is the zone of the lab at the start. What is not in it, and not set by Lab.SetName, does not exist.
func names() map[string][]netip.Addr {
	zone := map[string][]netip.Addr{}
	for name, addrs := range map[string][]string{
		"good.test":       {Good},
		"www.good.test":   {Good},
		"bad.good.test":   {Bad},
		"v6.good.test":    {Good6},
		"dual.good.test":  {Good, Good6},
		"ssh.good.test":   {SSH},
		"cdn-good.test":   {CDN},
		"cdn-evil.test":   {CDN},
		"evil.test":       {Evil},
		"meta.good.test":  {Metadata},
		"lo.good.test":    {"127.0.0.1"},
		"lan.good.test":   {"10.1.2.3"},
		"lo6.good.test":   {"::1"},
		"map.good.test":   {"::ffff:127.0.0.1"},
		"mixed.good.test": {"127.0.0.1", Good},
		"dns.google":      {"8.8.8.8"},

		"zero.good.test":      {"0.0.0.0"},
		"zero6.good.test":     {"::"},
		"own.good.test":       {Uplink},
		"own6.good.test":      {Uplink6},
		"meta6.good.test":     {"fd00:ec2::254"},
		"cgnat.good.test":     {"100.100.100.200"},
		"nat64.good.test":     {"64:ff9b::a9fe:a9fe"},
		"nat64-own.good.test": {"64:ff9b:1::a9fe:a9fe"},
		"6to4.good.test":      {"2002:a9fe:a9fe::1"},
		"teredo.good.test":    {"2001:0:2d43:5942::1"},
		"compat.good.test":    {"::169.254.169.254"},
		"isatap.good.test":    {"2a0e:97c0:ffff::5efe:a9fe:a9fe"},
		"site.good.test":      {"fec0::1"},
		"flip.good.test":      {"192.0.2.1", "127.0.0.1"},
	} {
		for _, a := range addrs {
			zone[name] = append(zone[name], netip.MustParseAddr(a))
		}
	}
	return zone
}

// aliases are the names of the zone that are CNAMEs, with what they stand for.
var aliases = map[string]string{"alias.good.test": "lo.good.test"}

// flips reports whether each query for a name is answered with the next one of its addresses alone, and not with all.
func flips(name string) bool { return name == "flip.good.test" }

// A Lab is the internet of one test process. Its methods are safe for concurrent use.
type Lab struct {
	CA []byte // certificate of the authority that signs for every name, PEM

	inet    netns.NsHandle
	closers []func() error
	record  recorder
	issue   *authority

	mu     sync.Mutex
	asked  int                               // queries for addresses of names that flip; guarded by mu
	zone   map[string][]netip.Addr           // guarded by mu
	sites  map[string]http.Handler           // by host, see Serve; guarded by mu
	shells map[netip.Addr]func(*net.TCPConn) // see ServeSSH; guarded by mu
	below  map[string]string                 // by zone, see Delegate; guarded by mu
}

var (
	once    sync.Once
	current *Lab
	failed  error
)

// Get returns the lab, which the first call builds. It must be called inside (see Main).
func Get(t testing.TB) *Lab {
	t.Helper()
	once.Do(func() { current, failed = build() })
	if failed != nil {
		t.Fatal("build the lab:", failed)
	}
	return current
}

func build() (*Lab, error) {
	l := &Lab{zone: names(), sites: map[string]http.Handler{}, shells: map[netip.Addr]func(*net.TCPConn){}, below: map[string]string{}}
	l.record.init()
	var err error
	if l.issue, err = newAuthority(); err != nil {
		return nil, err
	}
	l.CA = l.issue.pem
	type step struct {
		what string
		do   func() error
	}
	for _, s := range []step{{"namespaces", l.wire}, {"recorder", l.listenFrames}, {"sinks", l.listen}} {
		if err := s.do(); err != nil {
			return nil, fmt.Errorf("%s: %w", s.what, err)
		}
	}
	return l, nil
}

func (l *Lab) close() {
	for _, c := range l.closers {
		c() // the process ends next: nobody could do anything about an error
	}
}

// wire makes INTERNET and the veth that joins it to the process's own namespace, UPLINK.
func (l *Lab) wire() error {
	made := make(chan error)
	go func() { // the thread that has left UPLINK is never unlocked, so it ends with the goroutine
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- os.NewSyscallError("unshare", err)
			return
		}
		ns, err := netns.Get()
		l.inet = ns
		made <- err
	}()
	if err := <-made; err != nil {
		return err
	}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "uplink"}, PeerName: "inet", PeerNamespace: netlink.NsFd(l.inet)}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("create veth uplink: %w", err)
	}
	here, err := netlink.NewHandle()
	if err != nil {
		return err
	}
	defer here.Close()
	there, err := netlink.NewHandleAt(l.inet)
	if err != nil {
		return err
	}
	defer there.Close()
	if err := l.Do(func() error { return quiet("inet") }); err != nil {
		return err
	}
	if err := quiet("uplink"); err != nil {
		return err
	}

	up, err := configure(here, "uplink", Uplink+"/24", Uplink6+"/64")
	if err != nil {
		return err
	}
	inet, err := configure(there, "inet", gateway+"/24", gateway6+"/64")
	if err != nil {
		return err
	}
	for _, gw := range []string{gateway, gateway6} {
		if err := here.RouteAdd(&netlink.Route{LinkIndex: up.Attrs().Index, Gw: net.ParseIP(gw)}); err != nil {
			return fmt.Errorf("default route via %s: %w", gw, err)
		}
	}
	// AnyIP: every address is local in INTERNET but the uplink's own, which must come first in the same table.
	lo, err := there.LinkByName("lo")
	if err != nil {
		return err
	}
	for _, r := range []struct{ own, all string }{{Uplink + "/32", "0.0.0.0/0"}, {Uplink6 + "/128", "::/0"}} {
		own, err := netlink.ParseIPNet(r.own)
		if err != nil {
			return err
		}
		all, err := netlink.ParseIPNet(r.all)
		if err != nil {
			return err
		}
		for _, route := range []*netlink.Route{
			{LinkIndex: inet.Attrs().Index, Dst: own, Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_LINK, Type: unix.RTN_UNICAST},
			{LinkIndex: lo.Attrs().Index, Dst: all, Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST, Type: unix.RTN_LOCAL},
		} {
			if err := there.RouteAdd(route); err != nil {
				return fmt.Errorf("route %v: %w", route, err)
			}
		}
	}
	return nil
}

// quiet keeps a link from saying anything of its own, and from doubting who talks to it.
func quiet(link string) error {
	for key, value := range map[string]string{
		"ipv6/conf/" + link + "/accept_dad":           "0",
		"ipv6/conf/" + link + "/accept_ra":            "0",
		"ipv6/conf/" + link + "/router_solicitations": "0",
		"ipv6/conf/" + link + "/addr_gen_mode":        "1",
		"ipv4/conf/" + link + "/rp_filter":            "0",
		"ipv4/conf/all/rp_filter":                     "0",
	} {
		if err := os.WriteFile("/proc/sys/net/"+key, []byte(value), 0); err != nil {
			return err
		}
	}
	return nil
}

func configure(h *netlink.Handle, name string, addrs ...string) (netlink.Link, error) {
	lo, err := h.LinkByName("lo")
	if err != nil {
		return nil, err
	}
	link, err := h.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find link %s: %w", name, err)
	}
	for _, a := range addrs {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return nil, err
		}
		if addr.IP.To4() == nil {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := h.AddrAdd(link, addr); err != nil {
			return nil, fmt.Errorf("add %s to %s: %w", a, name, err)
		}
	}
	for _, up := range []netlink.Link{lo, link} {
		if err := h.LinkSetUp(up); err != nil {
			return nil, fmt.Errorf("set %s up: %w", up.Attrs().Name, err)
		}
	}
	return link, nil
}

// Do runs fn in INTERNET, on a thread of its own. fn must not start goroutines.
func (l *Lab) Do(fn func() error) error { return doIn(l.inet, fn) }

// DoIn runs fn in the network namespace at path (e.g. /proc/PID/ns/net), on a thread of its own: sockets that it opens and processes that
// it starts are born there. fn must not start goroutines.
func DoIn(path string, fn func() error) error {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer ns.Close()
	return doIn(ns, fn)
}

func doIn(ns netns.NsHandle, fn func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := netns.Set(ns); err != nil {
			done <- fmt.Errorf("enter namespace: %w", err)
			return
		}
		done <- fn()
	}()
	return <-done
}

// SetName makes name resolve to addrs, or, without any, not exist.
func (l *Lab) SetName(name string, addrs ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.zone, name)
	for _, a := range addrs {
		l.zone[name] = append(l.zone[name], netip.MustParseAddr(a))
	}
}

func (l *Lab) lookup(name string) (addrs []netip.Addr, exists bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	addrs, exists = l.zone[name]
	if flips(name) {
		l.asked++
		addrs = addrs[l.asked%len(addrs):][:1]
	}
	return addrs, exists
}
