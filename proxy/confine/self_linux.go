package confine

import (
	"bytes"
	"fmt"
	"net"
	"os"

	"cofferdam.dev/cofferdam/proxy/confine/syscalls/load"
)

// Self confines this process, for good and with all of its threads: first its
// files, then its system calls. It must have no_new_privs and no cgo, as package
// process demands.
//
// lacking says in words what this kernel cannot enforce; it is "" where all of it
// is. An error means that the process is confined in part or not at all: it must
// not read anything of an agent's.
func Self() (lacking string, err error) {
	rememberZones()
	if lacking, err = ProxyFiles().restrict(); err != nil {
		return "", fmt.Errorf("confine: %w", err)
	}
	program, err := Proxy(os.Getpid()).Program()
	if err == nil {
		err = load.Filter(program)
	}
	if err != nil {
		return lacking, fmt.Errorf("confine: restrict system calls: %w", err)
	}
	return lacking, nil
}

// rememberZones has package net learn the numbers of the network interfaces, if
// resolv.conf names one (a router's fe80::1%eth0). It would ask netlink(7) as it
// needs them, which the filter forbids; but what it once learnt it keeps for as
// long as asking fails. Where there are many interfaces this takes its time.
func rememberZones() {
	if conf, err := os.ReadFile("/etc/resolv.conf"); err == nil && bytes.ContainsRune(conf, '%') {
		_, _ = net.Interfaces() // on an error such a server stays unreachable, as it would be without
	}
}
