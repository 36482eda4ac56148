package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/proxy/policy"
	"cofferdam.dev/cofferdam/proxy/upstream"
)

// Upstream is how what is allowed leaves the host.
type Upstream struct {
	Resolver []netip.AddrPort // DNS servers in their order; empty: the host's own
	Proxy    *upstream.Proxy  // nil: none
}

// upstreamSection reads the value of the key upstream in a configuration file. Its errors name file, line and key, and never repeat a
// value that may hold a password.
type upstreamSection struct{ path string }

func (s upstreamSection) fail(n *yaml.Node, key, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %s: %w", s.path, n.Line, key, fmt.Errorf(format, args...))
}

func (s upstreamSection) read(n *yaml.Node) (u Upstream, err error) {
	err = s.mapping(n, "upstream", map[string]func(string, *yaml.Node) error{
		"resolver": func(key string, v *yaml.Node) (err error) { u.Resolver, err = s.resolver(v, key); return },
		"proxy":    func(key string, v *yaml.Node) (err error) { u.Proxy, err = s.proxy(v, key); return },
	})
	return u, err
}

// mapping calls the function of each key, and refuses others.
func (s upstreamSection) mapping(n *yaml.Node, path string, known map[string]func(key string, v *yaml.Node) error) error {
	if n.Kind != yaml.MappingNode {
		return s.fail(n, path, "must be a mapping")
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		key := path + "." + k.Value
		switch f := known[k.Value]; {
		case f == nil:
			return s.fail(k, key, "unknown key")
		case seen[k.Value]:
			return s.fail(k, key, "repeated")
		default:
			seen[k.Value] = true
			if err := f(key, v); err != nil {
				return err
			}
		}
	}
	return nil
}

// list calls f with each text of a list that has at least one.
func (s upstreamSection) list(n *yaml.Node, key string, f func(text string) error) error {
	if n.Kind != yaml.SequenceNode || len(n.Content) == 0 {
		return s.fail(n, key, "must be a list that is not empty")
	}
	for _, item := range n.Content {
		text, err := s.text(item, key)
		if err != nil {
			return err
		}
		if err := f(text); err != nil {
			return s.fail(item, key, "%w", err)
		}
	}
	return nil
}

func (s upstreamSection) text(n *yaml.Node, key string) (string, error) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		return "", s.fail(n, key, "must be text")
	}
	return n.Value, nil
}

func (s upstreamSection) resolver(n *yaml.Node, key string) (servers []netip.AddrPort, err error) {
	err = s.list(n, key, func(text string) error {
		server, err := parseServer(text)
		switch {
		case err != nil:
			return err
		case slices.Contains(servers, server):
			return fmt.Errorf("%s is repeated", server)
		case len(servers) == upstream.MaxServers:
			return fmt.Errorf("more than %d servers", upstream.MaxServers)
		}
		servers = append(servers, server)
		return nil
	})
	return servers, err
}

func (s upstreamSection) proxy(n *yaml.Node, key string) (*upstream.Proxy, error) {
	var parsed *upstream.Proxy
	var credentials upstream.Credentials
	var exceptions []upstream.Exception
	err := s.mapping(n, key, map[string]func(string, *yaml.Node) error{
		"url": func(key string, v *yaml.Node) error {
			text, err := s.text(v, key)
			if err != nil {
				return err
			}
			if parsed, err = parseProxy(text); err != nil {
				return s.fail(v, key, "%w", err)
			}
			return nil
		},
		"credentials": func(key string, v *yaml.Node) error {
			path, err := s.text(v, key)
			if err != nil {
				return err
			}
			if credentials, err = readCredentials(path); err != nil {
				return s.fail(v, key, "%w", err)
			}
			return nil
		},
		"no_proxy": func(key string, v *yaml.Node) error {
			return s.list(v, key, func(text string) error {
				e, err := parseException(text)
				exceptions = append(exceptions, e)
				return err
			})
		},
	})
	switch {
	case err != nil:
		return nil, err
	case parsed == nil:
		return nil, s.fail(n, key+".url", "missing")
	}
	parsed.Credentials, parsed.NoProxy = credentials, exceptions
	return parsed, nil
}

// readCredentials reads a file that nobody but its owner, root or the caller, can read. The file that is checked is the one that is read.
func readCredentials(path string) (upstream.Credentials, error) {
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("%q is not an absolute path", path)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO must not block us
	if err != nil {
		return "", err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: path, Err: err}
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return "", fmt.Errorf("%s: not a regular file", path)
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return "", fmt.Errorf("%s: owned by uid %d: chown root %[1]s", path, st.Uid)
	case st.Mode&0o077 != 0:
		return "", fmt.Errorf("%s: open to group or others (mode %#o): chmod 0600 %[1]s", path, st.Mode&0o777)
	}
	content, err := io.ReadAll(io.LimitReader(f, maxCredentials+3)) // and the end of the line, and one byte too many
	if err != nil {
		return "", err
	}
	c, err := parseCredentials(content)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// parseServer reads a DNS server: an IP address, or one with a port, which is 53
// otherwise.
func parseServer(s string) (netip.AddrPort, error) {
	addr, err := netip.ParseAddr(s)
	server := netip.AddrPortFrom(addr, 53)
	if err != nil {
		if server, err = netip.ParseAddrPort(s); err != nil {
			return netip.AddrPort{}, fmt.Errorf("%q is neither an IP address nor one with a port", s)
		}
	}
	if reason := policy.CheckAddr(server.Addr()); reason != "" {
		return netip.AddrPort{}, fmt.Errorf("%q %s", s, reason)
	}
	if server.Port() == 0 {
		return netip.AddrPort{}, fmt.Errorf("%q has port 0", s)
	}
	return server, nil
}

// parseProxy reads the URL of an HTTP proxy, http://HOST:PORT and nothing else.
// Its errors do not repeat the URL: people write passwords there.
func parseProxy(s string) (*upstream.Proxy, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, errors.New("is not a URL: write http://HOST:PORT")
	}
	switch {
	case u.User != nil:
		return nil, errors.New("holds credentials: write them into a file of root's, and name it as credentials")
	case u.Scheme == "https":
		return nil, errors.New("a proxy that speaks TLS is not supported: write http://HOST:PORT")
	case u.Scheme != "http" || u.Opaque != "" || u.Path != "" || u.RawQuery != "" || u.ForceQuery || strings.Contains(s, "#"):
		return nil, errors.New("is not of the form http://HOST:PORT")
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil || port == 0 {
		return nil, errors.New("has no valid port: write http://HOST:PORT")
	}
	p := &upstream.Proxy{Host: u.Hostname(), Port: uint16(port)}
	if addr, err := netip.ParseAddr(p.Host); err == nil {
		if reason := policy.CheckAddr(addr); reason != "" {
			return nil, fmt.Errorf("host %s", reason)
		}
		p.Host = addr.String()
		return p, nil
	}
	name, err := policy.ParseName(p.Host)
	if err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	p.Host = name.String()
	return p, nil
}

// parseException reads one item of no_proxy: a name, "*." and a name for all
// names below it, an IP address, or a prefix of them. There is no suffix without
// "*.", no port, and nothing that means everything.
func parseException(s string) (upstream.Exception, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		if reason := policy.CheckAddr(addr); reason != "" {
			return upstream.Exception{}, fmt.Errorf("%q %s", s, reason)
		}
		return upstream.Exception{Prefix: netip.PrefixFrom(addr, addr.BitLen())}, nil
	}
	if strings.Contains(s, "/") {
		prefix, err := netip.ParsePrefix(s)
		switch {
		case err != nil:
			return upstream.Exception{}, fmt.Errorf("%q is not a prefix of addresses", s)
		case prefix != prefix.Masked():
			return upstream.Exception{}, fmt.Errorf("%q has bits set behind its length: write %s", s, prefix.Masked())
		case prefix.Addr().Is4In6():
			return upstream.Exception{}, fmt.Errorf("%q is an IPv4 prefix in IPv6 form", s)
		case prefix.Bits() == 0:
			return upstream.Exception{}, fmt.Errorf("%q is every address", s)
		}
		return upstream.Exception{Prefix: prefix}, nil
	}
	base, below := strings.CutPrefix(s, "*.")
	name, err := policy.ParseName(base)
	if err != nil {
		return upstream.Exception{}, fmt.Errorf("%q is neither a name, nor *. and a name, nor an address or a prefix: %w", s, err)
	}
	return upstream.Exception{Name: name.String(), Below: below}, nil
}

const maxCredentials = 1024

// parseCredentials reads the content of a file with credentials: one line,
// user:password. Its errors tell nothing of it.
func parseCredentials(content []byte) (upstream.Credentials, error) {
	line := bytes.TrimSuffix(bytes.TrimSuffix(content, []byte("\n")), []byte("\r"))
	switch {
	case len(line) == 0:
		return "", errors.New("is empty: want one line, user:password")
	case len(line) > maxCredentials:
		return "", fmt.Errorf("is longer than %d bytes", maxCredentials)
	case bytes.IndexByte(line, ':') <= 0:
		return "", errors.New("is not of the form user:password")
	case !utf8.Valid(line):
		return "", errors.New("is not UTF-8")
	case bytes.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return "", errors.New("holds control characters, or more than one line")
	}
	return upstream.Credentials(line), nil
}
