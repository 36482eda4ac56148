package record

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Pair returns one end of a new stream, for a process that writes records to l,
// and a function that serves the other end until all copies of the first are
// closed: so the caller closes its own once the process has one. serve must be
// called once.
func (l *Log) Pair() (end *os.File, serve func() error, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("record log: socket pair: %w", err)
	}
	end = os.NewFile(uintptr(fds[0]), "record stream")
	own := os.NewFile(uintptr(fds[1]), "record stream")
	conn, err := net.FileConn(own)
	own.Close() // conn has a duplicate
	if err != nil {
		end.Close()
		return nil, nil, fmt.Errorf("record log: %w", err)
	}
	return end, func() error {
		defer conn.Close()
		return l.Serve(conn)
	}, nil
}
