package proxy

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// keptServers remembers the host's name servers for the time when resolv.conf
// cannot be read any more: a confined proxy may read the file that was there at
// its start, and not one that was renamed over it (package confine). Its parent,
// which can, says what the new one has.
type keptServers struct {
	read func() ([]byte, error) // resolv.conf

	mu   sync.Mutex // guards kept
	kept []string   // host:port, at most the three that resolv.conf(5) may have
}

// noServers are the servers that package net asks, in this order, if it cannot
// read resolv.conf.
var noServers = []string{"127.0.0.1:53", "[::1]:53"}

// instead returns the server to ask where package net would ask address: the
// same one, unless it does so for want of a resolv.conf that it may read.
func (k *keptServers) instead(address string) string {
	data, err := k.read()
	k.mu.Lock()
	defer k.mu.Unlock()
	switch i := slices.Index(noServers, address); {
	case err == nil:
		k.kept = nameServers(string(data))
	case errors.Is(err, fs.ErrPermission) && i >= 0 && len(k.kept) > 0:
		return k.kept[i%len(k.kept)]
	}
	return address
}

// keep remembers the servers of a resolv.conf that somebody else has read.
func (k *keptServers) keep(conf []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.kept = nameServers(string(conf))
}

// nameServers lists the servers of a resolv.conf as package net does.
func nameServers(conf string) []string {
	var servers []string
	for line := range strings.Lines(conf) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" || len(servers) == 3 {
			continue
		}
		if _, err := netip.ParseAddr(f[1]); err == nil {
			servers = append(servers, net.JoinHostPort(f[1], "53"))
		}
	}
	return servers
}
