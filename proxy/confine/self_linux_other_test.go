//go:build linux && !amd64

package confine

// machineActs are the other ways into the kernel that this machine has.
var machineActs []act
