// Package world runs a program where it may spoil nothing of the host, and leaves nothing behind however it ends.
//
//	program -> keeper   outlives the others, and removes the run's cgroups and folder
//	        -> init     PID 1 of a PID namespace with own mounts: an empty /run, /var/log and /var/tmp, an overlay on /etc
//	           -> the program once more: Inside
//
// Run, called first, prepares what needs the host as it is (builds), and starts the program anew as the others. When the program or init is
// killed, the kernel ends everything in the namespaces: containerd, shims, containers, mounts. The keeper sees the end of a pipe, and so
// does its work after a SIGKILL too; if it is killed itself, the next run does.
//
// Limits: it needs root. What the host has below /run, /var/log and /var/tmp is hidden: put what is needed into the run's folder, which is in
// /tmp. The keeper removes only cgroups whose names start with that of the run's folder: use it for containerd namespaces.
package world
