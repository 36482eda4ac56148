package main

// int80 makes a system call of the 32-bit table from 64-bit code (arch/x86/entry/entry_64_compat.S). Pointers must lie below 4 GiB.
//
//go:noescape
func int80(nr, a, b, c uintptr) int32
