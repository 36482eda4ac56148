//go:build linux

// Command cofferdam-broker is the process through which an agent writes to its workspaces. It is started by cofferdam, never by hand:
// package broker describes it. It must be built with CGO_ENABLED=0.
package main

import (
	"fmt"
	"os"
	"runtime"

	"cofferdam.dev/cofferdam/shim/workspace/broker"
)

func init() { runtime.LockOSThread() } // see broker.Main

func main() {
	if err := broker.Main(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "cofferdam-broker:", err)
		os.Exit(1)
	}
}
