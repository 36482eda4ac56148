package process

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// An Update is what the parent tells a process that serves: a message on the
// stream of fd 9, whose text is behind one byte of kind and four of length. It is
// answered by one byte.
type Update byte

// The kinds of updates.
const (
	NewPolicy     Update = 'p' // as Config.Layers
	NewResolvConf Update = 'r' // the host's resolv.conf, which a confined process cannot read once it was replaced
)

const (
	updateTaken   = 'k'
	updateRefused = 'e'
)

// Stream returns a new stream between a process, whose end is for Files.Log or
// Files.Updates, and its parent, whose end is for record.Log or SendPolicy. The
// parent's ends when all copies of the process's are closed.
func Stream() (child *os.File, parent net.Conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("stream: socket pair: %w", err)
	}
	child = os.NewFile(uintptr(fds[0]), "stream")
	own := os.NewFile(uintptr(fds[1]), "stream")
	defer own.Close() // parent is a duplicate
	if parent, err = net.FileConn(own); err != nil {
		child.Close()
		return nil, nil, fmt.Errorf("stream: %w", err)
	}
	return child, parent, nil
}

// Send hands a text to the process at the other end of stream, and returns once
// it is in force. An error means that it is not: the old one is, or the process
// is gone.
func (u Update) Send(stream io.ReadWriter, text []byte) error {
	if len(text) > maxConfig {
		return fmt.Errorf("send update: larger than %d bytes", maxConfig)
	}
	message := append(binary.BigEndian.AppendUint32([]byte{byte(u)}, uint32(len(text))), text...)
	if _, err := stream.Write(message); err != nil {
		return fmt.Errorf("send update: %w", err)
	}
	var answer [1]byte
	if _, err := io.ReadFull(stream, answer[:]); err != nil {
		return fmt.Errorf("send update: %w", err)
	}
	if answer[0] != updateTaken {
		return errors.New("send update: the proxy does not take it")
	}
	return nil
}

// ReceiveUpdates calls take with each update that comes, until the stream ends,
// and answers whether it was taken. It returns nil at the end of the stream.
func ReceiveUpdates(stream io.ReadWriter, take func(u Update, text []byte) error) error {
	var head [5]byte
	for {
		if _, err := io.ReadFull(stream, head[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("receive update: %w", err)
		}
		n := binary.BigEndian.Uint32(head[1:])
		if n > maxConfig {
			return fmt.Errorf("receive update: %d bytes", n)
		}
		text := make([]byte, n)
		if _, err := io.ReadFull(stream, text); err != nil {
			return fmt.Errorf("receive update: %w", err)
		}
		answer := []byte{updateTaken}
		if take(Update(head[0]), text) != nil {
			answer[0] = updateRefused
		}
		if _, err := stream.Write(answer); err != nil {
			return fmt.Errorf("receive update: %w", err)
		}
	}
}
