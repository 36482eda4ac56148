//go:build linux

package integration

import (
	"bufio"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"cofferdam.dev/cofferdam/integration/ctrd"
	"cofferdam.dev/cofferdam/integration/lab"
)

// site is the HTTP proxy of a site, in INTERNET at every address.
type site struct {
	l     *lab.Lab
	mu    sync.Mutex // guards told
	told  []string   // by whoever has the password
	place map[string]string
}

func newSite(t *testing.T, l *lab.Lab, place map[string]string) *site {
	t.Helper()
	s := &site{l: l, place: place}
	var listener net.Listener
	err := l.Do(func() (err error) {
		listener, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", ":3128")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() { // ends with the listener
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go s.serve(conn.(*net.TCPConn))
		}
	}()
	return s
}

// serve is one tunnel. The agent's side is over when the proxy of its sandbox ends.
func (s *site) serve(conn *net.TCPConn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	r, err := http.ReadRequest(in)
	if err != nil {
		return
	}
	if r.Header.Get("Proxy-Authorization") != "Basic "+base64.StdEncoding.EncodeToString([]byte("ann:hunter2")) {
		io.WriteString(conn, "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
		return
	}
	s.mu.Lock()
	s.told = append(s.told, r.Method+" "+r.RequestURI)
	s.mu.Unlock()
	host, port, _ := net.SplitHostPort(r.RequestURI)
	var up net.Conn
	err = s.l.Do(func() (err error) {
		up, err = net.Dial("tcp", net.JoinHostPort(s.place[host], port))
		return err
	})
	if err != nil {
		io.WriteString(conn, "HTTP/1.1 502 Bad Gateway\r\n\r\n")
		return
	}
	defer up.Close()
	io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
	go func() {
		io.Copy(up, in)
		up.(*net.TCPConn).CloseWrite()
	}()
	io.Copy(conn, up)
}

func (s *site) heard() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.told)
}

// configure writes a file of the administrator's, which lasts as long as the test. It lies in an overlay: the host never sees it.
func configure(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), mode)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	})
}

// TestASiteWithAProxyOfItsOwn: what is allowed goes through the HTTP proxy, at a private address, or directly where the administrator says so;
// what is denied is told to nobody. Invariants I2, I3.
func TestASiteWithAProxyOfItsOwn(t *testing.T) {
	Require(t, needShim)
	const credentials = "/etc/cofferdam/proxy-credentials"
	l := lab.Get(t)
	l.SetName("proxy.corp.test", "10.1.2.3")
	t.Cleanup(func() { l.SetName("proxy.corp.test") })
	configure(t, "/etc/cofferdam/config.yaml", "version: 1\nupstream:\n  resolver: ["+lab.Resolver+"]\n  proxy:\n    url: http://proxy.corp.test:3128\n"+
		"    credentials: "+credentials+"\n    no_proxy: [\"*.good.test\"]\n", 0o644)
	configure(t, credentials, "ann:hunter2\n", 0o600)
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		s := newSite(t, l, map[string]string{"good.test": lab.Good})
		box := Contained(t, d, Policy(t, onlyGood))
		for _, row := range []struct {
			name, attempt string
			told          string // to the HTTP proxy
			asked         string // of the resolver
			ok            bool
		}{
			{"an allowed name by TLS", "https good.test:443 good.test", "CONNECT good.test:443", "proxy.corp.test", true},
			{"an allowed name by HTTP", "http good.test:80 good.test", "CONNECT good.test:80", "proxy.corp.test", true},
			{"a name that goes directly", "tcp ssh.good.test:22 SSH-2.0-probe\r\n", "", "ssh.good.test", true},
			{"a name that no rule mentions", "https evil.test:443 evil.test", "", "", false},
			{"a denied name that would go directly", "https bad.good.test:443 bad.good.test", "", "", false},
		} {
			t.Run(row.name, func(t *testing.T) {
				mark, before := l.Mark(t), len(s.heard())
				got := box.Probe(t, strings.Split(row.attempt, " ")...)
				if got.OK != row.ok {
					t.Errorf("%s\n%s", got, lab.Join(l.Since(t, mark)))
				}
				var want []string
				if row.told != "" {
					want = []string{row.told}
				}
				if told := s.heard()[before:]; !slices.Equal(told, want) {
					t.Errorf("the HTTP proxy was told %q, want %q", told, want)
				}
				if !row.ok {
					l.Silent(t, mark)
				}
				for _, e := range l.Since(t, mark) {
					if e.Kind == "dns" && (row.asked == "" || !strings.Contains(e.Detail, row.asked)) {
						t.Errorf("the resolver was asked: %s", e)
					}
				}
			})
		}
	})
}

// A laptop changes networks: a new resolv.conf is renamed over the old one, which is the only one that a confined proxy may read.
func TestANewResolvConfIsFollowed(t *testing.T) {
	Require(t, needShim, needLandlock)
	const conf, other = "/etc/resolv.conf", "9.9.9.10"
	old, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	replace := func(text []byte) {
		t.Helper()
		if err := errors.Join(os.WriteFile(conf+".new", text, 0o644), os.Rename(conf+".new", conf)); err != nil {
			t.Fatal(err)
		}
	}
	l := lab.Get(t)
	box := Contained(t, Engine(t, "v2"), Policy(t, onlyGood))
	asked := func() string {
		mark := l.Mark(t)
		box.Probe(t, "https", "good.test:443", "good.test")
		for _, e := range l.Since(t, mark) {
			if e.Kind == "dns" {
				return e.Dst.Addr().String()
			}
		}
		return "nobody"
	}
	if got := asked(); got != lab.Resolver {
		t.Fatalf("%s was asked, want %s", got, lab.Resolver)
	}
	replace([]byte("nameserver " + other + "\n"))
	t.Cleanup(func() { replace(old) })
	eventually(t, "the new server is asked", func() bool { return asked() == other })
}

// The administrator chooses where names lead inside; a sandbox keeps to it, whatever is chosen later, and so does a proxy that is started anew.
func TestSyntheticAddressesAreTheConfiguredOnes(t *testing.T) {
	Require(t, needShim)
	const config = "/etc/cofferdam/config.yaml"
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		configure(t, config, "version: 1\nsynthetic_addresses: 29.64.0.0/16\n", 0o644)
		box := Contained(t, d, Policy(t, onlyGood))
		check := func(when, name, block string) {
			t.Helper()
			got := box.Probe(t, "dns", name, "-", "A")
			if !strings.Contains(got.String(), block) {
				t.Errorf("%s %s is at %s", when, name, got)
			}
			if got := box.Probe(t, "https", "good.test:443", "good.test"); !got.OK {
				t.Errorf("%s what is allowed is not reached: %s", when, got)
			}
		}
		check("at first", "good.test", "29.64.0.")
		if err := os.WriteFile(config, []byte("version: 1\nsynthetic_addresses: 31.0.0.0/16\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		before := inspect(t, d, box).Proxy
		if err := before.Kill(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "there is another proxy", func() bool { return inspect(t, d, box).Proxy.PID != before.PID })
		check("after a restart", "good.test", "29.64.0.")
		check("after a restart, asked for first,", "ssh.good.test", "29.64.0.")
		box = Contained(t, d, Policy(t, onlyGood))
		check("in another sandbox", "good.test", "31.0.0.")
	})
}
