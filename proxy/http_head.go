package proxy

import (
	"bytes"
	"errors"
	"strconv"
)

// malformed is what is wrong with a message. It says so in words of its own, none
// of which the sender chose.
type malformed string

func (m malformed) Error() string { return string(m) }

// errHTTP2 is the beginning of HTTP/2 (RFC 9113, 3.4), which reads like a request.
var errHTTP2 = errors.New("HTTP/2 without TLS")

// Limits of a head beside its length: what is looked at for each field is short.
const (
	maxFields  = 512
	maxOptions = 32 // fields that Connection names
	maxAccept  = 1 << 10
)

// head is the head of a message, read in the one way that everybody reads it.
// What RFC 9112 lets a recipient tolerate, and others may read in another way, is
// an error: lines that do not end in CR LF, folded ones, white space before a
// colon, two lengths, a length beside chunks, any coding but chunked. The slices
// are parts of what was parsed.
type head struct {
	method, target []byte // of a request
	path           []byte // what the upstream gets of the target
	status         int    // of a response
	reason         []byte
	minor          byte // of HTTP/1: 0 or 1

	fields []field
	host   []byte
	accept []byte // all fields together, as far as maxAccept goes

	framing framing
	length  int64 // if byLength

	options [][]byte // of Connection, beside those that follow
	close   bool     // is an option, and so on
	keep    bool
	change  bool // to the protocol of Upgrade

	upgrades int
	upgrade  []byte // the first value of Upgrade
	expects  bool   // 100-continue
	trailers bool   // TE says that they are welcome

	hosts, lengths, codings int

	trick malformed // of a request; answers have reasons for the same
}

// field is one line of a head.
type field struct {
	name, value []byte
	kind        fieldKind
}

// fieldKind tells the fields that mean something to who passes them on.
type fieldKind uint8

const (
	endToEnd fieldKind = iota
	ofHop              // meant for this hop alone, and no more than that
	isHost
	isLength
	isCoding
	isConnection
	isUpgrade
	isExpect
	isAccept
	isTE
	isTrailer
	disguised // a server may take it for one that frames
)

var fieldNames = [...]struct {
	name string
	kind fieldKind
}{
	{"te", isTE},
	{"host", isHost},
	{"accept", isAccept},
	{"expect", isExpect},
	{"upgrade", isUpgrade},
	{"trailer", isTrailer},
	{"connection", isConnection},
	{"keep-alive", ofHop},
	{"content-length", isLength},
	{"proxy-connection", ofHop},
	{"transfer-encoding", isCoding},
	{"proxy-authenticate", ofHop},
	{"proxy-authorization", ofHop},
}

// fieldsOfLength has where in fieldNames the names of each length begin and end.
var fieldsOfLength = func() (at [20][2]int) {
	for i, f := range fieldNames {
		n := len(f.name)
		if at[n][1] == 0 {
			at[n][0] = i
		}
		at[n][1] = i + 1
	}
	return at
}()

func kindOf(name []byte) fieldKind {
	if len(name) >= len(fieldsOfLength) {
		return endToEnd
	}
	at := fieldsOfLength[len(name)]
	for _, f := range fieldNames[at[0]:at[1]] {
		switch {
		case isFold(name, f.name):
			return f.kind
		case (f.kind == isLength || f.kind == isCoding) && isLike(name, f.name):
			return disguised
		}
	}
	return endToEnd
}

// isLike is isFold for who takes all marks for the same, as CGI's names of fields do.
func isLike(b []byte, s string) bool {
	for i, c := range b {
		if lower := c | 0x20; s[i] == '-' && (lower < 'a' || lower > 'z') && (c < '0' || c > '9') {
			continue
		}
		if c|0x20 != s[i] {
			return false
		}
	}
	return true
}

// isFold reports whether b is s, which is in lower case, whatever its own case.
func isFold(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != s[i] {
			return false
		}
	}
	return true
}

// Bytes of tokens (RFC 9110, 5.6.2), of field values (5.5: no control but the tab),
// and of request targets.
const (
	tokenByte = 1 << iota
	valueByte
	targetByte
)

var byteKinds = func() (kinds [256]uint8) {
	for c := range kinds {
		switch {
		case '0' <= c && c <= '9', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', bytes.IndexByte([]byte("!#$%&'*+-.^_`|~"), byte(c)) >= 0:
			kinds[c] = tokenByte | valueByte | targetByte
		case ' ' < c && c < 0x7f:
			kinds[c] = valueByte | targetByte
		case c == ' ', c == '\t', c >= 0x80:
			kinds[c] = valueByte
		}
	}
	kinds['#'] &^= targetByte // a fragment is never sent
	return kinds
}()

// consistsOf reports whether all bytes are of a kind.
func consistsOf(b []byte, kind uint8) bool {
	for _, c := range b {
		if byteKinds[c]&kind == 0 {
			return false
		}
	}
	return true
}

// headLength returns the length of the head that b begins with, with the empty
// line that ends it, or 0 if that is still to come. Lines end in CR LF and nothing
// else. It goes on at *line, the beginning of the line that was not whole.
func headLength(b []byte, line *int) (int, error) {
	for {
		i := bytes.IndexByte(b[*line:], '\n')
		switch {
		case i < 0:
			return 0, nil
		case i == 0 || b[*line+i-1] != '\r':
			return 0, malformed("a line that does not end in CR LF")
		case i == 1:
			return *line + 2, nil
		}
		*line += i + 1
	}
}

// cutLine cuts the first line off a head that headLength has found.
func cutLine(b []byte) (line, rest []byte) {
	i := bytes.IndexByte(b, '\n')
	return b[:i-1], b[i+1:]
}

// parseRequest reads the head of a request (RFC 9112, 3), found by headLength.
func (h *head) parseRequest(b []byte) error {
	h.reset()
	line, rest := cutLine(b)
	i, j := bytes.IndexByte(line, ' '), bytes.LastIndexByte(line, ' ')
	if i <= 0 || j <= i+1 {
		return malformed("the request line")
	}
	version := line[j+1:]
	h.method, h.target = line[:i], line[i+1:j]
	if string(h.method) == "PRI" && string(version) == "HTTP/2.0" {
		return errHTTP2
	}
	switch {
	case !consistsOf(h.method, tokenByte):
		return malformed("the method")
	case !consistsOf(h.target, targetByte) || !validEscapes(h.target):
		return malformed("the request target")
	}
	if err := h.parseVersion(version); err != nil {
		return err
	}
	if err := h.parseFields(rest); err != nil {
		return err
	}
	switch {
	case h.hosts > 1:
		return malformed("two Host fields")
	case h.hosts == 0 && h.minor > 0 && string(h.method) != "CONNECT": // which has no use for it
		return malformed("no Host field")
	case h.lengths > 1:
		return malformed("two Content-Length fields")
	case h.trick != "":
		return h.trick
	}
	return nil
}

// validEscapes reports whether each percent sign of the path begins an escape.
// What a query is made of is the server's business.
func validEscapes(target []byte) bool {
	for i := 0; i < len(target) && target[i] != '?'; i++ {
		if target[i] != '%' {
			continue
		}
		if i+2 >= len(target) || hexValue(target[i+1]) < 0 || hexValue(target[i+2]) < 0 {
			return false
		}
	}
	return true
}

// parseResponse reads the head of a response (RFC 9112, 4), found by headLength.
func (h *head) parseResponse(b []byte) error {
	h.reset()
	line, rest := cutLine(b)
	version, after, _ := bytes.Cut(line, []byte(" "))
	code, reason, _ := bytes.Cut(after, []byte(" ")) // servers leave out the space before no reason
	if err := h.parseVersion(version); err != nil {
		return err
	}
	for _, c := range code {
		if c < '0' || c > '9' {
			return malformed("the status")
		}
		h.status = h.status*10 + int(c-'0')
	}
	if len(code) != 3 || h.status < 100 {
		return malformed("the status")
	}
	if h.reason = reason; !consistsOf(reason, valueByte) {
		return malformed("the reason behind the status")
	}
	return h.parseFields(rest)
}

func (h *head) reset() { *h = head{fields: h.fields[:0], options: h.options[:0], accept: h.accept[:0]} }

func (h *head) parseVersion(b []byte) error {
	switch string(b) {
	case "HTTP/1.1":
		h.minor = 1
	case "HTTP/1.0":
		h.minor = 0
	default:
		return malformed("a version other than HTTP/1.0 and HTTP/1.1")
	}
	return nil
}

// parseFields reads all lines up to the empty one.
func (h *head) parseFields(b []byte) error {
	for {
		var line []byte
		if line, b = cutLine(b); len(line) == 0 {
			break
		}
		if len(h.fields) == maxFields {
			return malformed("too many fields")
		}
		f, err := parseField(line)
		if err != nil {
			return err
		}
		h.fields = append(h.fields, f)
		if f.kind != endToEnd {
			if err := h.heed(f); err != nil {
				return err
			}
		}
	}
	return h.frame()
}

// parseField reads one line (RFC 9112, 5). A folded one begins with a space, which
// no name does.
func parseField(line []byte) (f field, err error) {
	i := bytes.IndexByte(line, ':')
	if i <= 0 || !consistsOf(line[:i], tokenByte) {
		return f, malformed("the name of a field")
	}
	f = field{name: line[:i], value: trimSpace(line[i+1:]), kind: kindOf(line[:i])}
	if !consistsOf(f.value, valueByte) {
		return f, malformed("the value of a field")
	}
	return f, nil
}

func trimSpace(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// heed notes what a field says.
func (h *head) heed(f field) error {
	switch f.kind {
	case isHost:
		h.hosts++
		h.host = f.value
	case isLength:
		n, ok := parseLength(f.value)
		if !ok {
			return malformed("Content-Length is no number")
		}
		if h.lengths++; h.lengths > 1 && n != h.length {
			return malformed("two Content-Length fields")
		}
		h.length = n
	case isCoding:
		if h.codings++; h.codings > 1 || !isFold(f.value, "chunked") {
			return malformed("a Transfer-Encoding other than chunked")
		}
	case disguised:
		h.trick = "a field whose name some read as one that frames"
	case isConnection:
		return h.heedOptions(f.value)
	case isUpgrade:
		if h.upgrades++; h.upgrades == 1 {
			h.upgrade = f.value
		}
	case isExpect:
		h.expects = h.expects || isFold(f.value, "100-continue")
	case isAccept:
		if len(h.accept)+len(f.value) < maxAccept {
			h.accept = append(append(h.accept, ','), f.value...)
		}
	case isTrailer:
		for name := range bytes.SplitSeq(f.value, []byte(",")) {
			if kindOf(trimSpace(name)) != endToEnd {
				h.trick = "Trailer names a field that it must not"
			}
		}
	case isTE:
		for item := range bytes.SplitSeq(f.value, []byte(",")) {
			h.trailers = h.trailers || isFold(trimSpace(item), "trailers")
		}
	}
	return nil
}

// heedOptions reads a Connection field (RFC 9110, 7.6.1). A request must not name
// what frames or addresses it: whoever obeys would read another one. Answers that
// name Transfer-Encoding are common.
func (h *head) heedOptions(value []byte) error {
	for option := range bytes.SplitSeq(value, []byte(",")) {
		switch option = trimSpace(option); {
		case len(option) == 0:
		case isFold(option, "close"):
			h.close = true
		case isFold(option, "keep-alive"):
			h.keep = true
		case isFold(option, "upgrade"):
			h.change = true
		default:
			switch kindOf(option) {
			case isHost, isLength, isCoding, disguised:
				h.trick = "Connection names a field that it must not"
			}
			if len(h.options) == maxOptions {
				return malformed("Connection names too many fields")
			}
			h.options = append(h.options, option)
		}
	}
	return nil
}

// parseLength reads digits alone, no more than an int64 holds.
func parseLength(b []byte) (n int64, ok bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// frame settles how the end of the body is told, as far as the head does.
func (h *head) frame() error {
	switch {
	case h.codings > 0 && h.lengths > 0:
		return malformed("both Content-Length and Transfer-Encoding")
	case h.codings > 0 && h.minor == 0:
		return malformed("Transfer-Encoding in HTTP/1.0")
	case h.codings > 0:
		h.framing = byChunks
	case h.lengths > 0:
		h.framing = byLength
	}
	return nil
}

// persists reports whether the connection goes on after the message, as far as
// its sender is concerned (RFC 9112, 9.3).
func (h *head) persists() bool { return !h.close && (h.minor > 0 || h.keep) }

// appendFields writes what is passed on of the fields: not those of this hop
// alone, and not those that are written anew, framing and addressing among them.
func (h *head) appendFields(out []byte) []byte {
	for i := range h.fields {
		f := &h.fields[i]
		switch {
		case f.kind == endToEnd, f.kind == isAccept:
		case f.kind == isExpect && h.minor > 0: // means nothing in HTTP/1.0 (RFC 9110, 10.1.1)
		case f.kind == isTrailer && h.framing == byChunks:
		default:
			continue
		}
		if len(h.options) == 0 || !h.named(f.name) {
			out = appendField(out, f.name, f.value)
		}
	}
	return out
}

func appendField(out, name, value []byte) []byte {
	out = append(out, name...)
	out = append(out, ": "...)
	out = append(out, value...)
	return append(out, "\r\n"...)
}

// named reports whether Connection names a field.
func (h *head) named(name []byte) bool {
	for _, option := range h.options {
		if bytes.EqualFold(option, name) {
			return true
		}
	}
	return false
}

// appendFraming writes how the end of the body is told.
func appendFraming(out []byte, f framing, length int64) []byte {
	switch f {
	case byLength:
		out = append(out, "Content-Length: "...)
		out = strconv.AppendInt(out, length, 10)
		out = append(out, "\r\n"...)
	case byChunks:
		out = append(out, "Transfer-Encoding: chunked\r\n"...)
	}
	return out
}
