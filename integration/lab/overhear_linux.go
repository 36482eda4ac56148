package lab

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
)

// foreign is in each name that no agent may reach, and in no other.
const foreign = "evil"

// overhearing has what arrives at a web sink read a second time, in the ways in which careless servers do: the sink itself is strict, and refuses what others
// would take for a request to somebody else.
type overhearing struct {
	net.Listener
	l    *Lab
	read func([]byte) []string
}

func (o overhearing) Accept() (net.Conn, error) {
	c, err := o.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &overheard{TCPConn: c.(*net.TCPConn), l: o.l, read: o.read}, nil
}

// overheard is a connection of it. Like that of a net.Conn its Read is called by one goroutine at a time.
type overheard struct {
	*net.TCPConn
	l     *Lab
	read  func([]byte) []string
	heard []byte
	said  []string
}

// Read records what careless readers make of the first 64 KiB, once each.
func (o *overheard) Read(b []byte) (int, error) {
	n, err := o.TCPConn.Read(b)
	if n > 0 && len(o.heard) < 64<<10 {
		o.heard = append(o.heard, b[:n]...)
		for _, what := range o.read(o.heard) {
			if !slices.Contains(o.said, what) {
				o.said = append(o.said, what)
				o.l.record.add(Event{Kind: "wire", Src: addrPort(o.RemoteAddr()), Dst: addrPort(o.LocalAddr()), Detail: what, Bytes: int64(len(o.heard))})
			}
		}
	}
	return n, err
}

// carelessHTTP tells what is odd about the beginning of an HTTP connection: that it is none, and which foreign hosts somebody would find in it who is
// careless in one of many ways.
func carelessHTTP(b []byte) (odd []string) {
	line, _, whole := bytes.Cut(b, []byte("\n"))
	words := strings.Fields(string(line))
	if b[0] < 'A' && b[0] != '\r' && b[0] != '\n' || b[0] > 'z' || whole && (len(words) != 3 || !strings.HasPrefix(words[2], "HTTP/1.")) {
		odd = append(odd, "not HTTP/1.1: "+start(line))
	}
	if !bytes.Contains(bytes.ToLower(b), []byte(foreign)) {
		return odd
	}
	for i := range 1 << 7 {
		r := careless{deafToChunks: i&1 > 0, lastLength: i&2 > 0, anyLength: i&4 > 0, noTrailer: i&8 > 0, returnsEnd: i&16 > 0, forgets: i&32 > 0, bodiless: i&64 > 0}
		for _, host := range r.hosts(b) {
			if what := "a request for " + host; strings.Contains(strings.ToLower(host), foreign) && !slices.Contains(odd, what) {
				odd = append(odd, what)
			}
		}
	}
	return odd
}

// careless is a reader of HTTP that takes all that it can for well-formed, and in these cases one of two things.
type careless struct {
	deafToChunks bool // knows no Transfer-Encoding
	lastLength   bool // of several; else the first
	anyLength    bool // the digits of what is no number; else it is none
	noTrailer    bool // after the last chunk comes the next request
	returnsEnd   bool // a carriage return alone ends a line
	forgets      bool // any field that Connection names
	bodiless     bool // a request that only asks has no body
}

// hosts returns what the reader takes for the hosts of all requests.
func (r careless) hosts(b []byte) (hosts []string) {
	if r.returnsEnd {
		b = bytes.ReplaceAll(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")), []byte("\r"), []byte("\n"))
	}
	next := func() string {
		line, rest, _ := bytes.Cut(b, []byte("\n"))
		b = rest
		return strings.TrimSuffix(string(line), "\r")
	}
	for len(b) > 0 {
		words := strings.Fields(next())
		if len(words) == 0 || words[0] == "PROXY" { // of HAProxy's PROXY protocol
			continue
		}
		if len(words) < 2 || strings.Trim(words[0], "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
			return hosts
		}
		if _, rest, ok := strings.Cut(words[1], "://"); ok {
			authority, _, _ := strings.Cut(rest, "/")
			hosts = append(hosts, authority)
		}
		asks := slices.Contains([]string{"GET", "HEAD", "OPTIONS", "TRACE"}, words[0])
		chunked, lengths, options := false, []string(nil), ""
		for len(b) > 0 {
			line := next()
			if line == "" {
				break
			}
			name, value, _ := strings.Cut(line, ":")
			letters := strings.Map(func(c rune) rune {
				if strings.ContainsRune("!#$%&'*+-.^_`|~ \t\v\x00", c) || c >= 0x80 {
					return -1
				}
				return c | 0x20
			}, name)
			switch letters {
			case "host":
				hosts = append(hosts, strings.TrimSpace(value))
			case "contentlength":
				lengths = append(lengths, strings.Split(strings.TrimSpace(value), ",")...)
			case "connection":
				options += strings.ToLower(value)
			case "transferencoding", "chunked": // the latter is a folded line
				chunked = chunked || strings.Contains(strings.ToLower(line), "chunked")
			}
		}
		if r.bodiless && asks {
			chunked, lengths = false, nil
			if strings.Contains(options, "close") {
				return hosts
			}
		}
		if r.forgets {
			chunked = chunked && !strings.Contains(options, "transfer-encoding")
			if strings.Contains(options, "content-length") {
				lengths = nil
			}
		}
		if chunked && !r.deafToChunks {
			for len(b) > 0 {
				if n := number(next(), 16); n > 0 {
					b = b[min(n, len(b)):]
					next()
					continue
				}
				for line := " "; !r.noTrailer && len(b) > 0 && line != ""; {
					line = next()
					if name, value, _ := strings.Cut(line, ":"); strings.EqualFold(name, "host") {
						hosts = append(hosts, strings.TrimSpace(value))
					}
				}
				break
			}
			continue
		}
		length := 0
		for i, text := range lengths {
			n, err := strconv.Atoi(text)
			if err != nil && r.anyLength {
				n = number(text, 10)
			}
			if i == 0 || r.lastLength {
				length = n
			}
		}
		if length > 0 {
			b = b[min(length, len(b)):]
		}
	}
	return hosts
}

// number reads digits behind whatever else, as far as they go, into 64 bits.
func number(s string, base uint64) int {
	s = strings.TrimPrefix(strings.TrimLeft(strings.ToLower(s), " \t+-"), "0x")
	n := uint64(0)
	for _, c := range []byte(s) {
		digit := bytes.IndexByte([]byte("0123456789abcdef")[:base], c)
		if digit < 0 {
			break
		}
		n = n*base + uint64(digit)
	}
	return int(min(n, 1<<30))
}

// carelessTLS tells what is odd about the beginning of a TLS connection: that it is none, and what its hellos say beside one server name. It reads on
// until something is encrypted.
func carelessTLS(b []byte) (odd []string) {
	if b[0] != 0x16 {
		return []string{"not TLS: " + start(b[:min(len(b), 32)])}
	}
	var message []byte
	for len(b) >= 5 && (b[0] == 0x16 || b[0] == 0x15) { // an alert is none of them
		n := int(b[3])<<8 | int(b[4])
		if b[0] == 0x16 {
			message = append(message, b[5:min(len(b), 5+n)]...)
		}
		b = b[min(len(b), 5+n):]
	}
	for hellos := 0; len(message) >= 4; hellos++ {
		n := int(message[1])<<16 | int(message[2])<<8 | int(message[3])
		if len(message) < 4+n {
			break
		}
		body := message[4 : 4+n]
		if message[0] == 1 {
			names, ech := helloNames(body)
			switch {
			case len(names) != 1:
				odd = append(odd, fmt.Sprintf("a hello with %d names: %q", len(names), names))
			case ech:
				odd = append(odd, "a hello with another one encrypted in it")
			case strings.Contains(strings.ToLower(names[0]), foreign) || hellos > 0:
				odd = append(odd, fmt.Sprintf("hello %d is for %q", hellos+1, names[0]))
			}
		}
		message = message[4+n:]
	}
	return odd
}

// helloNames returns all server names of a hello (RFC 8446, 4.1.2), however many extensions and entries they stand in.
func helloNames(b []byte) (names []string, ech bool) {
	take := func(from *[]byte, n int) []byte {
		n = min(n, len(*from))
		taken := (*from)[:n]
		*from = (*from)[n:]
		return taken
	}
	vector := func(from *[]byte, size int) []byte {
		n := 0
		for _, c := range take(from, size) {
			n = n<<8 | int(c)
		}
		return take(from, n)
	}
	take(&b, 34)
	vector(&b, 1)
	vector(&b, 2)
	vector(&b, 1)
	for extensions := vector(&b, 2); len(extensions) > 0; {
		kind := take(&extensions, 2)
		content := vector(&extensions, 2)
		switch {
		case bytes.Equal(kind, []byte{0xfe, 0x0d}):
			ech = true
		case bytes.Equal(kind, []byte{0, 0}):
			for list := vector(&content, 2); len(list) > 0; {
				take(&list, 1)
				names = append(names, string(vector(&list, 2)))
			}
		}
	}
	return names, ech
}
