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
// NXDOMAIN with an Extended DNS Error, HTTP 403 with the reason in text or JSON
// (refusal.go), a TLS alert for each fault of a hello, a SOCKS reply. Else the
// connection is reset.
//
// # HTTP
//
// Each request is decided by its own host (http.go). Heads and chunks are read
// strictly (http_head.go, http_body.go): what RFC 9112 lets a recipient repair is
// refused with 400, or 502 if it is an answer. Nothing is passed on as it came: a
// message is written anew from what was read, in HTTP/1.1 with one Host and one
// framing to the server, in the agent's version to the agent. What belongs to a hop
// is left out, everything else stays as it is, in its order. Expect, interim
// answers, trailers and a change of protocol to websocket are passed on.
//
// A connection to a server serves requests of one connection of the agent, one by
// one, as long as it is quiet between them. A request is sent again on a new one
// only if it may be repeated, all of it is here and nothing was read of an answer.
//
// # Proxies on the gate
//
// Programs that insist on a proxy find HTTP on port 3128 and SOCKS5 on port 1080
// of Config.Gate (gate.go). A tunnel is the same journey from "name" on: its
// target stands where a synthetic address would, what is inside must agree with
// it, and where the rule expects ssh or tcp the answer waits for the dial.
// Absolute-form requests are decided one by one.
//
// # DNS
//
// No query of the agent is forwarded. A name that some rule could allow gets a
// synthetic IPv4 address that stands for it from then on; every other name does
// not exist. Addresses are never reused and survive a restart in the names file.
// The name of an address that was given out is told too (PTR); for every other
// type an allowed name has no records. A name that a search list seems to have
// made under a wildcard does not exist.
//
// # Budgets
//
// A rule may bound what it lets through. decide refuses what a used-up budget
// has no room for, and counts connections and requests as it allows them. Bytes
// are counted by the relay before it passes them on, so that none leaves beyond
// the budget; the connection that would send one more is reset. What is bounded is
// not spliced. A new policy holds for what is open: it is charged to its rule's new
// budget, or reset if it was not counted until then. The counts live in memory: a proxy that is started anew begins
// them anew, and its record "started" says so.
//
// # Caps
//
// One agent has one proxy, so what it uses up is its own: 2048 connections
// (further ones wait in the kernel's queue, where UDP queries do not), 64
// of them for DNS, 128 names or addresses that are being resolved or dialled
// (further ones wait 10 s and are refused), 65536 names with an address. That a
// cap was reached is recorded once a minute. Each connection holds two buffers of
// 32 KiB at most, of HTTP some 300 KiB if both heads are as long as they may be;
// it fills them no faster than the other side empties them, and an idle one has
// none. At most 16 directions are spliced at once. A connection ends after an hour
// without a byte and after a day in any case; a peer that vanished is found within
// two minutes.
//
// Denials have a record each until there are 50 in ten seconds; further ones are
// counted by kind. If the proxy is killed, the counts of the last ten seconds are
// lost. What is allowed is never counted together.
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
// tenants' names behind one (domain fronting) gives the agent all of them, and
// where a rule accepts encrypted client hellos the name that counts may be
// another than the one that was decided. Of what a rule allows as ssh the first
// line of each side is checked, see ssh.go; what it allows as tcp is relayed from
// the first byte, whatever is spoken. Labels below an allowed wildcard, once
// connected to, are resolved and hence told to that domain's owner.
package proxy
