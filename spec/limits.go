package spec

import (
	"fmt"
	"math"
)

// Limits bound what a sandbox uses of the machine. A zero field stands for the same field of [DefaultLimits]; there is
// no way to write "unlimited".
type Limits struct {
	MemoryBytes int64   // bytes of memory, as cgroup v2 memory.max counts them
	Pids        int64   // processes and threads
	CPUs        float64 // processors' worth of time
}

// Floors below which a runtime or the kernel refuses the value anyway: runc needs some 6 MiB to start a container, and
// CPUs become a quota of at least 1 ms per 100 ms.
const (
	minMemoryBytes = 6 << 20
	minCPUs        = 0.01
	maxCPUs        = 1 << 16
)

// DefaultLimits returns 4 GiB of memory, 1024 processes, 2 processors.
func DefaultLimits() Limits {
	return Limits{MemoryBytes: 4 << 30, Pids: 1024, CPUs: 2}
}

// Validate returns an error that names the first field which is neither zero nor a usable limit.
func (l Limits) Validate() error {
	switch {
	case l.MemoryBytes != 0 && l.MemoryBytes < minMemoryBytes:
		return fmt.Errorf("memory limit of %d bytes: want at least %d", l.MemoryBytes, minMemoryBytes)
	case l.Pids < 0:
		return fmt.Errorf("pids limit %d: want at least 1", l.Pids)
	case math.IsNaN(l.CPUs) || l.CPUs != 0 && (l.CPUs < minCPUs || l.CPUs > maxCPUs):
		return fmt.Errorf("cpu limit %v: want %v to %d", l.CPUs, minCPUs, maxCPUs)
	}
	return nil
}

// OrDefault returns l with the fields of [DefaultLimits] in place of its zero fields.
func (l Limits) OrDefault() Limits {
	d := DefaultLimits()
	if l.MemoryBytes == 0 {
		l.MemoryBytes = d.MemoryBytes
	}
	if l.Pids == 0 {
		l.Pids = d.Pids
	}
	if l.CPUs == 0 {
		l.CPUs = d.CPUs
	}
	return l
}
