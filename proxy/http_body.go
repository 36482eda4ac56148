package proxy

import (
	"math"
	"strconv"
)

// framing is how the end of a body is told (RFC 9112, 6.3).
type framing uint8

const (
	noBody framing = iota
	byLength
	byChunks
	byClose // of the connection, for responses alone
)

// body is a body that is being read.
type body struct {
	framing framing
	left    int64 // if byLength
	chunks  chunks
}

// whole reports whether the body was read to its end. That of a body which ends
// with the connection is told by nothing else.
func (d *body) whole() bool {
	switch d.framing {
	case byLength:
		return d.left == 0
	case byChunks:
		return d.chunks.state == chunksEnded
	default:
		return d.framing == noBody
	}
}

// decode takes from b what it begins with of the body. The content comes first in
// b afterwards, in one piece. used is how much of b was the body's: all of it but
// where the body ends.
func (d *body) decode(b []byte) (content []byte, used int, err error) {
	switch d.framing {
	case byLength:
		n := min(d.left, int64(len(b)))
		d.left -= n
		return b[:n], int(n), nil
	case byChunks:
		return d.chunks.decode(b)
	case byClose:
		return b, len(b), nil
	default:
		return nil, 0, nil
	}
}

// Limits of chunked bodies. No sender needs extensions, and none is passed on.
const (
	maxChunkLine  = 512      // size and extension
	maxExtensions = 16 << 10 // in one body
	maxTrailer    = 8 << 10
	maxChunk      = math.MaxInt64 >> 4 // before its last digit
)

// chunks decodes a chunked body (RFC 9112, 7.1). Nothing is tolerated: each size is
// hexadecimal digits alone, each line and each chunk ends in CR LF.
type chunks struct {
	state      chunkState
	left       int64 // of the chunk; its size as far as it was read
	line       int   // bytes of the line so far
	extensions int   // bytes of all of them
	trailer    []byte
	fields     []byte // of trailer: its lines, checked, and no more than they
}

type chunkState uint8

const (
	chunkSize chunkState = iota
	chunkExtension
	chunkSizeEnd // the line feed
	chunkData
	chunkDataCR
	chunkDataLF
	chunkTrailer
	chunksEnded
)

// decode is that of body.
func (d *chunks) decode(b []byte) (content []byte, used int, err error) {
	at := 0 // the content is b[:at]
	for used < len(b) && d.state != chunksEnded {
		if d.state == chunkData {
			n := int(min(d.left, int64(len(b)-used)))
			if at != used {
				copy(b[at:], b[used:used+n])
			}
			at, used, d.left = at+n, used+n, d.left-int64(n)
			if d.left == 0 {
				d.state = chunkDataCR
			}
			continue
		}
		if err := d.step(b[used]); err != nil {
			return nil, used, err
		}
		used++
	}
	return b[:at], used, nil
}

// step reads one byte that is not content.
func (d *chunks) step(c byte) error {
	switch d.state {
	case chunkSize:
		d.line++
		switch digit := hexValue(c); {
		case digit >= 0 && d.left <= maxChunk && d.line <= 16:
			d.left = d.left<<4 | int64(digit)
		case c == ';' && d.line > 1:
			d.state = chunkExtension
		case c == '\r' && d.line > 1:
			d.state = chunkSizeEnd
		default:
			return malformed("the size of a chunk")
		}
	case chunkExtension:
		d.line++
		d.extensions++
		switch {
		case c == '\r':
			d.state = chunkSizeEnd
		case byteKinds[c]&valueByte == 0 || d.line > maxChunkLine || d.extensions > maxExtensions:
			return malformed("the extension of a chunk")
		}
	case chunkSizeEnd:
		if c != '\n' {
			return malformed("the size of a chunk")
		}
		d.line = 0
		if d.state = chunkData; d.left == 0 {
			d.state = chunkTrailer
		}
	case chunkDataCR, chunkDataLF:
		if c != "\r\n"[d.state-chunkDataCR] {
			return malformed("the end of a chunk")
		}
		if d.state++; d.state > chunkDataLF {
			d.state = chunkSize
		}
	case chunkTrailer:
		return d.stepTrailer(c)
	}
	return nil
}

// stepTrailer reads one byte behind the last chunk. What frames, addresses or
// belongs to a hop has no business there (RFC 9110, 6.5.1).
func (d *chunks) stepTrailer(c byte) error {
	if len(d.trailer) == maxTrailer {
		return malformed("a trailer that is too long")
	}
	d.trailer = append(d.trailer, c)
	if d.line++; c != '\n' {
		return nil
	}
	line := d.trailer[len(d.trailer)-d.line:]
	d.line = 0
	switch {
	case len(line) < 2 || line[len(line)-2] != '\r':
		return malformed("a line that does not end in CR LF")
	case len(line) == 2:
		d.state = chunksEnded
		return nil
	}
	f, err := parseField(line[:len(line)-2])
	if err != nil {
		return err
	}
	if f.kind != endToEnd {
		return malformed("a trailer that is no trailer's")
	}
	d.fields = appendField(d.fields, f.name, f.value)
	return nil
}

func hexValue(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// appendContent writes content as the framing wants it, in a chunk if so.
func appendContent(out []byte, f framing, content []byte) []byte {
	if f != byChunks {
		return append(out, content...)
	}
	if len(content) == 0 {
		return out // would be the last chunk
	}
	out = strconv.AppendInt(out, int64(len(content)), 16)
	out = append(out, "\r\n"...)
	out = append(out, content...)
	return append(out, "\r\n"...)
}

// appendEnd writes the end of a body: the last chunk with the trailer, if in chunks.
func appendEnd(out []byte, f framing, trailer []byte) []byte {
	if f != byChunks {
		return out
	}
	out = append(out, "0\r\n"...)
	out = append(out, trailer...)
	return append(out, "\r\n"...)
}
