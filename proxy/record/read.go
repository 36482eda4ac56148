package record

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
)

// maxLine is more than Writer makes of maxText in each field, all of it escaped.
const maxLine = 64 << 10

// Read yields the records of a log, or errors for lines that are none; it goes
// on after those. A last line without end, as a killed writer leaves it, is not
// an error if it is the beginning of a record: it is left out.
func Read(r io.Reader) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		in := bufio.NewReaderSize(r, maxLine)
		for number := 1; ; number++ {
			line, err := in.ReadSlice('\n')
			tooLong := errors.Is(err, bufio.ErrBufferFull)
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = in.ReadSlice('\n')
			}
			switch {
			case errors.Is(err, io.EOF) && !tooLong:
				return // nothing, or a torn line
			case err != nil && !errors.Is(err, io.EOF):
				yield(Record{}, fmt.Errorf("read records: %w", err))
				return
			}
			if len(bytes.TrimSpace(line)) == 0 && !tooLong {
				continue
			}
			var rec Record
			if tooLong {
				err = fmt.Errorf("read records: line %d is longer than %d bytes", number, maxLine)
			} else if err = json.Unmarshal(line, &rec); err != nil {
				err = fmt.Errorf("read records: line %d: %w", number, err)
			}
			if !yield(rec, err) {
				return
			}
		}
	}
}
