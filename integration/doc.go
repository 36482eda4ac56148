// Package integration holds the tests that drive a real containerd with real containers in a lab; it has no code of its own.
//
// The test binary starts itself anew inside the lab (package lab): own PID, mount and network namespaces, an internet of its own. Inside, one
// containerd per engine (package ctrd) is shared by all tests. A test starts a container or a sandbox, lets the probe make attempts in it, and asks the
// lab what it saw.
//
// Attacks are rows of package attack. TestAttacks makes each on every front, with its control where the wall is down; TestAttacksAfterFaults makes
// them when something has happened to the sandbox; TestAWorkspaceCannotStrikeBack those that need a repository. With -attacks FILE, as make
// attack has it, all are made, and written to a table.
//
// It needs root. A skip names what is missing, and COFFERDAM_TEST_REQUIRE (all, or a comma list) turns it into a failure.
package integration
