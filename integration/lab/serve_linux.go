package lab

import (
	"net"
	"net/http"
	"net/netip"
	"testing"
)

// Serve has the web sinks answer requests for host by h, until the test ends. They are recorded as all others are, without their bodies.
func (l *Lab) Serve(t testing.TB, host string, h http.Handler) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sites[host] = h
	t.Cleanup(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.sites, host)
	})
}

// ServeSSH has the SSH sink hand connections to addr over to serve, which gets them unread, until the test ends. They are recorded first.
func (l *Lab) ServeSSH(t testing.TB, addr string, serve func(*net.TCPConn)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := netip.MustParseAddr(addr)
	l.shells[at] = serve
	t.Cleanup(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.shells, at)
	})
}

func (l *Lab) site(host string) http.Handler {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sites[host]
}

func (l *Lab) shell(at netip.Addr) func(*net.TCPConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.shells[at]
}
