package record

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"syscall"
)

// Writer and Log are joined by a stream. The Writer sends lines, each with one
// byte before it that tells its kind, and gets one byte back for each, in order,
// once it is in the log. So nothing that must be recorded happens before it is.
const (
	sendDecision = 'd'
	sendOther    = 'o'

	ackDone  = 'k'
	ackFull  = 'f'
	ackError = 'e'
)

// Serve appends what a Writer sends until the stream ends. It returns nil then,
// and an error for a stream that a Writer does not send, or for the first line
// that could not be appended for another reason than that the log is full.
// The other side may be a proxy that was taken over: lines are bounded and
// checked, and nothing in them is interpreted.
func (l *Log) Serve(stream io.ReadWriter) error {
	in := bufio.NewReaderSize(stream, maxLine+2)
	out := bufio.NewWriter(stream)
	defer func() { _ = out.Flush() }() // who is gone waits for nothing
	var failed error
	for {
		line, err := in.ReadSlice('\n')
		switch {
		case len(line) == 0 && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)):
			return failed // a reset: it was killed before it had read every answer
		case err != nil:
			return errors.Join(failed, fmt.Errorf("receive record: %w", err))
		case line[0] != sendDecision && line[0] != sendOther:
			return errors.Join(failed, fmt.Errorf("receive record: kind %q", line[0]))
		}
		ack := byte(ackDone)
		if err := l.Append(line[1:], line[0] == sendDecision); errors.Is(err, ErrFull) {
			ack = ackFull
		} else if err != nil {
			ack = ackError
			if failed == nil {
				failed = err
			}
		}
		// A writer that was killed has nobody to answer, but what it sent before is still to be appended.
		err = out.WriteByte(ack)
		if err == nil && in.Buffered() == 0 { // nobody is waiting behind this one
			err = out.Flush()
		}
		if err != nil && !errors.Is(err, syscall.EPIPE) {
			return errors.Join(failed, err)
		}
	}
}
