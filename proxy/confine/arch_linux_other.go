//go:build linux && !amd64 && !arm64

package confine

// Self fails here: nobody has looked at what these need.
const (
	auditArch     = 0
	sysNewfstatat = 0
)
