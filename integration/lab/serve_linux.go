package lab

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
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

// Delegate has the DNS sink ask the server at addr in INTERNET, by UDP, for names below zone, as a resolver would, until the test ends. Queries are
// recorded first.
func (l *Lab) Delegate(t testing.TB, zone, addr string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.below[zone] = addr
	t.Cleanup(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.below, zone)
	})
}

// authority is the server that a name is delegated to, or nothing.
func (l *Lab) authority(name string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for zone, addr := range l.below {
		if strings.HasSuffix(name, "."+zone) {
			return addr
		}
	}
	return ""
}

// passOn asks another server, and returns its answer, or nil.
func (l *Lab) passOn(addr string, query []byte) []byte {
	var c net.Conn
	err := l.Do(func() (err error) {
		c, err = net.Dial("udp", addr)
		return err
	})
	if err != nil {
		return nil
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Second))
	buf := make([]byte, 64<<10)
	if _, err := c.Write(query); err != nil {
		return nil
	}
	n, err := c.Read(buf)
	if err != nil {
		return nil
	}
	return buf[:n]
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
