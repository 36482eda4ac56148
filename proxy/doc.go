// Package proxy is the wall between one sandbox and the network: it answers the
// agent's DNS queries, accepts its connections, decides about each, and relays
// the allowed ones. It is the only way out (I1), so what it does not copy does
// not leave.
//
// # Life of a connection
//
//	accept      the local address is the original destination, any address and port
//	peer        only the agent's own address is served
//	name        a synthetic address stands for one name; see names.go
//	peek        where the rule for name and port expects TLS or HTTP: the server
//	            name of the hello, or the Host of each request
//	decide      decide.go, the only place (I2): names agree, the policy allows
//	resolve     only now (I3), in the host's network
//	decide      again, for every address that the name has
//	record      one decision; what cannot be recorded does not happen (I7)
//	dial        those very addresses side by side, each decided once more in the
//	            control hook of its socket; the first that answers wins
//	relay       both directions, then one closing record
//
// A refusal is an answer that the client can read where its protocol has one:
// NXDOMAIN with an Extended DNS Error, HTTP 403 with the reason, a TLS alert. Else
// the connection is reset.
//
// # DNS
//
// No query of the agent is forwarded. A name that some rule could allow gets a
// synthetic IPv4 address that stands for it from then on; every other name does
// not exist. Addresses are never reused and survive a restart in the names file.
//
// # The HTTP proxy of a site
//
// Where Config.Proxy is set, a name that it carries is not resolved: the HTTP
// proxy is told it in a CONNECT, or the address that a rule pins. That is decided
// right before it is written. Whatever the HTTP proxy does wrong is a failure of
// the upstream, which the agent can tell from a refusal: HTTP 502, the TLS alert
// internal_error.
//
// # Limits
//
// With an HTTP proxy the addresses of names are not seen, hence not filtered.
// Inside an allowed TLS connection nothing is seen: a server that holds several
// tenants' names behind one (domain fronting) gives the agent all of them. What
// a rule allows as ssh or tcp is relayed from the first byte, whatever is
// spoken. Labels below an allowed wildcard, once connected to, are resolved and
// hence told to that domain's owner.
package proxy
