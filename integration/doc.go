// Package integration holds the tests that drive a real containerd with real containers in a lab; it has no code of its own.
//
// The test binary starts itself anew inside the lab (package lab): own PID, mount and network namespaces, an internet of its own. Inside, one
// containerd per engine (package ctrd) is shared by all tests. A test starts a container, lets the probe make one attempt in it, and asks the
// lab what it saw. An escape test has a control: the same attempt under the stock runtime, where the wall is down, is seen.
//
// It needs root. A skip names what is missing, and COFFERDAM_TEST_REQUIRE (all, or a comma list) turns it into a failure.
package integration
