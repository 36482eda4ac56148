//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/integration/outcome"
)

func init() {
	attempts["socket-sweep"] = attempt{": opens a socket of every family and type; OK if one is neither of a Unix domain, nor TCP or UDP, nor for routes, sockets and devices", 0, sweepSockets}
	attempts["stream"] = attempt{"PROTOCOL ADDR:PORT: connects a stream socket of an IP protocol, by number", 2, func(a []string, o *outcome.Outcome) error {
		proto, err := strconv.Atoi(a[0])
		if err != nil {
			return err
		}
		return connected(proto, a[1], nil, o)
	}}
	attempts["stream-with"] = attempt{"OPTION ADDR:PORT: connects a TCP socket with an option, or fastopen", 2, func(a []string, o *outcome.Outcome) error {
		set, ok := options[a[0]]
		if !ok {
			return fmt.Errorf("option %s is not known here", a[0])
		}
		if a[0] == "fastopen" {
			return fastOpen(a[1], o)
		}
		return connected(0, a[1], set, o)
	}}
	attempts["datagram"] = attempt{"PROTOCOL ADDR:PORT BYTES [OPTION]: one datagram of an IP protocol, by number, of so many bytes", 3, func(a []string, _ *outcome.Outcome) error {
		proto, err := strconv.Atoi(a[0])
		if err != nil {
			return err
		}
		size, err := strconv.Atoi(a[2])
		if err != nil {
			return err
		}
		family, to, err := where(a[1])
		if err != nil {
			return err
		}
		s, err := unix.Socket(family, unix.SOCK_DGRAM, proto)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		defer unix.Close(s)
		if err := unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_BROADCAST, 1); err != nil {
			return err
		}
		if len(a) > 3 {
			set, ok := options[a[3]]
			if !ok {
				return fmt.Errorf("option %s is not known here", a[3])
			}
			if err := set(s, family); err != nil {
				return err
			}
		}
		if err := unix.Sendto(s, bytes.Repeat([]byte{'x'}, size), 0, to); err != nil {
			return os.NewSyscallError("sendto", err)
		}
		// A refusal of the gate comes a moment later, as an error of the socket.
		if err := unix.Connect(s, to); err != nil {
			return os.NewSyscallError("connect", err)
		}
		_ = unix.Sendto(s, []byte("x"), 0, to)
		for deadline := time.Now().Add(patience / 30); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			if code, err := unix.GetsockoptInt(s, unix.SOL_SOCKET, unix.SO_ERROR); err == nil && code != 0 {
				return unix.Errno(code)
			}
		}
		return nil
	}}
	attempts["link-new"] = attempt{"KIND: makes a link of it, dummy, bridge, vxlan, wireguard, ipvlan, macvlan or gre", 1, func(a []string, _ *outcome.Outcome) error {
		attrs := netlink.LinkAttrs{Name: "new0"}
		if up, err := outward(nil); err == nil {
			attrs.ParentIndex = up.Index
		}
		link := map[string]netlink.Link{
			"dummy": &netlink.Dummy{LinkAttrs: attrs}, "bridge": &netlink.Bridge{LinkAttrs: attrs}, "wireguard": &netlink.Wireguard{LinkAttrs: attrs},
			"vxlan":  &netlink.Vxlan{LinkAttrs: attrs, VxlanId: 1, Port: 4789, Group: net.IPv4(45, 67, 89, 66)},
			"ipvlan": &netlink.IPVlan{LinkAttrs: attrs}, "macvlan": &netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_BRIDGE},
			"gre": &netlink.Gretun{LinkAttrs: attrs, Local: net.IPv4(10, 200, 0, 2), Remote: net.IPv4(45, 67, 89, 66)},
		}[a[0]]
		if link == nil {
			return fmt.Errorf("link %s is not known here", a[0])
		}
		if a[0] == "dummy" || a[0] == "bridge" || a[0] == "wireguard" || a[0] == "gre" {
			link.Attrs().ParentIndex = 0
		}
		if err := netlink.LinkAdd(link); err != nil {
			return err
		}
		return netlink.LinkDel(link)
	}}
	attempts["neighbour"] = attempt{"LINK ADDR: an entry of its own for the other side", 2, func(a []string, _ *outcome.Outcome) error {
		return setLink(a[0], func(l netlink.Link) error {
			mac := net.HardwareAddr{2, 0, 0, 0, 0, 9}
			return netlink.NeighSet(&netlink.Neigh{LinkIndex: l.Attrs().Index, IP: net.ParseIP(a[1]), HardwareAddr: mac, State: netlink.NUD_PERMANENT})
		})
	}}
	attempts["rule"] = attempt{": a rule for routes", 0, func(_ []string, _ *outcome.Outcome) error {
		rule := netlink.NewRule()
		rule.Table, rule.Priority, rule.Family = unix.RT_TABLE_MAIN, 1, unix.AF_INET
		return netlink.RuleAdd(rule)
	}}
	attempts["nft"] = attempt{": a table of packet rules", 0, func(_ []string, _ *outcome.Outcome) error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "mine"})
		return c.Flush()
	}}
	attempts["xfrm"] = attempt{": an IPsec policy", 0, func(_ []string, _ *outcome.Outcome) error {
		_, to, err := net.ParseCIDR("45.67.89.0/24")
		if err != nil {
			return err
		}
		return netlink.XfrmPolicyAdd(&netlink.XfrmPolicy{Src: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, Dst: to, Dir: netlink.XFRM_DIR_OUT})
	}}
	attempts["address-ioctl"] = attempt{"LINK ADDR: SIOCSIFADDR", 2, func(a []string, _ *outcome.Outcome) error {
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		defer unix.Close(s)
		addr, err := netip.ParseAddr(a[1])
		if err != nil {
			return err
		}
		req, err := unix.NewIfreq(a[0])
		if err != nil {
			return err
		}
		four := addr.As4()
		if err := req.SetInet4Addr(four[:]); err != nil {
			return err
		}
		return os.NewSyscallError("ioctl", unix.IoctlIfreq(s, unix.SIOCSIFADDR, req))
	}}
	attempts["tun"] = attempt{": an interface of its own", 0, func(_ []string, _ *outcome.Outcome) error {
		f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		req, err := unix.NewIfreq("tun0")
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_TUN)
		return os.NewSyscallError("ioctl", unix.IoctlIfreq(int(f.Fd()), unix.TUNSETIFF, req))
	}}
	attempts["unix-any"] = attempt{": connects to every Unix socket that /proc/net/unix lists, and to those of engines", 0, anyUnix}
}

// options of a socket that might have it go another way.
var options = map[string]func(s, family int) error{
	"fastopen": nil,
	"spoof": func(s, _ int) error {
		if err := unix.SetsockoptInt(s, unix.SOL_IP, unix.IP_TRANSPARENT, 1); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
		return os.NewSyscallError("bind", unix.Bind(s, &unix.SockaddrInet4{Addr: [4]byte{45, 67, 90, 77}}))
	},
	"transparent": func(s, _ int) error {
		return os.NewSyscallError("setsockopt", unix.SetsockoptInt(s, unix.SOL_IP, unix.IP_TRANSPARENT, 1))
	},
	"mark": func(s, _ int) error {
		return os.NewSyscallError("setsockopt", unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_MARK, 1))
	},
	"repair": func(s, _ int) error {
		return os.NewSyscallError("setsockopt", unix.SetsockoptInt(s, unix.SOL_TCP, unix.TCP_REPAIR, 1))
	},
	"device": func(s, _ int) error {
		link, err := outward(nil)
		if err != nil {
			return err
		}
		return os.NewSyscallError("setsockopt", unix.SetsockoptString(s, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, link.Name))
	},
	"dont-route": func(s, _ int) error {
		return os.NewSyscallError("setsockopt", unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_DONTROUTE, 1))
	},
	"ttl-1": func(s, _ int) error {
		return os.NewSyscallError("setsockopt", unix.SetsockoptInt(s, unix.SOL_IP, unix.IP_TTL, 1))
	},
	// RFC 791: loose source and record route, of which the destination is the last hop.
	"source-route": func(s, _ int) error {
		return os.NewSyscallError("setsockopt", unix.SetsockoptString(s, unix.SOL_IP, unix.IP_OPTIONS, string([]byte{131, 11, 4, 45, 67, 90, 1, 45, 67, 89, 66, 0})))
	},
	// RFC 8754: a segment routing header with two segments, the last one first.
	"routing-header": func(s, _ int) error {
		header := []byte{0, 4, 4, 1, 1, 0, 0, 0}
		header = append(header, netip.MustParseAddr("2a0e:97c0:ffff::1").AsSlice()...)
		header = append(header, netip.MustParseAddr("2a0e:97c0:1::1").AsSlice()...)
		return os.NewSyscallError("setsockopt", unix.SetsockoptString(s, unix.SOL_IPV6, unix.IPV6_RTHDR, string(header)))
	},
}

// where reads an address with a port.
func where(addr string) (family int, sa unix.Sockaddr, err error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return 0, nil, err
	}
	return sockaddr(to.Addr().String(), int(to.Port()))
}

// connected connects a stream socket, sends something, and hears the answer.
func connected(proto int, addr string, set func(s, family int) error, o *outcome.Outcome) error {
	family, to, err := where(addr)
	if err != nil {
		return err
	}
	s, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	if set != nil {
		if err := set(s, family); err != nil {
			unix.Close(s)
			return err
		}
	}
	limit := unix.NsecToTimeval(patience.Nanoseconds())
	if err := unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil { // of connect, too
		unix.Close(s)
		return err
	}
	if err := unix.Connect(s, to); err != nil {
		unix.Close(s)
		return os.NewSyscallError("connect", err)
	}
	o.Connected = true
	return talkOver(s, o)
}

// fastOpen sends data with the first packet, RFC 7413.
func fastOpen(addr string, o *outcome.Outcome) error {
	family, to, err := where(addr)
	if err != nil {
		return err
	}
	s, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	if err := unix.Sendto(s, []byte("probe\r\n"), unix.MSG_FASTOPEN, to); err != nil {
		unix.Close(s)
		return os.NewSyscallError("sendto", err)
	}
	return talkOver(s, o)
}

// talkOver takes a connected socket.
func talkOver(s int, o *outcome.Outcome) error {
	f := os.NewFile(uintptr(s), "socket")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte("probe\r\n")); err != nil {
		return err
	}
	return hear(c, o)
}

// sweepSockets lists in Reply what could be opened beyond the families that every program needs.
func sweepSockets(_ []string, o *outcome.Outcome) error {
	plain := func(family, typ, proto int) bool {
		switch family {
		case unix.AF_UNIX:
			return true
		case unix.AF_INET, unix.AF_INET6:
			return typ == unix.SOCK_STREAM && (proto == 0 || proto == unix.IPPROTO_TCP) || typ == unix.SOCK_DGRAM && (proto == 0 || proto == unix.IPPROTO_UDP)
		case unix.AF_NETLINK:
			return proto == unix.NETLINK_ROUTE || proto == unix.NETLINK_SOCK_DIAG || proto == unix.NETLINK_KOBJECT_UEVENT
		}
		return false
	}
	protocols := []int{0, 1, 2, 3, 4, 6, 9, 12, 15, 16, 17, 20, 21, 33, 58, 115, 132, 136, 255, 256, 0x0300}
	for family := range 64 {
		for _, typ := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_RAW, unix.SOCK_RDM, unix.SOCK_SEQPACKET, 6, unix.SOCK_PACKET} {
			for _, proto := range protocols {
				s, err := unix.Socket(family, typ, proto)
				if err != nil {
					continue
				}
				unix.Close(s)
				if !plain(family, typ, proto) {
					o.Reply += fmt.Sprintf("%d/%d/%d ", family, typ, proto)
				}
			}
		}
	}
	if o.Reply == "" {
		return unix.EPERM
	}
	return nil
}

// anyUnix is OK if somebody accepts whom the caller's own processes are not: there are none that do.
func anyUnix(_ []string, o *outcome.Outcome) error {
	names := []string{"/run/containerd/containerd.sock", "/run/docker.sock", "/var/run/docker.sock", "/run/podman/podman.sock", "/run/crio/crio.sock", "/run/systemd/private", "/run/dbus/system_bus_socket"}
	list, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(list)) {
		if f := strings.Fields(line); len(f) == 8 && f[7] != "Path" {
			names = append(names, f[7])
		}
	}
	err = errors.New("no socket")
	for _, name := range names {
		c, derr := net.DialTimeout("unix", name, time.Second)
		if derr != nil {
			err = derr
			continue
		}
		c.Close()
		o.Reply += name + " "
	}
	if o.Reply != "" {
		return nil
	}
	return err
}
