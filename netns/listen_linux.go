package netns

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Listeners are the sockets of GATE for the proxy to inherit; they are
// close-on-exec, non-blocking, and fit for net.FileListener and
// net.FilePacketConn. As long as a copy of one is open, GATE's namespace lives.
type Listeners struct {
	TCP *os.File // listens on 0.0.0.0:15001: a connection's local address is its original destination
	DNS *os.File // UDP 0.0.0.0:53: answer with the query's IP_PKTINFO as source
}

// Close closes both.
func (l Listeners) Close() error {
	return errors.Join(l.TCP.Close(), l.DNS.Close())
}

// backlog of the TCP listener; the kernel cuts it to net.core.somaxconn.
const backlog = 4096

// Listen opens the listeners inside GATE. They are plain sockets of net's
// kind, but opened by hand: net would make the TCP listener an MPTCP one. The
// caller closes them; a second set cannot be opened before all copies of the
// first are closed.
func (g *Gate) Listen() (Listeners, error) {
	var l Listeners
	err := g.Do(func() (err error) {
		if l.TCP, err = listenTCP(); err != nil {
			return err
		}
		if l.DNS, err = listenDNS(); err != nil {
			l.TCP.Close()
			return err
		}
		return nil
	})
	if err != nil {
		return Listeners{}, err
	}
	return l, nil
}

func listenTCP() (*os.File, error) {
	return socket(fmt.Sprintf("tcp 0.0.0.0:%d", ProxyPort), unix.SOCK_STREAM, unix.IPPROTO_TCP, func(fd int) error {
		// TPROXY hands packets to transparent sockets only (tproxy.rst).
		if err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1); err != nil {
			return os.NewSyscallError("set IP_TRANSPARENT", err)
		}
		// Connections that a killed proxy left in TIME_WAIT do not hinder its heir.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return os.NewSyscallError("set SO_REUSEADDR", err)
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Port: ProxyPort}); err != nil {
			return os.NewSyscallError("bind", err)
		}
		return os.NewSyscallError("listen", unix.Listen(fd, backlog))
	})
}

func listenDNS() (*os.File, error) {
	return socket(fmt.Sprintf("udp 0.0.0.0:%d", DNSPort), unix.SOCK_DGRAM, unix.IPPROTO_UDP, func(fd int) error {
		// Tells the queried address, ip(7). That it can also be the answer's
		// source takes no further option: with AnyIP it is a local address.
		if err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_PKTINFO, 1); err != nil {
			return os.NewSyscallError("set IP_PKTINFO", err)
		}
		return os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrInet4{Port: DNSPort}))
	})
}

// socket opens an IPv4 socket, sets it up and wraps it under the given name.
func socket(name string, kind, proto int, setup func(fd int) error) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err == nil {
		if err = setup(fd); err == nil {
			return os.NewFile(uintptr(fd), name), nil
		}
		_ = unix.Close(fd)
	}
	return nil, fmt.Errorf("listen %s: %w", name, err)
}
