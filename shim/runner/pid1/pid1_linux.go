package pid1

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"

	"golang.org/x/sys/unix"
)

// The descriptors that the first process is started with, beside the three of
// every program. Those from FDExtra on are for [Extra].
const (
	FDBinary = 3 // its own program
	FDSocket = 4 // of AF_UNIX and SOCK_STREAM, to the runner
	FDListen = 5 // likewise; over it the runner gets the filter's listener, if the filter asks
	FDExtra  = 6
)

// A Start says what the first process is to run. Its working folder, environment
// and user are those that it was given itself.
type Start struct {
	// Args are the command and its arguments. A command without a slash is looked
	// up in the environment's PATH.
	Args []string

	// Filter is the compiled filter of system calls, under which the agent is from
	// its first instruction on.
	Filter []unix.SockFilter

	// Asks says that the filter has questions, and so a listener.
	Asks bool

	// Stdio are the agent's input, output and error output.
	Stdio [3]Stream

	// Terminal says that descriptor 0 is a terminal, the controlling one of the
	// session that the first process leads: the agent's process group becomes its
	// foreground.
	Terminal bool

	// User, if not nil, puts the agent into one more user namespace, in which the
	// user that it runs as is called this. The first process needs CAP_SETFCAP if
	// that is root (user_namespaces(7)). An agent that is called root in there has
	// the capabilities of User.Bounding, in there; any other has none.
	User *User
}

// A User is the user and the group that a user namespace calls this process's own,
// and what capabilities root may ever have in it: bits by the numbers of
// capabilities(7). Others are all other ids in there, where they are numbered from
// 0 on. Groups says that processes may change theirs (setgroups(2)), which must not
// have been given up outside.
type User struct {
	UID, GID uint32
	Bounding uint64
	Others   []Range
	Groups   bool
}

// A Range is of ids, of users and of groups, as they are numbered outside.
type Range struct{ First, Count uint32 }

// A Mapping has Count ids from Outside on appear as those from Inside on.
type Mapping struct{ Inside, Outside, Count uint32 }

// mappable is how many ids an image may expect.
const mappable = 1 << 16

// Map is a map of user_namespaces(7): own stands for outside's id 0, and the others
// for the rest, in order.
func Map(own uint32, others []Range) []Mapping {
	maps := []Mapping{{own, 0, 1}}
	next := uint32(0)
	for _, r := range others {
		for r.Count > 0 && next < mappable {
			if next == own {
				next++
				continue
			}
			n := min(r.Count, mappable-next)
			if next < own {
				n = min(n, own-next)
			}
			maps = append(maps, Mapping{next, r.First, n})
			next, r.First, r.Count = next+n, r.First+n, r.Count-n
		}
	}
	return maps
}

// A Stream says where one of the agent's first three descriptors comes from.
type Stream uint8

// Where a stream comes from.
const (
	Closed Stream = iota // there is none
	Given                // the first process's own of the same number
	extra
)

// maxExtra is as many files as there are streams.
const maxExtra = 3

// Extra is the descriptor FDExtra+i, i from 0 to 2.
func Extra(i int) Stream { return extra + Stream(i) }

// Extra tells which of the files from FDExtra on the stream is, if it is one.
func (s Stream) Extra() (i int, ok bool) { return int(s) - int(extra), s >= extra }

// A Signal is one for the agent.
type Signal struct {
	Number unix.Signal
	Group  bool // to its process group, if that is not empty
}

// An Event is what a [Report] tells about the agent.
type Event uint8

// What happens to an agent.
const (
	Started   Event = iota + 1
	Stopped         // by the signal of that number
	Continued       // after it was stopped
	Exited          // with the status of that number
	Killed          // by the signal of that number
	Failed          // to start: the number is the status that a shell has for it, 126 or 127, or 125
)

// The statuses of Failed.
const (
	StatusFailed        = 125 // the container is to blame
	StatusNotExecutable = 126
	StatusNotFound      = 127
)

// A Report tells the runner of the agent. What it says is to be believed no more
// than the container it comes from.
type Report struct {
	Event  Event
	Number uint8
	Text   string // why it has Failed
}

// Bounds of messages, in bytes. The kernel takes 6 MiB of arguments (execve(2)).
const (
	maxStart  = 8 << 20
	maxReport = 4096
	maxFilter = 4096 // instructions
	maxArgs   = 1 << 20
	maxRanges = 64
)

// What messages begin with; a number that only this version of the contract has.
const (
	kindStart  = 0x11
	kindSignal = 0x12
	kindReport = 0x13
)

var (
	errMessage = errors.New("malformed message")
	errStart   = errors.New("malformed start message")
)

func (s Start) validate() error {
	if len(s.Args) == 0 || len(s.Args) > maxArgs || s.Args[0] == "" {
		return errors.New("no command")
	}
	for _, arg := range s.Args {
		if strings.IndexByte(arg, 0) >= 0 {
			return errors.New("an argument with a zero byte")
		}
	}
	if len(s.Filter) == 0 || len(s.Filter) > maxFilter {
		return errors.New("no system call filter, or one that is too long")
	}
	for _, stream := range s.Stdio {
		if i, ok := stream.Extra(); ok && i >= maxExtra {
			return errors.New("no such stream")
		}
	}
	if s.User != nil && len(s.User.Others) > maxRanges {
		return errors.New("too many ranges of ids")
	}
	return nil
}

// WriteStart sends the first message of the runner.
func WriteStart(w io.Writer, s Start) error {
	if err := s.validate(); err != nil {
		return err
	}
	size := 32 + 8*len(s.Filter)
	for _, arg := range s.Args {
		size += len(arg) + 1
	}
	m := append(make([]byte, 0, size), kindStart, flag(s.Terminal), byte(s.Stdio[0]), byte(s.Stdio[1]), byte(s.Stdio[2]), flag(s.User != nil), flag(s.Asks))
	if s.User != nil {
		m = binary.LittleEndian.AppendUint32(m, s.User.UID)
		m = binary.LittleEndian.AppendUint32(m, s.User.GID)
		m = binary.LittleEndian.AppendUint64(m, s.User.Bounding)
		m = append(m, flag(s.User.Groups), byte(len(s.User.Others)))
		for _, r := range s.User.Others {
			m = binary.LittleEndian.AppendUint32(m, r.First)
			m = binary.LittleEndian.AppendUint32(m, r.Count)
		}
	}
	m = binary.LittleEndian.AppendUint32(m, uint32(len(s.Filter)))
	for _, i := range s.Filter {
		m = binary.LittleEndian.AppendUint16(m, i.Code)
		m = append(m, i.Jt, i.Jf)
		m = binary.LittleEndian.AppendUint32(m, i.K)
	}
	m = binary.LittleEndian.AppendUint32(m, uint32(len(s.Args)))
	for _, arg := range s.Args {
		m = append(append(m, arg...), 0)
	}
	return write(w, m, maxStart)
}

// ReadStart reads what WriteStart sent.
func ReadStart(r io.Reader) (Start, error) {
	m, err := read(r, kindStart, maxStart)
	if err != nil {
		return Start{}, err
	}
	d := decoder{rest: m}
	s := Start{Terminal: d.flag()}
	for i := range s.Stdio {
		s.Stdio[i] = Stream(d.byte())
	}
	user := d.flag()
	s.Asks = d.flag()
	if user {
		s.User = &User{UID: d.uint32(), GID: d.uint32(), Bounding: d.uint64(), Groups: d.flag()}
		for n := d.byte(); n > 0 && !d.bad; n-- {
			s.User.Others = append(s.User.Others, Range{d.uint32(), d.uint32()})
		}
	}
	if n := d.uint32(); n <= maxFilter && int(n)*8 <= len(d.rest) {
		s.Filter = make([]unix.SockFilter, n)
		for i := range s.Filter {
			s.Filter[i] = unix.SockFilter{Code: d.uint16(), Jt: d.byte(), Jf: d.byte(), K: d.uint32()}
		}
	}
	n := d.uint32()
	for ; n > 0 && !d.bad; n-- {
		s.Args = append(s.Args, d.string())
	}
	if d.bad || len(d.rest) > 0 || s.validate() != nil {
		return Start{}, errStart
	}
	return s, nil
}

// WriteSignal sends a signal for the agent.
func WriteSignal(w io.Writer, s Signal) error {
	if s.Number <= 0 || s.Number > 64 {
		return errors.New("no such signal")
	}
	return write(w, []byte{kindSignal, byte(s.Number), flag(s.Group)}, maxReport)
}

// ReadSignal reads what WriteSignal sent. [io.EOF] means that the runner is gone.
func ReadSignal(r io.Reader) (Signal, error) {
	m, err := read(r, kindSignal, maxReport)
	if err != nil {
		return Signal{}, err
	}
	d := decoder{rest: m}
	s := Signal{Number: unix.Signal(d.byte()), Group: d.flag()}
	if d.bad || len(d.rest) > 0 || s.Number <= 0 || s.Number > 64 {
		return Signal{}, errMessage
	}
	return s, nil
}

// WriteReport sends a report to the runner. A text that is too long is cut off.
func WriteReport(w io.Writer, r Report) error {
	const head = 3
	text := r.Text[:min(len(r.Text), maxReport-head)]
	return write(w, append([]byte{kindReport, byte(r.Event), r.Number}, text...), maxReport)
}

// ReadReport reads what WriteReport sent. [io.EOF] means that the container is
// gone: after Exited, Killed or Failed, or because it was killed as a whole.
func ReadReport(r io.Reader) (Report, error) {
	m, err := read(r, kindReport, maxReport)
	if err != nil {
		return Report{}, err
	}
	d := decoder{rest: m}
	report := Report{Event: Event(d.byte()), Number: d.byte()}
	report.Text = string(d.rest)
	if d.bad || report.Event < Started || report.Event > Failed || report.Text != "" && report.Event != Failed {
		return Report{}, errMessage
	}
	return report, nil
}

func flag(set bool) byte {
	if set {
		return 1
	}
	return 0
}

// write sends a message in one piece, after its length.
func write(w io.Writer, m []byte, limit int) error {
	if len(m) > limit {
		return errors.New("the message is too long")
	}
	_, err := w.Write(append(binary.LittleEndian.AppendUint32(nil, uint32(len(m))), m...))
	return err
}

// read receives a message of one kind, and returns what follows the kind. A
// stream that ends between messages gives io.EOF.
func read(r io.Reader, kind byte, limit int) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n == 0 || n > uint32(limit) {
		return nil, errMessage
	}
	m := make([]byte, n)
	if _, err := io.ReadFull(r, m); err != nil {
		return nil, io.ErrUnexpectedEOF
	}
	if m[0] != kind {
		return nil, errMessage
	}
	return m[1:], nil
}

// A decoder takes values from a message; bad is set, for good, once it had none.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || len(d.rest) < n {
		d.bad = true
		return make([]byte, n)
	}
	out := d.rest[:n]
	d.rest = d.rest[n:]
	return out
}

func (d *decoder) byte() byte     { return d.take(1)[0] }
func (d *decoder) uint16() uint16 { return binary.LittleEndian.Uint16(d.take(2)) }
func (d *decoder) uint32() uint32 { return binary.LittleEndian.Uint32(d.take(4)) }

func (d *decoder) uint64() uint64 { return binary.LittleEndian.Uint64(d.take(8)) }

func (d *decoder) flag() bool {
	b := d.byte()
	d.bad = d.bad || b > 1
	return b == 1
}

// string ends with a zero byte.
func (d *decoder) string() string {
	i := bytes.IndexByte(d.rest, 0)
	if i < 0 {
		d.bad = true
		return ""
	}
	return string(d.take(i + 1)[:i])
}
