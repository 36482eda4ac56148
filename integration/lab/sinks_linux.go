package lab

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/integration/outcome"
)

// Ports of the sinks. A packet to any other port is recorded as a frame and refused by the kernel.
var (
	portsHTTP = []int{80, 8080}
	portsTLS  = []int{443, 8443}
	portsSSH  = []int{22, 2222}
	portsEcho = []int{7, 853, 5432}                                           // TCP
	portsUDP  = []int{7, 123, 443, 853, 3478, 4789, 5353, 5355, 51820, 33434} // UDP; 53 is DNS
)

// listen opens every sink. Each ends when the lab is closed.
func (l *Lab) listen() error {
	return l.Do(func() error {
		lc := net.ListenConfig{}
		lc.SetMultipathTCP(false)
		ctx := context.Background()
		// Dual-stack: IPv4 arrives as a mapped address, which the record shows unmapped.
		tcp := func(ports []int, serve func(net.Listener)) error {
			for _, port := range ports {
				ln, err := lc.Listen(ctx, "tcp", net.JoinHostPort("::", strconv.Itoa(port)))
				if err != nil {
					return err
				}
				l.closers = append(l.closers, ln.Close)
				go serve(ln)
			}
			return nil
		}
		web := &http.Server{Handler: http.HandlerFunc(l.serveHTTP), ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: 30 * time.Second}
		web.TLSConfig = &tls.Config{GetCertificate: l.certificate, NextProtos: []string{"h2", "http/1.1"}}
		if err := tcp(portsHTTP, func(ln net.Listener) { web.Serve(overhearing{ln, l, carelessHTTP}) }); err != nil {
			return err
		}
		if err := tcp(portsTLS, func(ln net.Listener) { web.ServeTLS(overhearing{ln, l, carelessTLS}, "", "") }); err != nil {
			return err
		}
		each := func(handle func(net.Conn)) func(net.Listener) {
			return func(ln net.Listener) {
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					go func() {
						defer c.Close()
						handle(c)
					}()
				}
			}
		}
		if err := tcp(portsSSH, each(l.serveSSH)); err != nil {
			return err
		}
		if err := tcp(portsEcho, each(l.serveEcho)); err != nil {
			return err
		}
		if err := tcp([]int{53}, each(l.serveDNS)); err != nil {
			return err
		}
		for _, port := range portsUDP {
			err := l.listenUDP(port, func(src, dst netip.AddrPort, msg []byte) func() []byte {
				l.record.add(Event{Kind: "udp", Src: src, Dst: dst, Detail: start(msg), Bytes: int64(len(msg))})
				return func() []byte { return append([]byte(outcome.Marker+" "), msg...) }
			})
			if err != nil {
				return err
			}
		}
		return l.listenUDP(53, l.answer)
	})
}

// listenUDP answers on port of every address from the address that was asked, which takes IP_PKTINFO (ip(7), ipv6(7)).
func (l *Lab) listenUDP(port int, reply func(src, dst netip.AddrPort, msg []byte) func() []byte) error {
	for _, network := range []string{"udp4", "udp6"} {
		c, err := net.ListenUDP(network, &net.UDPAddr{Port: port})
		if err != nil {
			return err
		}
		l.closers = append(l.closers, c.Close)
		if network == "udp4" {
			p := ipv4.NewPacketConn(c)
			if err := p.SetControlMessage(ipv4.FlagDst, true); err != nil {
				return err
			}
			go serveUDP(port, reply, func(buf []byte) (int, net.IP, net.Addr, error) {
				n, cm, src, err := p.ReadFrom(buf)
				if err != nil {
					return 0, nil, nil, err
				}
				return n, cm.Dst, src, nil
			}, func(msg []byte, from net.IP, to net.Addr) { p.WriteTo(msg, &ipv4.ControlMessage{Src: from}, to) })
			continue
		}
		if err := freebind(c); err != nil {
			return err
		}
		p := ipv6.NewPacketConn(c)
		if err := p.SetControlMessage(ipv6.FlagDst, true); err != nil {
			return err
		}
		go serveUDP(port, reply, func(buf []byte) (int, net.IP, net.Addr, error) {
			n, cm, src, err := p.ReadFrom(buf)
			if err != nil {
				return 0, nil, nil, err
			}
			return n, cm.Dst, src, nil
		}, func(msg []byte, from net.IP, to net.Addr) { p.WriteTo(msg, &ipv6.ControlMessage{Src: from}, to) })
	}
	return nil
}

// freebind lets a socket send from an address that no link has (ipv6(7)); for IPv4 a local route is enough.
func freebind(c *net.UDPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = raw.Control(func(fd uintptr) { serr = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1) })
	return errors.Join(err, os.NewSyscallError("IPV6_FREEBIND", serr))
}

// serveUDP ends when the socket is closed.
func serveUDP(port int, reply func(src, dst netip.AddrPort, msg []byte) func() []byte,
	read func([]byte) (int, net.IP, net.Addr, error), write func(msg []byte, from net.IP, to net.Addr),
) {
	buf := make([]byte, 64<<10)
	for {
		n, dst, src, err := read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error for an earlier reply
		}
		to, _ := netip.AddrFromSlice(dst)
		if answer := reply(addrPort(src), netip.AddrPortFrom(to.Unmap(), uint16(port)), bytes.Clone(buf[:n])); answer != nil {
			go func() { // it may have to ask somebody, who takes a while
				if msg := answer(); msg != nil {
					write(msg, dst, src)
				}
			}()
		}
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	p, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// start prints the first bytes of a payload.
func start(msg []byte) string { return strconv.Quote(string(msg[:min(len(msg), 256)])) }

// --- names

// serveDNS answers queries over TCP (RFC 1035, 4.2.2).
func (l *Lab) serveDNS(c net.Conn) {
	for {
		var size uint16
		if binary.Read(c, binary.BigEndian, &size) != nil {
			return
		}
		msg := make([]byte, size)
		if _, err := io.ReadFull(c, msg); err != nil {
			return
		}
		var answer []byte
		if f := l.answer(addrPort(c.RemoteAddr()), addrPort(c.LocalAddr()), msg); f != nil {
			answer = f()
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
			return
		}
	}
}

// answer records a query, and returns what answers it: from the zone, where TXT of any name is the marker, or by asking somebody else. It is nil
// for what has no answer.
func (l *Lab) answer(src, dst netip.AddrPort, query []byte) func() []byte {
	event := Event{Kind: "dns", Src: src, Dst: dst, Bytes: int64(len(query))}
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil || len(m.Questions) != 1 {
		event.Detail = start(query)
		l.record.add(event)
		return nil
	}
	q := m.Questions[0]
	asked := strings.TrimSuffix(q.Name.String(), ".")
	name := strings.ToLower(asked)
	event.Detail = asked + " " + strings.TrimPrefix(q.Type.String(), "Type") // in the case that was sent, which carries bits, too
	l.record.add(event)
	if to := l.authority(name); to != "" {
		return func() []byte { return l.passOn(to, query) }
	}
	return func() []byte { return l.answerFromZone(m) }
}

// answerFromZone answers a query that has one question.
func (l *Lab) answerFromZone(m dnsmessage.Message) []byte {
	q := m.Questions[0]
	name := strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))
	m.Response, m.Authoritative, m.RecursionAvailable, m.Additionals = true, true, true, nil
	header := func() dnsmessage.ResourceHeader {
		return dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 0}
	}
	if to, ok := aliases[name]; ok {
		canonical := dnsmessage.MustNewName(to + ".")
		alias := header()
		alias.Type = dnsmessage.TypeCNAME
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: alias, Body: &dnsmessage.CNAMEResource{CNAME: canonical}})
		name, q.Name = to, canonical
	}
	var addrs []netip.Addr
	exists := flips(name) && q.Type != dnsmessage.TypeA
	if !exists {
		addrs, exists = l.lookup(name)
	}
	if !exists {
		m.RCode = dnsmessage.RCodeNameError
	}
	for _, a := range addrs {
		switch {
		case q.Type == dnsmessage.TypeA && a.Is4():
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header(), Body: &dnsmessage.AResource{A: a.As4()}})
		case q.Type == dnsmessage.TypeAAAA && a.Is6():
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header(), Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	if q.Type == dnsmessage.TypeTXT {
		m.RCode = dnsmessage.RCodeSuccess
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: header(), Body: &dnsmessage.TXTResource{TXT: []string{outcome.Marker}}})
	}
	out, err := m.Pack()
	if err != nil {
		return nil
	}
	return out
}

// --- streams

// Reply is the JSON body of the web sinks' answer.
type Reply struct {
	Lab    string      `json:"lab"` // outcome.Marker
	Addr   string      `json:"addr"`
	Proto  string      `json:"proto"`
	SNI    string      `json:"sni,omitempty"`
	Host   string      `json:"host"`
	Method string      `json:"method"`
	URL    string      `json:"url"`
	Header http.Header `json:"header"`
	Body   int64       `json:"body"` // bytes received
}

// serveHTTP answers with what it received. /bytes/N sends N bytes instead, /redirect?to=URL a 302. Other hosts than the lab's own answer
// by themselves, see Serve.
func (l *Lab) serveHTTP(w http.ResponseWriter, r *http.Request) {
	site, n := l.site(r.Host), int64(0)
	if site == nil {
		n, _ = io.Copy(io.Discard, r.Body)
	}
	local := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	reply := Reply{
		Lab: outcome.Marker, Addr: addrPort(local).String(), Proto: r.Proto, Host: r.Host,
		Method: r.Method, URL: r.URL.String(), Header: r.Header, Body: n,
	}
	scheme := "http"
	if r.TLS != nil {
		scheme, reply.SNI = "https", r.TLS.ServerName
	}
	src, _ := netip.ParseAddrPort(r.RemoteAddr)
	l.record.add(Event{
		Kind: "http", Src: netip.AddrPortFrom(src.Addr().Unmap(), src.Port()), Dst: addrPort(local),
		Detail: r.Method + " " + scheme + "://" + r.Host + r.URL.RequestURI(), Bytes: n,
	})
	if site != nil {
		site.ServeHTTP(w, r)
		return
	}
	if size, ok := strings.CutPrefix(r.URL.Path, "/bytes/"); ok {
		n, err := strconv.ParseInt(size, 10, 64)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Length", size)
		io.Copy(w, io.LimitReader(zeros{}, n))
		return
	}
	if to := r.URL.Query().Get("to"); to != "" {
		http.Redirect(w, r, to, http.StatusFound)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(reply)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// serveSSH speaks first, as a server may (RFC 4253, 4.2).
func (l *Lab) serveSSH(c net.Conn) {
	if shell := l.shell(addrPort(c.LocalAddr()).Addr()); shell != nil {
		l.record.add(Event{Kind: "ssh", Src: addrPort(c.RemoteAddr()), Dst: addrPort(c.LocalAddr())})
		shell(c.(*net.TCPConn))
		return
	}
	var line string
	if _, err := fmt.Fprintf(c, "SSH-2.0-%s\r\n", outcome.Marker); err == nil {
		line, _ = bufio.NewReader(io.LimitReader(c, 256)).ReadString('\n')
	}
	l.record.add(Event{Kind: "ssh", Src: addrPort(c.RemoteAddr()), Dst: addrPort(c.LocalAddr()), Detail: start([]byte(line))})
	io.Copy(io.Discard, c)
}

// serveEcho says the marker, then repeats what it hears.
func (l *Lab) serveEcho(c net.Conn) {
	buf := make([]byte, 64<<10)
	n, _ := c.Read(buf)
	l.record.add(Event{Kind: "tcp", Src: addrPort(c.RemoteAddr()), Dst: addrPort(c.LocalAddr()), Detail: start(buf[:n]), Bytes: int64(n)})
	if _, err := fmt.Fprintf(c, "%s %s", outcome.Marker, buf[:n]); err != nil {
		return
	}
	io.Copy(c, c)
}

// --- certificates

// authority signs a certificate for any name.
type authority struct {
	pem  []byte
	cert *x509.Certificate
	key  *ecdsa.PrivateKey

	mu   sync.Mutex
	made map[string]*tls.Certificate // by server name; guarded by mu
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "lab"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &authority{
		pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), cert: cert, key: key, made: map[string]*tls.Certificate{},
	}, nil
}

func (l *Lab) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	local, remote := addrPort(hello.Conn.LocalAddr()), addrPort(hello.Conn.RemoteAddr())
	l.record.add(Event{Kind: "tls", Src: remote, Dst: local, Detail: hello.ServerName})
	name := hello.ServerName
	if name == "" {
		name = local.Addr().String()
	}
	a := l.issue
	a.mu.Lock()
	defer a.mu.Unlock()
	if c, ok := a.made[name]; ok {
		return c, nil
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(int64(len(a.made) + 2)), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(name); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &a.key.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	c := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: a.key}
	a.made[name] = c
	return c, nil
}

// --- the host

// A Host is what a sandbox must never reach in UPLINK, where the tests themselves live: a service on loopback and on the host's own
// address, and one on an abstract socket. It counts who came.
type Host struct {
	TCP      string // a port on every address of UPLINK, "PORT"
	Abstract string // "@name"

	mu   sync.Mutex
	seen int // guarded by mu
}

// Seen returns how many connections the services have accepted.
func (h *Host) Seen() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.seen
}

// StartHost starts the services; close ends them.
func StartHost() (h *Host, close func(), err error) {
	h = &Host{Abstract: "@" + outcome.Marker + "-host"}
	lc := net.ListenConfig{}
	lc.SetMultipathTCP(false)
	tcp, err := lc.Listen(context.Background(), "tcp", "[::]:0")
	if err != nil {
		return nil, nil, err
	}
	unixSock, err := lc.Listen(context.Background(), "unix", h.Abstract)
	if err != nil {
		tcp.Close()
		return nil, nil, err
	}
	_, h.TCP, _ = net.SplitHostPort(tcp.Addr().String())
	for _, ln := range []net.Listener{tcp, unixSock} {
		go func() { // ends with its listener
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				h.mu.Lock()
				h.seen++
				h.mu.Unlock()
				go func() { // ends when the peer does, or after five seconds
					defer c.Close()
					c.SetDeadline(time.Now().Add(5 * time.Second))
					fmt.Fprintf(c, "%s host\n", outcome.Marker)
					io.Copy(io.Discard, c)
				}()
			}
		}()
	}
	return h, func() { tcp.Close(); unixSock.Close() }, nil
}
