package confine

import (
	"fmt"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// readable is what Go's resolver reads (package net; resolv.conf(5), hosts(5),
// nsswitch.conf(5)): files, with whatever they link to now, and the folders in
// which resolver services replace what /etc/resolv.conf links to.
var readable = []string{
	"/etc/resolv.conf",
	"/etc/hosts",
	"/etc/nsswitch.conf",
	"/run/systemd/resolve",
	"/run/NetworkManager",
	"/run/resolvconf",
}

// Files is the Landlock ruleset of a proxy: of all that Landlock knows to
// restrict of files, only reading the contents of readable is left; no TCP
// socket is bound; no signal and no abstract Unix socket reaches a process
// outside (landlock(7)). It prints itself.
//
// Best effort: a kernel that knows less restricts less. What an older one lacks
// beyond files the [Filter] covers: it has no bind, no truncate, no ioctl, no
// Unix sockets and no signals to others.
type Files struct {
	config landlock.Config
	rule   landlock.Rule
}

// ProxyFiles describes what a proxy may do to files. It touches none.
func ProxyFiles() Files {
	return Files{
		config: landlock.MustConfig(landlock.V9.HandledAccessFS, landlock.AccessNetSet(ll.AccessNetBindTCP), landlock.V9.Scoped).BestEffort(),
		rule:   landlock.PathAccess(ll.AccessFSReadFile, readable...).IgnoreIfMissing(),
	}
}

// String shows what is restricted and what is left.
func (f Files) String() string { return fmt.Sprintf("%v\n%v\n", f.config, f.rule) }

// restrict applies the ruleset to all threads. lacking says what this kernel
// cannot enforce, "" if it knows Landlock.
func (f Files) restrict() (lacking string, err error) {
	if _, err := ll.LandlockGetABIVersion(); err != nil {
		return fmt.Sprintf("no Landlock in this kernel (%v): the proxy can read every file that all users can", err), nil
	}
	if err := f.config.Restrict(f.rule); err != nil {
		return "", fmt.Errorf("restrict files: %w", err)
	}
	return "", nil
}
