// Package lab is a world for integration tests that knows no other: an uplink, an internet that records everything, and a host to spoil.
//
//	test process, containerd, shims, proxies, containers           INTERNET (a second network namespace)
//	UPLINK: lo + uplink 45.67.90.2/24, 2a0e:97c0:1::2/64    veth   inet 45.67.90.1: every address is local here (AnyIP)
//	default via inet                                       ------> DNS, HTTP, TLS, SSH, echo, UDP sinks on every address
//	                                                               an AF_PACKET socket that keeps every frame
//
// Life of a test run: Main, called by TestMain, prepares what needs the real network (builds), and starts the test binary anew in a world of
// its own (package world) with an own network namespace: there is no way to the real network, and whatever is killed, nothing is left behind.
//
// The oracle of an escape test is that the lab saw nothing: take a Mark, make the attempt, and ask Since. Since first sends a fence behind
// everything that was sent before and waits until it is recorded, so that there is nothing to sleep for.
//
// Limits: the lab needs root. Tests that use Mark and Since must not run in parallel with others that send.
package lab
