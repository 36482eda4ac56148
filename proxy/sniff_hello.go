package proxy

import "slices"

// extensionServerName is server_name, and hostName the only type of name in it (RFC 6066, 3).
const (
	extensionServerName = 0
	hostName            = 0
)

// oddHello says what is wrong with the server name of a hello, if it finds
// anything. It puts what crypto/tls refused into words, and refuses what that passes over:
// a name of another type, which a server that does not look at types would take. data is what
// the client sent from the first record on.
func oddHello(data []byte) (h hello, odd bool) {
	var message fields // the handshake message, put together from its records
	for records := fields(data); len(records) > 0; {
		records.skip(3) // type, version
		message = append(message, records.vector(2)...)
	}
	message.skip(1)
	body := message.vector(3)
	body.skip(2 + 32) // version, random
	body.vector(1)    // session
	body.vector(2)    // cipher suites
	body.vector(1)    // compression
	var seen []int
	names := 0
	for extensions := body.vector(2); len(extensions) > 0; {
		kind := extensions.number(2)
		content := extensions.vector(2)
		if slices.Contains(seen, kind) {
			return hello{problem: "TLS hello with a repeated extension", alert: alertIllegalParameter}, true
		}
		if seen = append(seen, kind); kind != extensionServerName {
			continue
		}
		for list := content.vector(2); len(list) > 0; {
			kind := list.number(1)
			switch name := list.vector(2); {
			case kind != hostName:
				return hello{problem: "TLS server name of another type", alert: alertIllegalParameter}, true
			case len(name) == 0:
				return hello{problem: "TLS with an empty server name", alert: alertDecodeError}, true
			case names > 0:
				return hello{problem: "TLS with two server names", alert: alertIllegalParameter}, true
			case name[len(name)-1] == '.':
				return hello{problem: "TLS server name with a dot at its end", alert: alertIllegalParameter}, true
			}
			names++
		}
		if names == 0 {
			return hello{problem: "TLS with an empty server name", alert: alertDecodeError}, true
		}
	}
	return hello{}, false
}

// fields is the rest of a TLS structure (RFC 8446, 3). Reading beyond its end
// gives what there is, and empties it.
type fields []byte

func (f *fields) skip(n int) fields {
	n = min(n, len(*f))
	taken := (*f)[:n]
	*f = (*f)[n:]
	return taken
}

func (f *fields) number(size int) int {
	n := 0
	for _, b := range f.skip(size) {
		n = n<<8 | int(b)
	}
	return n
}

func (f *fields) vector(size int) fields { return f.skip(f.number(size)) }
