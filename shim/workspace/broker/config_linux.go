package broker

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/shim/workspace"
)

// Config says what a broker is to serve.
type Config struct {
	Sandbox string // its ID, to be seen in the process list
	Rules   workspace.Rules
	// OneID says that the process is root of a user namespace in which all whom it serves have its own id, and so needs no right.
	OneID bool

	// Below is what Tree.Below has, of each of Files.Trees; Command sets it.
	Below [][]string
}

// Files is what a broker works with. All belong to the caller.
type Files struct {
	Mounts *os.File // the sandbox's mount namespace
	Trees  []Tree   // its workspaces
	// Shared has a file of SharedSize bytes for each of Trees, the same for all sandboxes that have it. The order of those of several is the same for all.
	Shared []*os.File
}

// A Tree is a workspace.
type Tree struct {
	*os.File // its top, as mounted in the sandbox (O_PATH)

	// Below are paths, relative to the top, at which something else is mounted that may be written to as well. The rest stays read-only.
	Below []string
}

// The descriptors that the process is started with.
const (
	fdControl = 3
	fdMounts  = 4 // later: /proc
	fdConfig  = 5
	fdTrees   = 6 // and as many of Files.Shared
)

// maxTrees bounds the workspaces of one sandbox.
const maxTrees = 64

// A Control is the way to a running broker. Its methods are not for concurrent use.
type Control struct{ socket *os.File }

// Command describes the process; it starts nothing. The caller starts it from a thread that it keeps for as long as the process is wanted
// (PR_SET_PDEATHSIG, prctl(2)), calls started afterwards, whether that failed or not, and closes the Control, which ends the process.
func Command(binary string, c Config, f Files) (cmd *exec.Cmd, control *Control, started func(), err error) {
	if len(f.Trees) == 0 || len(f.Trees) > maxTrees || len(f.Shared) != len(f.Trees) {
		return nil, nil, nil, fmt.Errorf("describe broker: %d workspaces", len(f.Trees))
	}
	if _, err := workspace.NewJudge(c.Rules); err != nil {
		return nil, nil, nil, fmt.Errorf("describe broker: %w", err)
	}
	c.Below = nil
	var tops []*os.File
	for _, t := range f.Trees {
		tops, c.Below = append(tops, t.File), append(c.Below, t.Below)
	}
	config, err := memoryFile("broker-config", c)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("describe broker: %w", err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		config.Close()
		return nil, nil, nil, fmt.Errorf("describe broker: %w", os.NewSyscallError("socketpair", err))
	}
	child := os.NewFile(uintptr(pair[1]), "broker")
	cmd = &exec.Cmd{
		Path: binary,
		Args: []string{"cofferdam-broker", c.Sandbox, keep(c), strconv.Itoa(len(f.Trees))},
		Env:  []string{"GOGC=50"}, Dir: "/",
		ExtraFiles:  slices.Concat([]*os.File{child, f.Mounts, config}, tops, f.Shared),
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL},
	}
	return cmd, &Control{os.NewFile(uintptr(pair[0]), "broker")}, func() { child.Close(); config.Close() }, nil
}

// keep are the capabilities that the process keeps, as a bit mask.
func keep(c Config) string {
	if c.OneID {
		return "0"
	}
	const (
		toActAsCaller   = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID
		toReadItsMemory = 1 << unix.CAP_SYS_PTRACE
	)
	return strconv.FormatUint(fileRights|toActAsCaller|toReadItsMemory, 16)
}

// memoryFile has a value as JSON, for another process.
func memoryFile(name string, v any) (*os.File, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.WriteAt(b, 0); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// What is said to a broker, one byte each.
const (
	sayListener = 'l' // with the descriptor
	sayReport   = 'r' // it answers with a Report
)

// maxReply is the largest Report as JSON: of its names, each has at most maxName bytes.
const maxReply = 4 << 20

// Listen has the broker serve a listener. The file stays the caller's.
func (c *Control) Listen(l *os.File) error {
	return control(l, func(l listener) error {
		err := unix.Sendmsg(int(c.socket.Fd()), []byte{sayListener}, unix.UnixRights(int(l)), nil, unix.MSG_NOSIGNAL)
		return os.NewSyscallError("send listener to broker", err)
	})
}

// Resume has the kernel carry out the one call that waits at a listener, without a look at it.
func Resume(l *os.File) error {
	return control(l, func(l listener) error {
		var n notification
		errno := l.control(notifyReceive, unsafe.Pointer(&n))
		if errno == 0 {
			errno = l.resume(n.id)
		}
		if errno != 0 && errno != unix.ENOENT && errno != unix.EINTR { // else the caller is gone
			return os.NewSyscallError("resume a call", errno)
		}
		return nil
	})
}

// control does something with a file's descriptor, which stays as it is: Fd would make it a blocking one.
func control(f *os.File, do func(listener) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := conn.Control(func(fd uintptr) { err = do(listener(fd)) }); cerr != nil {
		return cerr
	}
	return err
}

// Report asks what the agent has done so far.
func (c *Control) Report() (r Report, err error) {
	fd := int(c.socket.Fd())
	if err := unix.Sendmsg(fd, []byte{sayReport}, nil, nil, unix.MSG_NOSIGNAL); err != nil {
		return r, os.NewSyscallError("ask broker", err)
	}
	// A memory file: what does not fit into a message.
	var oob [32]byte
	_, n, _, _, err := unix.Recvmsg(fd, make([]byte, 1), oob[:], unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return r, os.NewSyscallError("ask broker", err)
	}
	f, err := received(oob[:n])
	if err != nil {
		return r, fmt.Errorf("ask broker: %w", err)
	}
	defer f.Close()
	b := make([]byte, maxReply)
	size, err := f.ReadAt(b, 0)
	if size == len(b) || err == nil {
		return r, errors.New("ask broker: its report is too long")
	}
	if err := json.Unmarshal(b[:size], &r); err != nil {
		return r, fmt.Errorf("ask broker: %w", err)
	}
	return r, nil
}

// Close ends the broker.
func (c *Control) Close() error { return c.socket.Close() }

// received is the one file of a control message.
func received(oob []byte) (*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) != 1 {
		return nil, errors.New("a message without a file")
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.New("a message without a file")
	}
	return os.NewFile(uintptr(fds[0]), "received"), nil
}
