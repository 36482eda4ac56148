// Package shim is the containerd shim io.containerd.cofferdam.v1.
//
// It decorates containerd's own runc task service: a task call goes through our method of the same name if we have one and straight to
// the inner service if not (service_test.go lists which is which). The OCI runtime, runc or crun, does the actual containing.
//
// The life of a container: containerd runs the binary with "start", which leaves the shim process behind and answers with its socket
// (bootstrap.go: two protocols, one for containerd up to 2.2 and one from 2.3 on). Create sets up both walls around the rewritten bundle
// and has the inner service create the container between them; Start looks a last time whether the walls are whole; Exec's process goes
// through the same rules; Delete takes everything down. Package sandbox has the order and its undoing.
//
// What happens on a failure: a shim that dies takes the proxy with it, and the agent is cut off until containerd notices and runs the
// binary with "delete" (manager.go), which removes the container and what is left of the sandbox. A proxy that dies is started again;
// connections wait in the listeners' queues, which the shim holds too. A restart of containerd touches nothing.
package shim
