//go:build linux && !amd64

package broker

// Later architectures have none of the older calls.
var legacy map[int32]func(*request) outcome
