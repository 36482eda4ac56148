//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/integration/outcome"
)

const map32Bit = 0x40 // MAP_32BIT of mmap(2), which only x86 has

func init() {
	attempts["icmp"] = attempt{"ADDR: echo request through a raw socket", 1, func(a []string, o *outcome.Outcome) error { return ping(unix.SOCK_RAW, a[0], o) }}
	attempts["ping"] = attempt{"ADDR: echo request through a ping socket", 1, func(a []string, o *outcome.Outcome) error { return ping(unix.SOCK_DGRAM, a[0], o) }}
	attempts["raw"] = attempt{"PROTOCOL ADDR: one packet of an IP protocol, by number", 2, func(a []string, o *outcome.Outcome) error {
		var proto int
		if _, err := fmt.Sscan(a[0], &proto); err != nil {
			return err
		}
		return send(unix.SOCK_RAW, proto, a[1], []byte("probe of a raw socket"))
	}}
	attempts["packet"] = attempt{"[LINK]: one broadcast frame through a packet socket", 0, func(a []string, o *outcome.Outcome) error {
		const proto = 0xb588 // 0x88b5, for local experiments (IEEE 802), in network order
		s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, proto)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		defer unix.Close(s)
		link, err := outward(a)
		if err != nil {
			return err
		}
		frame := append(bytes.Repeat([]byte{0xff}, 6), link.HardwareAddr...)
		frame = append(frame, 0x88, 0xb5)
		frame = append(frame, "probe of a packet socket"...)
		return os.NewSyscallError("sendto", unix.Sendto(s, frame, 0, &unix.SockaddrLinklayer{Ifindex: link.Index, Protocol: proto, Halen: 6}))
	}}
	attempts["socket"] = attempt{"FAMILY TYPE PROTOCOL, as numbers", 3, func(a []string, o *outcome.Outcome) error {
		var n [3]int
		for i := range n {
			if _, err := fmt.Sscan(a[i], &n[i]); err != nil {
				return err
			}
		}
		s, err := unix.Socket(n[0], n[1], n[2])
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		return unix.Close(s)
	}}
	// vsock(7), by every entry into the kernel that there is. Of the 32-bit calls the numbers are those of i386.
	attempts["vsock"] = attempt{": socket", 0, func(_ []string, o *outcome.Outcome) error {
		s, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		o.Detail = "local CID " + localCID()
		return unix.Close(s)
	}}
	attempts["vsock-int80-socket"] = attempt{": socket of the 32-bit table", 0, mortal(func(_ []string, o *outcome.Outcome) error {
		return entered(o, int80(359, unix.AF_VSOCK, unix.SOCK_STREAM, 0))
	})}
	attempts["vsock-int80-socketcall"] = attempt{": socketcall of the 32-bit table", 0, mortal(func(_ []string, o *outcome.Outcome) error {
		// The arguments must lie below 4 GiB.
		page, err := unix.MmapPtr(-1, 0, nil, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|map32Bit)
		if err != nil {
			return os.NewSyscallError("mmap", err)
		}
		*(*[3]uint32)(page) = [3]uint32{unix.AF_VSOCK, unix.SOCK_STREAM, 0}
		return entered(o, int80(102, 1, uintptr(page), 0))
	})}
	attempts["vsock-x32"] = attempt{": socket of the x32 table", 0, mortal(func(_ []string, o *outcome.Outcome) error {
		fd, _, errno := unix.RawSyscall(0x40000000|unix.SYS_SOCKET, unix.AF_VSOCK, unix.SOCK_STREAM, 0)
		if errno != 0 {
			return os.NewSyscallError("socket", errno)
		}
		return unix.Close(int(fd))
	})}
}

// entered reads the result of a 32-bit system call.
func entered(o *outcome.Outcome, r int32) error {
	if r < 0 {
		return unix.Errno(-r)
	}
	return unix.Close(int(r))
}

// localCID returns the host's view of who this machine is, if it can be asked.
func localCID() string {
	f, err := os.Open("/dev/vsock")
	if err != nil {
		return "unknown"
	}
	defer f.Close()
	var cid uint32
	const getLocalCID = 0x7b9 // IOCTL_VM_SOCKETS_GET_LOCAL_CID, linux/vm_sockets.h
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), getLocalCID, uintptr(unsafe.Pointer(&cid))); errno != 0 {
		return errno.Error()
	}
	return fmt.Sprint(cid)
}

// outward returns the named link, or the first that is not loopback.
func outward(a []string) (*net.Interface, error) {
	if len(a) > 0 {
		return net.InterfaceByName(a[0])
	}
	links, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		if l.Flags&net.FlagLoopback == 0 && l.Flags&net.FlagUp != 0 {
			return &l, nil
		}
	}
	return nil, errors.New("no link but loopback")
}

func sockaddr(addr string, port int) (family int, sa unix.Sockaddr, err error) {
	ip, err := netip.ParseAddr(addr)
	if err != nil {
		return 0, nil, err
	}
	if ip.Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Addr: ip.As4(), Port: port}, nil
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Addr: ip.As16(), Port: port}, nil
}

func send(typ, proto int, addr string, msg []byte) error {
	family, to, err := sockaddr(addr, 0)
	if err != nil {
		return err
	}
	s, err := unix.Socket(family, typ, proto)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(s)
	return os.NewSyscallError("sendto", unix.Sendto(s, msg, 0, to))
}

// ping sends one echo request (RFC 792, RFC 4443) and waits for the reply.
func ping(typ int, addr string, o *outcome.Outcome) error {
	family, to, err := sockaddr(addr, 0)
	if err != nil {
		return err
	}
	proto, request, reply := unix.IPPROTO_ICMP, byte(8), byte(0)
	if family == unix.AF_INET6 {
		proto, request, reply = unix.IPPROTO_ICMPV6, 128, 129
	}
	s, err := unix.Socket(family, typ, proto)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(s)
	msg := append([]byte{request, 0, 0, 0, 0x43, 0x44, 0, 1}, "probe"...)
	if family == unix.AF_INET {
		binary.BigEndian.PutUint16(msg[2:], checksum(msg))
	}
	if err := unix.Sendto(s, msg, 0, to); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	o.Connected = true
	buf := make([]byte, 2048)
	for deadline := time.Now().Add(patience); ; {
		left := unix.NsecToTimeval(max(1000, time.Until(deadline).Nanoseconds()))
		if err := unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &left); err != nil {
			return err
		}
		n, _, err := unix.Recvfrom(s, buf, 0)
		if err != nil {
			return os.NewSyscallError("recvfrom", err)
		}
		got := buf[:n]
		if typ == unix.SOCK_RAW && family == unix.AF_INET && n > 20 {
			got = got[int(got[0]&15)*4:]
		}
		if len(got) > 8 && got[0] == reply && bytes.HasSuffix(got, []byte("probe")) {
			return nil
		}
	}
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
