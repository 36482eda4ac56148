// Package confine makes a process give up what a proxy does not need of the
// kernel, before it reads the first byte of an agent (I9). It is for the proxy's
// binary alone: whoever starts proxies imports package process, which is lean.
//
// Three walls, from the outside in; a proxy that was taken over must break one:
//
//   - Its user, capabilities, no_new_privs and limits are package process's.
//   - Landlock ([Files]) leaves it the few files that name resolution reads. A
//     kernel without Landlock is no error, but [Self] says so: then every file
//     that all users of the host may read can be read.
//   - Seccomp ([Proxy]) leaves it the system calls that serve, dial and relay.
//     Whatever is not listed fails with EPERM: no program is run, no process
//     made, no file opened for writing, no name bound, and what the record log
//     and the names file hold is neither overwritten nor cut off.
//
// Both are plain values that print as text; testdata has them as a reviewer can
// read them. They hold for all threads and cannot be taken back.
//
// # What replacing a file means
//
// A Landlock rule is about an inode, or about all files below a folder. Programs
// replace /etc/resolv.conf by renaming a new file over it, and the rule does not
// go over to that one. The folders below /run in which resolver services keep
// theirs are allowed as a whole. /etc is not: it holds too much that its owners
// believe to be private. So where /etc/resolv.conf is a file of /etc, a proxy
// is told by its parent what the new one has (process.NewResolvConf), and /etc/hosts
// and /etc/nsswitch.conf count as empty once they were replaced, until the proxy is
// started anew. What is written into such a file in place is seen at once.
//
// # Limits
//
// A proxy that was taken over can still connect to whatever UPLINK reaches, by
// TCP and UDP, and write what it likes at the end of its sandbox's log: both are
// its work. A name server with a zone (fe80::1%eth0) that was not in resolv.conf
// at the start is not reached before the proxy is started anew.
package confine
