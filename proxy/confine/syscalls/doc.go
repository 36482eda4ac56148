// Package syscalls describes which system calls a process may make, and has the
// kernel hold it to that (seccomp(2)). The proxy confines itself with it
// (package confine), and so is every agent that `cofferdam run` starts (package
// shim/runner/seccomp): one compiler, which needs neither cgo nor libseccomp.
//
// A [Filter] is a plain value that prints as text. [Filter.Program] compiles it
// to the classic BPF that the kernel runs at every call; package load loads that.
//
// # Limits
//
// Only the calls of the machine's own 64-bit architecture exist: a process that
// makes one of another (int 0x80, x32) is killed. There are no verdicts but "let
// it through", an error, and "ask the listener": nothing is traced or logged.
package syscalls
