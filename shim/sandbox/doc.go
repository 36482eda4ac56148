// Package sandbox sets one container up between its two walls and takes it down again.
//
// The journey: Prepare reads the bundle, decides (everything that can refuse a container is decided before anything is changed), saves
// the state, makes GATE and its listeners, starts the proxy and writes the rewritten bundle. The caller has the OCI runtime create the
// container, which brings BOX into being. Attach lays the veth from BOX to GATE and checks that what was mounted is what was checked.
// Verify runs last, right before the agent's first instruction. Close is the reverse.
//
// The package knows nothing of containerd: whoever creates containers (the shim, the command line) calls it and says how child
// processes are started. Whatever is left after a SIGKILL is found by the sandbox's ID: a state folder, a pinned namespace, and a proxy
// that died with its parent (prctl(2), PR_SET_PDEATHSIG). A lock held by the living owner tells garbage collection what to leave alone.
package sandbox
