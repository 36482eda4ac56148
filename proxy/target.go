package proxy

import (
	"errors"
	"net"
	"net/netip"
	"strconv"

	"cofferdam.dev/cofferdam/proxy/policy"
)

// target is where a request wants to go: a name or an address, never both, and a
// port.
type target struct {
	name policy.Name
	addr netip.Addr
	port uint16
}

func (t target) String() string {
	host := t.name.String()
	if t.name.IsZero() {
		host = t.addr.String()
	}
	return net.JoinHostPort(host, strconv.Itoa(int(t.port)))
}

// parseHost reads a host that the agent wrote. It is an address only in the one
// form that everybody reads the same way; whatever else might be taken for one
// is an error of names.
func parseHost(host string) (policy.Name, netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr.Zone() != "" || addr.Is4In6() {
			return policy.Name{}, netip.Addr{}, errors.New("address in an unusual form")
		}
		return policy.Name{}, addr, nil
	}
	name, err := policy.ParseWireName(host)
	return name, netip.Addr{}, err
}

// parseTarget reads host and port, both of which must be there (RFC 9110, 9.3.6).
func parseTarget(s string) (t target, err error) {
	host, port, err := splitHostPort(s)
	if err != nil {
		return target{}, err
	}
	if port == 0 {
		return target{}, errors.New("no port")
	}
	t.port = port
	if t.name, t.addr, err = parseHost(host); err != nil {
		return target{}, err
	}
	return t, nil
}
