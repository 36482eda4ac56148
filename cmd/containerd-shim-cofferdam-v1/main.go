//go:build linux

// Command containerd-shim-cofferdam-v1 is the containerd shim io.containerd.cofferdam.v1. containerd finds it in its PATH by that name
// and is its only caller; see package shim.
package main

import (
	"context"

	"cofferdam.dev/cofferdam/shim"
)

func main() {
	shim.Run(context.Background())
}
