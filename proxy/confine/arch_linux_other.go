//go:build linux && !amd64 && !arm64

package confine

// Self fails here: package syscalls has no filter for these.
const sysNewfstatat = 0
