package spec

import (
	"fmt"
	"path"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// toolPaths are where a distribution keeps programs and what they read to work: what everybody on the host may read, and
// what is the same on every machine that has the same packages. Not in it: configuration that tells of this host, its
// people or its secrets. They are patterns of [path.Match].
var toolPaths = []string{
	"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store", "/gnu/store",

	"/etc/alternatives", // to which links in /usr/bin lead
	"/etc/ca-certificates/extracted", "/etc/ssl/certs", "/etc/pki/ca-trust/extracted", "/etc/pki/tls/certs", "/etc/crypto-policies",
	"/etc/fonts", "/etc/java", "/etc/java-*", "/etc/maven", "/etc/perl", "/etc/python3*", "/etc/R", "/etc/terminfo", "/etc/vim",
}

// IsTool reports whether a path may be in Sandbox.Tools.
func IsTool(p string) bool {
	return checkPath(p) == "" && slices.ContainsFunc(toolPaths, func(pattern string) bool {
		ok, err := path.Match(pattern, p)
		return ok && err == nil
	})
}

// checkTools validates Sandbox.Tools.
func checkTools(tools []string) error {
	for i, t := range tools {
		if !IsTool(t) {
			return refused("tools["+t+"]", "not one of the places where a host keeps its programs")
		}
		for _, other := range tools[:i] {
			if overlap(t, other) {
				return refused("tools["+t+"]", "it and %s hold one another", other)
			}
		}
	}
	return nil
}

// toolMount shows the host's own t. The mounts below come along, read-only too: in a user namespace the kernel does not
// allow to leave them out (mount_namespaces(7)).
func toolMount(t string) specs.Mount {
	return specs.Mount{
		Destination: t, Type: "bind", Source: t,
		Options: []string{"rbind", "rprivate", "nosuid", "nodev", "ro", "rro"},
	}
}

// Program is what a person wants to run without an engine, which otherwise makes the spec that [Rewrite] begins with.
type Program struct {
	Args     []string
	Env      []string // KEY=VALUE
	Cwd      string   // absolute
	UID, GID uint32
	Terminal bool
	Root     string // folder that becomes the root file system
	ReadOnly bool   // the root; Home and /tmp can be written then, and are gone afterwards
	Home     string // absolute
}

// Spec returns the least that Rewrite accepts. It grants nothing: what the agent sees of the host is in the Sandbox.
func (p Program) Spec() *specs.Spec {
	s := &specs.Spec{
		Version:  "1.1.0",
		Hostname: "cofferdam", // which the proxy's DNS resolves, where an image's /etc/hosts does not
		Root:     &specs.Root{Path: p.Root, Readonly: p.ReadOnly},
		Process: &specs.Process{
			Args: p.Args, Env: p.Env, Cwd: p.Cwd, User: specs.User{UID: p.UID, GID: p.GID}, Terminal: p.Terminal,
		},
		Linux: &specs.Linux{},
	}
	if p.UID == 0 { // root in an image installs packages, root of the host writes what belongs to others in its workspace
		caps := AllowedCapabilities()
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	}
	if !p.ReadOnly {
		return s
	}
	owner := []string{fmt.Sprintf("uid=%d", p.UID), fmt.Sprintf("gid=%d", p.GID)}
	s.Mounts = []specs.Mount{
		{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "mode=1777", "size=50%"}},
		{Destination: p.Home, Type: "tmpfs", Source: "tmpfs", Options: append([]string{"nosuid", "nodev", "mode=0700", "size=50%"}, owner...)},
	}
	return s
}
