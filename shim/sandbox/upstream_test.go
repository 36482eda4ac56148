package sandbox

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/proxy/policy"
	"cofferdam.dev/cofferdam/proxy/upstream"
)

func TestParseServer(t *testing.T) {
	for _, test := range []struct{ in, want, err string }{
		{"192.0.2.53", "192.0.2.53:53", ""},
		{"192.0.2.54:5353", "192.0.2.54:5353", ""},
		{"127.0.0.53", "127.0.0.53:53", ""},
		{"2001:db8::53", "[2001:db8::53]:53", ""},
		{"[2001:db8::53]:5353", "[2001:db8::53]:5353", ""},
		{"", "", "neither"},
		{"dns.example", "", "neither"},
		{"192.0.2.53:", "", "neither"},
		{"192.0.2.53:dns", "", "neither"},
		{"192.0.2.53:65536", "", "neither"},
		{"192.0.2.053", "", "neither"},
		{"192.0.2.53:0", "", "port 0"},
		{"fe80::1%eth0", "", "zone"},
		{"::ffff:192.0.2.53", "", "IPv6 form"},
		{"0.0.0.0", "", "not the address of one host"},
		{"ff02::fb", "", "not the address of one host"},
	} {
		got, err := parseServer(test.in)
		if test.err == "" && (err != nil || got.String() != test.want) || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
			t.Errorf("%q: got %v, %v; want %q, %q", test.in, got, err, test.want, test.err)
		}
	}
}

func TestParseProxy(t *testing.T) {
	const secret = "hunter2"
	for _, test := range []struct{ in, host, err string }{
		{"http://proxy.corp.example:3128", "proxy.corp.example", ""},
		{"http://PROXY.corp.example.:3128", "proxy.corp.example", ""},
		{"http://proxy:3128", "proxy", ""},
		{"http://127.0.0.1:3128", "127.0.0.1", ""},
		{"http://[FD00::1]:3128", "fd00::1", ""},
		{"", "", "http://HOST:PORT"},
		{"proxy.corp.example:3128", "", "http://HOST:PORT"},
		{"//proxy.corp.example:3128", "", "http://HOST:PORT"},
		{"http://proxy.corp.example", "", "port"},
		{"http://proxy.corp.example:", "", "port"},
		{"http://proxy.corp.example:0", "", "port"},
		{"http://proxy.corp.example:65536", "", "port"},
		{"http://proxy.corp.example:3128/", "", "http://HOST:PORT"},
		{"http://proxy.corp.example:3128/x", "", "http://HOST:PORT"},
		{"http://proxy.corp.example:3128?x", "", "http://HOST:PORT"},
		{"http://proxy.corp.example:3128?", "", "http://HOST:PORT"},
		{"http://proxy.corp.example:3128#", "", "http://HOST:PORT"},
		{"https://proxy.corp.example:3128", "", "TLS is not supported"},
		{"socks5://proxy.corp.example:3128", "", "http://HOST:PORT"},
		{"http://:3128", "", "host: empty"},
		{"http://127.1:3128", "", "host: host name ends in a number"},
		{"http://[fe80::1%25eth0]:3128", "", "zone"},
		{"http://0.0.0.0:3128", "", "not the address of one host"},
		{"http://ann:" + secret + "@proxy.corp.example:3128", "", "credentials"},
		{"http://ann:" + secret + "@:x", "", "not a URL"},
		{"http://ann:" + secret + "%zz@proxy", "", "not a URL"},
	} {
		got, err := parseProxy(test.in)
		switch {
		case test.err != "":
			if err == nil || got != nil || !strings.Contains(err.Error(), test.err) || strings.Contains(err.Error(), secret) {
				t.Errorf("%q: got %v, %v; want %q", test.in, got, err, test.err)
			}
		case err != nil || got.Host != test.host || got.Port != 3128:
			t.Errorf("%q: got %v, %v", test.in, got, err)
		}
	}
}

func TestExceptions(t *testing.T) {
	for _, test := range []struct {
		in, err        string
		direct, around []string // names and addresses that it takes out, and that it does not
	}{
		{"git.corp.example", "", []string{"git.corp.example"}, []string{"www.git.corp.example", "corp.example", "10.0.0.1"}},
		{"GIT.corp.example.", "", []string{"git.corp.example"}, nil},
		{"*.corp.example", "", []string{"git.corp.example", "a.b.corp.example"}, []string{"corp.example", "evilcorp.example", "git.corp.example.test"}},
		{"*.corp", "", []string{"git.corp"}, []string{"corp"}},
		{"localhost", "", []string{"localhost"}, []string{"127.0.0.1", "localhost.test"}},
		{"10.0.0.0/8", "", []string{"10.0.0.0", "10.255.255.255"}, []string{"9.255.255.255", "11.0.0.0", "git.corp.example", "::ffff:10.0.0.1"}},
		{"10.1.2.3", "", []string{"10.1.2.3"}, []string{"10.1.2.4"}},
		{"fd00::/8", "", []string{"fd12::1"}, []string{"fc00::1", "10.0.0.1"}},
		{in: "", err: "neither"},
		{in: "*", err: "neither"},
		{in: "*.", err: "neither"},
		{in: ".corp.example", err: "neither"},
		{in: "git.*.example", err: "neither"},
		{in: "*.*.example", err: "neither"},
		{in: "corp.example:443", err: "neither"},
		{in: "a.example,b.example", err: "neither"},
		{in: "http://corp.example", err: "not a prefix"},
		{in: "10.0.0.1/8", err: "write 10.0.0.0/8"},
		{in: "10.0.0.0/33", err: "not a prefix"},
		{in: "0.0.0.0/0", err: "every address"},
		{in: "::/0", err: "every address"},
		{in: "::ffff:10.0.0.0/104", err: "IPv6 form"},
		{in: "::ffff:10.0.0.1", err: "IPv6 form"},
		{in: "fe80::1%eth0", err: "zone"},
		{in: "127.1", err: "number"},
	} {
		e, err := parseException(test.in)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%q: got %v, %v; want %q", test.in, e, err, test.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", test.in, err)
			continue
		}
		p := &upstream.Proxy{NoProxy: []upstream.Exception{e}}
		for _, host := range test.direct {
			if carries(t, p, host) {
				t.Errorf("%q does not take out %s", test.in, host)
			}
		}
		for _, host := range test.around {
			if !carries(t, p, host) {
				t.Errorf("%q takes out %s", test.in, host)
			}
		}
	}
	if !carries(t, &upstream.Proxy{NoProxy: []upstream.Exception{{}}}, "good.test") || !carries(t, &upstream.Proxy{NoProxy: []upstream.Exception{{}}}, "10.0.0.1") {
		t.Error("the zero exception takes something out")
	}
	if carries(t, nil, "good.test") {
		t.Error("no proxy carries something")
	}
}

func carries(t *testing.T, p *upstream.Proxy, host string) bool {
	t.Helper()
	if addr, err := netip.ParseAddr(host); err == nil {
		return p.Carries("", addr)
	}
	name, err := policy.ParseName(host)
	if err != nil {
		t.Fatal(err)
	}
	return p.Carries(name.String(), netip.Addr{})
}

func TestCredentials(t *testing.T) {
	const secret = "hunter2"
	for _, test := range []struct{ in, want, err string }{
		{"ann:" + secret, "ann:" + secret, ""},
		{"ann:" + secret + "\n", "ann:" + secret, ""},
		{"ann:" + secret + "\r\n", "ann:" + secret, ""},
		{"ann:", "ann:", ""},
		{"ann:a:b ü", "ann:a:b ü", ""},
		{"", "", "empty"},
		{"\n", "", "empty"},
		{secret, "", "user:password"},
		{":" + secret, "", "user:password"},
		{"ann:" + secret + "\n\n", "", "control"},
		{"ann:" + secret + "\r\nX: y\r\n", "", "control"},
		{"ann:" + secret + "\x00", "", "control"},
		{"ann:" + secret + "\xff", "", "UTF-8"},
		{"ann:" + strings.Repeat(secret, 200), "", "longer"},
	} {
		got, err := parseCredentials([]byte(test.in))
		if test.err == "" && (err != nil || string(got) != test.want) ||
			test.err != "" && (err == nil || got != "" || !strings.Contains(err.Error(), test.err) || strings.Contains(err.Error(), secret)) {
			t.Errorf("%q: %v; want %q", test.in, err, test.err)
		}
	}
}

func TestLoadUpstream(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	secret := write("secret", "ann:hunter2\n", 0o600)
	write("open", "ann:hunter2\n", 0o640)
	write("garbled", "hunter2\n", 0o600)
	write("long", "ann:"+strings.Repeat("hunter2", 1000), 0o600)
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, text string
		want       Upstream
		err        string // part of it; empty: none
	}{
		{
			"all keys", "upstream:\n  resolver: [192.0.2.53, \"192.0.2.54:5353\"]\n  proxy:\n    url: http://proxy.corp.example:3128\n" +
				"    credentials: DIR/secret\n    no_proxy: [\"*.corp.example\", 10.0.0.0/8, localhost]\n",
			Upstream{
				Resolver: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53"), netip.MustParseAddrPort("192.0.2.54:5353")},
				Proxy: &upstream.Proxy{
					Host: "proxy.corp.example", Port: 3128, Credentials: "ann:hunter2",
					NoProxy: []upstream.Exception{{Name: "corp.example", Below: true}, {Prefix: netip.MustParsePrefix("10.0.0.0/8")}, {Name: "localhost"}},
				},
			},
			"",
		},
		{"only a resolver", "upstream: {resolver: [\"::1\"]}\n", Upstream{Resolver: []netip.AddrPort{netip.MustParseAddrPort("[::1]:53")}}, ""},
		{"only a proxy", "upstream: {proxy: {url: \"http://10.0.0.1:3128\"}}\n", Upstream{Proxy: &upstream.Proxy{Host: "10.0.0.1", Port: 3128}}, ""},
		{"nothing", "upstream: {}\n", Upstream{}, ""},
		{"null", "upstream:\n", Upstream{}, ":2: upstream: must be a mapping"},
		{"text", "upstream: http://ann:hunter2@proxy\n", Upstream{}, ":2: upstream: must be a mapping"},
		{"an unknown key", "upstream:\n  resolvers: [192.0.2.53]\n", Upstream{}, ":3: upstream.resolvers: unknown key"},
		{"a key twice", "upstream:\n  resolver: [192.0.2.53]\n  resolver: [192.0.2.53]\n", Upstream{}, ":4: upstream.resolver: repeated"},
		{"no list of servers", "upstream: {resolver: 192.0.2.53}\n", Upstream{}, ":2: upstream.resolver: must be a list"},
		{"no server", "upstream: {resolver: []}\n", Upstream{}, ":2: upstream.resolver: must be a list that is not empty"},
		{"a server by name", "upstream:\n  resolver:\n    - 192.0.2.53\n    - dns.example\n", Upstream{}, ":5: upstream.resolver: \"dns.example\" is neither"},
		{"a server twice", "upstream: {resolver: [192.0.2.53, \"192.0.2.53:53\"]}\n", Upstream{}, "192.0.2.53:53 is repeated"},
		{"too many servers", "upstream: {resolver: [192.0.2.1, 192.0.2.2, 192.0.2.3, 192.0.2.4]}\n", Upstream{}, "more than 3 servers"},
		{"a number", "upstream: {resolver: [53]}\n", Upstream{}, "must be text"},
		{"a null proxy", "upstream:\n  proxy:\n", Upstream{}, ":3: upstream.proxy: must be a mapping"},
		{"a proxy that is its URL", "upstream: {proxy: \"http://ann:hunter2@proxy:1\"}\n", Upstream{}, ":2: upstream.proxy: must be a mapping"},
		{"no URL", "upstream:\n  proxy: {no_proxy: [localhost]}\n", Upstream{}, ":3: upstream.proxy.url: missing"},
		{"a password in the URL", "upstream:\n  proxy: {url: \"http://ann:hunter2@proxy:1\"}\n", Upstream{}, ":3: upstream.proxy.url: holds credentials"},
		{"a password", "upstream:\n  proxy:\n    url: http://proxy:1\n    password: hunter2\n", Upstream{}, ":5: upstream.proxy.password: unknown key"},
		{"an exception for all", "upstream:\n  proxy: {url: \"http://p:1\", no_proxy: [\"*\"]}\n", Upstream{}, ":3: upstream.proxy.no_proxy: \"*\" is neither"},
		{"a relative path", "upstream: {proxy: {url: \"http://p:1\", credentials: secret}}\n", Upstream{}, "not an absolute path"},
		{"no file", "upstream: {proxy: {url: \"http://p:1\", credentials: DIR/none}}\n", Upstream{}, "upstream.proxy.credentials: open DIR/none: no such file"},
		{"a file that others can read", "upstream: {proxy: {url: \"http://p:1\", credentials: DIR/open}}\n", Upstream{}, "chmod 0600 DIR/open"},
		{"a file of something else", "upstream: {proxy: {url: \"http://p:1\", credentials: DIR/garbled}}\n", Upstream{}, "DIR/garbled: is not of the form user:password"},
		{"a long file", "upstream: {proxy: {url: \"http://p:1\", credentials: DIR/long}}\n", Upstream{}, "DIR/long: is longer"},
		{"a fifo", "upstream: {proxy: {url: \"http://p:1\", credentials: DIR/fifo}}\n", Upstream{}, "DIR/fifo: not a regular file"},
		{"a folder", "upstream: {proxy: {url: \"http://p:1\", credentials: DIR}}\n", Upstream{}, "DIR: not a regular file"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := write("config.yaml", "version: 1\n"+strings.ReplaceAll(test.text, "DIR", dir), 0o644)
			got, err := LoadConfig(path)
			if test.err != "" {
				if err == nil || !strings.HasPrefix(err.Error(), path+":") || !strings.Contains(err.Error(), strings.ReplaceAll(test.err, "DIR", dir)) {
					t.Errorf("error %v, want the path and %q in it", err, test.err)
				}
				if strings.Contains(fmt.Sprint(err), "hunter2") {
					t.Errorf("the error tells the password: %v", err)
				}
				test.want = Upstream{}
			} else if err != nil {
				t.Error(err)
			}
			if !reflect.DeepEqual(got.Upstream, test.want) {
				t.Errorf("got %+v, want %+v", got.Upstream, test.want)
			}
		})
	}
	t.Run("of another owner", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("missing: root (to give a file away)")
		}
		path := write("theirs", "ann:hunter2\n", 0o600)
		if err := os.Chown(path, 1000, 1000); err != nil {
			t.Fatal(err)
		}
		if _, err := readCredentials(path); err == nil || !strings.Contains(err.Error(), "chown root") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("a named file has no say", func(t *testing.T) {
		ours := write("config.yaml", "version: 1\nupstream: {proxy: {url: \"http://p:1\", credentials: "+secret+"}}\n", 0o644)
		named := write("named.yaml", "version: 1\nlimits: {pids: 7}\n", 0o644)
		for _, name := range []string{"", ours, named} {
			if c, err := LoadConfigs(ours, name); err != nil || c.Upstream.Proxy == nil || c.Upstream.Proxy.Credentials == "" {
				t.Errorf("%q: %+v, %v", name, c, err)
			}
		}
		for _, text := range []string{"{resolver: [192.0.2.53]}", "{}", "", "x"} {
			write("named.yaml", "version: 1\nupstream: "+text+"\n", 0o644)
			if c, err := LoadConfigs(ours, named); err == nil || err.Error() != named+":2: upstream: only "+ours+" may say it" || c.Upstream.Proxy != nil {
				t.Errorf("%q: %+v, %v", text, c, err)
			}
		}
	})
}
