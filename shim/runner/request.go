package runner

import (
	"net/netip"

	"github.com/opencontainers/runtime-spec/specs-go"

	"cofferdam.dev/cofferdam/shim/runner/pid1"
	"cofferdam.dev/cofferdam/shim/runner/userns"
	"cofferdam.dev/cofferdam/shim/sandbox"
	"cofferdam.dev/cofferdam/spec"
)

// Request says what to run and what it may touch. The zero value of a field grants nothing. It travels as JSON into a user namespace, and Spec
// beside it, see package userns; what must be known of the host's users and owners has been looked at before.
type Request struct {
	Name string   // of the sandbox, unique among those of this person
	Args []string // the command; the first one is looked up in the agent's PATH
	Env  []string // KEY=VALUE, all that the agent gets
	Cwd  string   // in the sandbox
	Home string   // in the sandbox: a private one

	// UID and GID are whom the agent is, and User and Group what it is called.
	UID, GID    uint32
	User, Group string

	// Spec is that of an OCI bundle, with an absolute root.path; nil: one is made of Args, Env, Cwd, Home and Root.
	Spec *specs.Spec `json:"-"`
	// Root is a folder that becomes the root file system, which the agent may write to; empty: the host's own programs, read-only.
	Root string
	// Git has the files of /etc, by name, that tell git who the caller is; they count where the root file system is made here.
	Git map[string]string
	// Optional are tools that are seen only if asked for, such as /opt; see spec.IsTool.
	Optional []string
	Files    []spec.FileRule
	Policy   sandbox.Policy
	Limits   spec.Limits
	Upstream sandbox.Upstream
	Pool     netip.Prefix

	Paths sandbox.Paths
	// Proxy, Broker and Init are binaries that belong to this build.
	Proxy, Broker, Init string
	// Rootless says that this process is root of a user namespace of an ordinary user's. The caller's ids, which are 0 there, are all it has,
	// but for Others and ProxyID.
	Rootless bool
	// IDs are those that were asked for, of which Others are the agent's, beside its own.
	IDs    userns.IDs
	Others []pid1.Range
	// ProxyID is the user and the group of the proxy, and nobody else's; 0: there is none, and NoIDs says why.
	ProxyID uint32
	NoIDs   string
}

// SeveralIDs reports whether the agent's processes may have different ids: root can take those of others.
func (r Request) SeveralIDs() bool { return r.Rootless && r.UID == 0 && len(r.Others) > 0 }
