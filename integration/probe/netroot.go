//go:build linux

package main

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/integration/outcome"
)

func init() {
	attempts["sysctl-sweep"] = attempt{": writes every file below /proc/sys/net with what is in it; OK if one takes it", 0, sweepSysctls}
	attempts["diag-destroy"] = attempt{": ends a connection of its own by sock_diag", 0, func(_ []string, _ *outcome.Outcome) error {
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return errors.New(err.Error()) // which is allowed, so its errno does not count
		}
		defer ln.Close()
		c, err := net.Dial("tcp4", ln.Addr().String())
		if err != nil {
			return errors.New(err.Error())
		}
		defer c.Close()
		return netlink.SocketDestroy(c.LocalAddr(), c.RemoteAddr())
	}}
	attempts["socket-sweep-i386"] = attempt{": socket of the 32-bit table, with every family", 0, mortal(func(_ []string, o *outcome.Outcome) error {
		return sweepFamilies(func(family int) error { return entered(o, int80(359, uintptr(family), unix.SOCK_DGRAM, 0)) }, o)
	})}
	attempts["socket-sweep-x32"] = attempt{": socket of the x32 table, with every family", 0, mortal(func(_ []string, o *outcome.Outcome) error {
		return sweepFamilies(func(family int) error {
			fd, _, errno := unix.RawSyscall(0x40000000|unix.SYS_SOCKET, uintptr(family), unix.SOCK_DGRAM, 0)
			if errno != 0 {
				return errno
			}
			return unix.Close(int(fd))
		}, o)
	})}
}

// sweepFamilies is OK if any family is there: no program needs one by such an entry.
func sweepFamilies(open func(family int) error, o *outcome.Outcome) (err error) {
	for family := range 47 {
		if e := open(family); e != nil {
			err = e
			continue
		}
		o.Reply += strconv.Itoa(family) + " "
	}
	if o.Reply != "" {
		return nil
	}
	return err
}

// sweepSysctls changes nothing, also where it may.
func sweepSysctls(_ []string, o *outcome.Outcome) error {
	last := error(unix.ENOENT)
	err := filepath.WalkDir("/proc/sys/net", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // what cannot be entered cannot be written
		}
		now, err := os.ReadFile(path)
		if err != nil {
			now = []byte("0\n") // some can be written only
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			last = err
			return nil
		}
		defer f.Close()
		if _, err = f.Write(now); err != nil {
			last = err
			return nil
		}
		o.Detail = path
		return fs.SkipAll
	})
	if err != nil {
		return err
	}
	if o.Detail != "" {
		return nil
	}
	return last
}
