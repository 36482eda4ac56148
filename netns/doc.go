// Package netns makes the network wall of a sandbox: two network namespaces
// and the one cable between them.
//
//	BOX (the container's)            GATE (made here, one per sandbox)       UPLINK (elsewhere)
//	lo                               lo
//	eth0 10.200.0.2/30  ── veth ──   gate 10.200.0.1/30, and nothing else    the proxy dials here,
//	default via 10.200.0.1           every IPv4 address is local (AnyIP)     with the listeners it
//	                                 listeners: TCP :15001, UDP :53    ───►  inherited from GATE
//
// The way of a connection: the agent connects to 8.8.8.8:443. BOX has one
// route, to GATE. There an nft rule (see [Rules]) hands every TCP packet,
// whatever its destination, to the listener on [ProxyPort]; the accepted
// socket's local address is 8.8.8.8:443, the original destination. UDP to port
// 53 of any address reaches the DNS socket, which answers from the queried
// address. All else is refused by GATE's kernel at once: UDP with port
// unreachable, other IPv4 protocols with protocol unreachable; ping gets no
// answer. IPv6 is off on both ends of the cable.
//
// The way of a sandbox: [Setup] makes GATE and pins it; [Gate.Listen] opens
// the sockets in it, for the proxy to inherit; once the container, and with it
// BOX, has been created, [Gate.Attach] plugs in the veth, or [Gate.MakeBox] makes
// a BOX for it to join beforehand; [Gate.Verify] proves
// right before the start that nothing else is plugged into either side;
// [Teardown] removes it all, knowing the ID alone.
//
// The wall is that there is no packet path (invariant I1 of DESIGN.md): GATE
// has no second interface, so the ruleset, the sysctls and the listeners only
// make refusals quick and attempts visible. Lose any of them and connections
// are refused, not routed. Nothing is ever made or changed in the network
// namespace of the caller, not even in passing.
//
// Namespace work happens on a locked OS thread inside one [Do]; code in there
// must start no goroutines and resolve no names, since those would run on
// other threads, in other namespaces.
//
// Limits: root of BOX, if the container is given CAP_NET_ADMIN over it, can
// cut or reconfigure its own end, which reaches GATE and no further. Who holds
// CAP_SYS_ADMIN over BOX's user namespace from outside, such as an engine's
// network plugin, can add interfaces after Verify. TCP to port 53 arrives at
// the TCP listener like TCP to any other port.
package netns
