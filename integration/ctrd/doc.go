// Package ctrd runs a containerd of its own for tests, of one of several versions, below one short folder.
//
// A Daemon is started once per engine and shared. Its root, state and sockets lie below /run/cd/NAME, short because a socket's address has
// 108 bytes, and on the lab's tmpfs, so that they vanish with it. Containers are driven with that version's ctr. Limits: it must be called in
// the lab (package lab), which owns what a killed test leaves; the CRI plugin is off.
package ctrd
