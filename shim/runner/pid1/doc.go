// Package pid1 is what the runner outside and cofferdam-init, the first process
// of a sandbox, say to each other over a socket.
//
// The runner has libcontainer start the binary in the finished container, as
// /proc/self/fd/3, with the files at [FDBinary] and following. Then:
//
//	runner                          cofferdam-init
//	[WriteStart]: command, filter -->
//	                              <-- [Started], or [Failed] and the end
//	[WriteSignal], any number    -->
//	                              <-- [Stopped], [Continued], any number
//	                              <-- [Exited] or [Killed], and the end
//
// The container lives no longer than this conversation: at the end of the
// runner's side, at a message that is none, and at the death of the thread that
// made it (PR_SET_PDEATHSIG: that thread must stay, runtime.LockOSThread), the
// first process ends, and with it the kernel ends every other of its PID
// namespace.
//
// # Why there is such a process
//
// The kernel shields PID 1 from signals that it has no handler for, so an agent
// in its place would not notice ^C, nor could it be stopped by ^Z; and somebody
// must reap what agents leave behind. The filter of system calls has to be loaded
// last, by somebody who needs no libseccomp.
//
// # What the agent can do to it
//
// It runs under the agent's user. It cannot be traced, its memory and descriptors
// cannot be reached (PR_SET_DUMPABLE), no signal from inside reaches it, and it
// is under the agent's own filter. An agent that finds a way to end it has ended
// its own sandbox.
//
// The package is imported by a program whose start is to take no time: no fmt, no
// os, no encoding but of bytes.
package pid1
