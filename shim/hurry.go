package shim

import (
	"math"
	"runtime"
	"runtime/debug"
)

// startMemory bounds what a shim uses, in bytes, before it collects garbage for the first time.
const startMemory = 64 << 20

// hurry sets Go's runtime up for the short life of "start" and "delete", and for a shim that has no container yet. containerd's code
// asks for a collection at every 1.6 MiB, which keeps idle shims small but costs a fifth of all that a shim does to start a container;
// and for four threads, which on a machine of two spend more time on each other than on their work.
func hurry() {
	runtime.GOMAXPROCS(min(2, runtime.NumCPU()))
	debug.SetMemoryLimit(startMemory)
	debug.SetGCPercent(-1)
}

// settle collects what starting has left, and from then on as containerd's code does.
func settle() {
	debug.SetGCPercent(40)
	debug.SetMemoryLimit(math.MaxInt64)
	debug.FreeOSMemory()
}
