package confine

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
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
	if err := Proxy(os.Getpid()).restrict(); err != nil {
		return lacking, fmt.Errorf("confine: %w", err)
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

// restrict applies the filter to all threads (seccomp(2), SECCOMP_FILTER_FLAG_TSYNC).
func (f Filter) restrict() error {
	raw, err := f.program()
	if err != nil {
		return fmt.Errorf("assemble system call filter: %w", err)
	}
	// The kernel's struct sock_filter is what package bpf calls a raw instruction.
	prog := unix.SockFprog{Len: uint16(len(raw)), Filter: (*unix.SockFilter)(unsafe.Pointer(&raw[0]))}
	tid, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC,
		uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(raw)
	switch {
	case errno != 0:
		return fmt.Errorf("restrict system calls: %w", errno)
	case tid != 0:
		return fmt.Errorf("restrict system calls: thread %d has a filter of its own", tid)
	}
	return nil
}

// Both are {uint16, uint8, uint8, uint32}.
var _ [unsafe.Sizeof(unix.SockFilter{})]byte = [unsafe.Sizeof(bpf.RawInstruction{})]byte{}
