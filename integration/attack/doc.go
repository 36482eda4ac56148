// Package attack is the adversary: a table of what a hostile agent tries, which wall stops it, and how one sees that it does.
//
// An attack is words for the probe (integration/probe) or a script for the shell. It knows no engine, no test and nothing of how Cofferdam is made: whoever can
// have an agent run the probe, and can look at what the world around it saw, can make every attack. The oracle is not what the agent is told
// but what the world saw: the internet, the services of the host, files of the host, the workspace afterwards. Each attack has a control: the same attempt with the
// wall taken down, which must succeed, and be seen. An attack without a control that succeeds shows nothing.
//
// All returns the table, sorted by family; Table prints results; Document is the part of SECURITY.md that is made of it.
//
// Where a connection that the policy allows is part of an attack, the row says Within which names that is: whatever else is seen is an escape. The sinks then
// tell what a careless server would make of the bytes, too.
//
// To add one, put a row into the file of its family. The tests make it on every front.
package attack
