// Package runner runs an agent between both walls without an engine: libcontainer in this process, no daemon, no runc.
//
// It is the shim's sibling. The description (spec.Sandbox), its rules (spec.Rewrite), the two namespaces (netns), the proxy and the order
// in which they come up (shim/sandbox) are the same. What differs, and why:
//
//   - The spec to begin with is made here (spec.Program), since no engine makes one. Without a root file system of its own the agent
//     sees the host's programs, read-only.
//   - GATE is pinned nowhere, and there is no namespace for an engine to fill: all of it ends with this process. BOX is not made by
//     libcontainer, but beside GATE, early, and the container is born in it: an engine's runtime makes its own.
//   - The seccomp filter is compiled here and loaded by the sandbox's first process, not by libcontainer, which would need libseccomp.
//   - The sandbox's first process is our own (cofferdam-init): signals from a terminal, job control and orphans need one.
//
// # The journey
//
// An ordinary user's process first replaces itself in a user namespace, see package userns; root's goes on as it is. [Run] prepares the
// sandbox, whose network comes up meanwhile; makes a root file system; has libcontainer create the container, in which cofferdam-init
// waits; checks that it is in BOX, and what was mounted; then lets it go. The agent starts, and Run passes signals and the terminal on
// until it ends.
//
// # Users
//
// As root the agent is root, with the few capabilities of every sandbox. For an ordinary user there are two user namespaces. In the outer
// one, which owns BOX and the mounts, this process is root and the caller's id is 0. In the inner one the agent has the caller's own uid
// and gid, and no right over anything that the outer one owns. Files that it writes belong to the caller.
//
// Subordinate ids have the same numbers in the outer namespace as on the host. The last one is the proxy's, and nobody else has it; in the
// inner namespace the others are numbered from 0 on, around the agent's own. An agent that is not root has no way to become one of them, so
// the broker takes it for what it is, one id. Root can: the broker then does each call under the ids of who makes it, as it does for real root.
package runner
