package attack

import "strings"

// hellos are ways to get a TLS hello past the proxy that it would not allow. The sinks note each server name in what arrives, and whatever is no hello for
// one name.
var hellos = []Attack{
	greeted("denied-bytes", "send a denied name byte by byte", each, record(hello(serverName("evil.test")))),
	greeted("denied-records", "send a denied name in records of one byte", records(1, hello(serverName("evil.test")))),
	greeted("denied-records-bytes", "send a denied name in records of one byte, byte by byte", each, records(1, hello(serverName("evil.test")))),
	greeted("denied-split", "cut a hello within its name", cut(record(hello(serverName("evil.test"))), "ev"), pause, cutOff(record(hello(serverName("evil.test"))), "ev")),
	greeted("denied-version", "send a denied name in records of another version", strings.Replace(record(hello(serverName("evil.test"))), "\x16\x03\x01", "\x16\x03\x04", 1)),
	greeted("empty-record", "send an empty record first", "\x16\x03\x01\x00\x00"+record(hello(serverName("evil.test")))),
	greeted("alert-first", "send a warning first", "\x15\x03\x01\x00\x02\x01\x5a"+record(hello(serverName("evil.test")))),
	greeted("change-first", "change the cipher first", "\x14\x03\x01\x00\x01\x01"+record(hello(serverName("evil.test")))),
	greeted("late-byte", "send a byte that is no record first", "\x00"+record(hello(serverName("evil.test")))),

	greeted("two-entries", "give two names in one extension", record(hello(serverName("good.test", "evil.test")))),
	greeted("two-entries-last", "give two names in one extension, the allowed one last", record(hello(serverName("evil.test", "good.test")))),
	greeted("two-extensions", "give two extensions with a name", record(hello(serverName("good.test"), serverName("evil.test")))),
	greeted("two-extensions-last", "give two extensions with a name, the allowed one last", record(hello(serverName("evil.test"), serverName("good.test")))),
	greeted("other-type", "give a name of another type first", record(hello(extension(0, vector(2, "\x01", vector(2, "evil.test"), "\x00", vector(2, "good.test")))))),
	greeted("empty-name", "give an empty name", record(hello(serverName("")))),
	greeted("empty-list", "give an empty list of names", record(hello(extension(0, vector(2))))),
	greeted("no-extensions", "send a hello without extensions", record(message(1, bare))),
	greeted("trailing", "send a name behind the end of the hello", record(message(1, bare+vector(2, serverName("good.test"))+vector(2, serverName("evil.test"))))),
	greeted("list-beyond", "let the list of names end beyond its extension", record(hello("\x00\x00"+vector(2, "\x00\x40\x00", vector(2, "evil.test"))))),

	named("dot", "evil.test."),
	named("upper", "EVIL.TEST"),
	named("nul", "good.test\x00.evil.test"),
	named("nul-last", "evil.test\x00.good.test"),
	named("look-alike", "gооd.test"), // with two Cyrillic letters
	named("punycode", "xn--gd-jlca.test"),
	named("wide", "ｅｖｉｌ。test"),
	named("address", "45.67.89.66"),
	named("address-brackets", "[::ffff:45.67.89.66]"),
	named("long", strings.Repeat("a", 300)+".evil.test"),
	named("labels", strings.Repeat("a.", 120)+"evil.test"),
	named("wildcard", "*.evil.test"),
	named("space", " evil.test"),
	named("port", "evil.test:443"),
	named("below", "x.good.test"),
	named("denied", "bad.good.test"),

	greeted("v2", "send a hello of SSL 2", "\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10"+strings.Repeat("\x00\x00\x2f", 7)+strings.Repeat("x", 16)),
	greeted("ech", "encrypt another hello in an allowed one", record(hello(serverName("good.test"), extension(0xfe0d, "\x00\x00\x01\x00\x01\x42"+vector(2, strings.Repeat("k", 32))+vector(2, strings.Repeat("p", 64)))))),
	greeted("ech-only", "encrypt the only name", record(hello(extension(0xfe0d, "\x00\x00\x01\x00\x01\x42"+vector(2, strings.Repeat("k", 32))+vector(2, strings.Repeat("p", 64)))))),
	greeted("plain", "speak HTTP to a TLS port", lines("GET / HTTP/1.1$Host: good.test$$")),
	greeted("early", "send early data for a denied name", record(hello(serverName("evil.test"), extension(42, "")))+"\x17\x03\x03\x00\x20"+strings.Repeat("e", 32)),

	greetedGood("second-hello", "send a second hello at once", record(hello(serverName("good.test"))), record(hello(serverName("evil.test")))),
	greetedGood("second-in-record", "send a second hello in the record of the first", record(hello(serverName("good.test"))+hello(serverName("evil.test")))),
	greetedGood("second-begun", "begin a second hello in the record of the first", halves(hello(serverName("good.test"))+hello(serverName("evil.test")), 30)),
	greetedGood("second-warned", "send a second hello behind a warning", record(hello(serverName("good.test"))), hear, "\x15\x03\x03\x00\x02\x01\x5a"+record(hello(serverName("evil.test")))),
	greetedGood("second-late", "send a second hello when the server has answered", record(hello(serverName("good.test"))), hear, record(hello(serverName("evil.test")))),
	{
		ID: "tls.resumed", Tries: "resume the session of an allowed name under another one", Wall: Network, Invariant: "I2", Source: "RFC 8446, 4.6.1",
		Try: "tls-resume good.test:443 good.test evil.test", Down: Outside, Shows: Internet, Within: good,
	},
	{
		ID: "tls.address", Tries: "reach another address by an allowed name", Wall: Network, Invariant: "I2", Source: "RFC 6066, 3",
		Try: "https 45.67.89.66:443 good.test", Down: Outside, Shows: Internet, Within: good, Answered: true,
	},
	{
		ID: "tls.address6", Tries: "reach another IPv6 address by an allowed name", Wall: Network, Invariant: "I2", Source: "RFC 6066, 3",
		Try: "https [2a0e:97c0:ffff::1]:443 good.test", Down: Outside, Shows: Internet, Within: good, Answered: true,
	},
	{
		ID: "tls.metadata", Tries: "reach the metadata service by an allowed name", Wall: Network, Invariant: "I2", Source: "server-side request forgery",
		Try: "https 169.254.169.254:443 good.test", Down: Outside, Shows: Internet, Within: good, Answered: true,
	},
}

// greeted is what is sent to good.test on its TLS port, and must not arrive there.
func greeted(id, tries string, pieces ...string) Attack {
	return Attack{ID: "tls." + id, Tries: tries, Wall: Network, Invariant: "I2", Source: "RFC 6066, 3", Try: wire("good.test:443", pieces...), Down: Outside, Shows: Internet}
}

// greetedGood is the same behind a hello that may arrive.
func greetedGood(id, tries string, pieces ...string) Attack {
	a := greeted(id, tries, pieces...)
	a.Source, a.Within = "RFC 8446, 4.1.2", good
	return a
}

// named is a hello with one name, for good.test.
func named(id, name string) Attack {
	return greeted("name-"+id, "send another name: "+id, record(hello(serverName(name))))
}

// bare is a client hello of TLS 1.2 up to its extensions (RFC 5246, 7.4.1.2).
var bare = "\x03\x03" + strings.Repeat("r", 32) + vector(1) + vector(2, "\xc0\x2b\xc0\x2f\xc0\x2c\xc0\x30\x00\xff") + vector(1, "\x00")

// hello is the message with some extensions, and those that a server needs.
func hello(extensions ...string) string {
	needed := extension(10, vector(2, "\x00\x1d\x00\x17")) + extension(11, vector(1, "\x00")) + extension(13, vector(2, "\x04\x03\x08\x04\x04\x01\x05\x03"))
	return message(1, bare+vector(2, strings.Join(extensions, "")+needed))
}

// serverName is the extension with some names.
func serverName(names ...string) string {
	var list strings.Builder
	for _, name := range names {
		list.WriteString("\x00" + vector(2, name))
	}
	return extension(0, vector(2, list.String()))
}

func extension(kind int, content string) string { return number(2, kind) + vector(2, content) }

// message is a handshake message (RFC 8446, 4).
func message(kind byte, body string) string { return string([]byte{kind}) + vector(3, body) }

// record puts messages into one record (RFC 8446, 5.1), records into some of size bytes each.
func record(messages string) string { return "\x16\x03\x01" + vector(2, messages) }

func records(size int, messages string) (all string) {
	for len(messages) > 0 {
		n := min(size, len(messages))
		all += record(messages[:n])
		messages = messages[n:]
	}
	return all
}

// halves puts messages into two records, of which the second has the last n bytes.
func halves(messages string, n int) string {
	return record(messages[:len(messages)-n]) + record(messages[len(messages)-n:])
}

// cut is what stands before the end of mark, cutOff what stands behind it.
func cut(s, mark string) string    { return s[:strings.Index(s, mark)+len(mark)] }
func cutOff(s, mark string) string { return s[strings.Index(s, mark)+len(mark):] }
