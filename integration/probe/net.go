//go:build linux

package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/net/proxy"
	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/integration/outcome"
)

// errForeign means that somebody answered, but not the lab.
var errForeign = errors.New("the reply is not the lab's")

func init() {
	attempts["tcp"] = attempt{"ADDR:PORT [PAYLOAD]", 1, func(a []string, o *outcome.Outcome) error {
		return tcp(a[0], append(a, "probe\r\n")[1], o)
	}}
	attempts["tcp-any"] = attempt{"ADDR:PORT...: OK if one of them answers", 1, func(a []string, o *outcome.Outcome) error {
		var errs []error
		for _, addr := range a {
			err := tcp(addr, "probe\r\n", o)
			if err == nil {
				o.Detail = addr
				return nil
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	}}
	attempts["udp"] = attempt{"ADDR:PORT [PAYLOAD]", 1, func(a []string, o *outcome.Outcome) error {
		return udp(a[0], []byte(append(a, "probe")[1]), o)
	}}
	attempts["dns"] = attempt{"NAME SERVER:PORT [TYPE] [tcp]; SERVER - is the first of /etc/resolv.conf", 2, lookup}
	attempts["http"] = attempt{"ADDR:PORT HOST [METHOD] [PATH]", 2, func(a []string, o *outcome.Outcome) error {
		c, err := dial(a[0], o)
		if err != nil {
			return err
		}
		defer c.Close()
		return request(c, a[1], a[2:], o)
	}}
	attempts["https"] = attempt{"ADDR:PORT SNI [HOST] [METHOD] [PATH]; SNI - sends none", 2, func(a []string, o *outcome.Outcome) error {
		c, err := dial(a[0], o)
		if err != nil {
			return err
		}
		defer c.Close()
		return secure(c, a[1], a[2:], o)
	}}
	attempts["https-via"] = attempt{"PROXY-URL ADDR:PORT SNI [HOST] [METHOD] [PATH]: in a tunnel", 3, func(a []string, o *outcome.Outcome) error {
		c, err := tunnel(a[0], a[1], o)
		if err != nil {
			return err
		}
		defer c.Close()
		return secure(c, a[2], a[3:], o)
	}}
	attempts["tcp-via"] = attempt{"PROXY-URL ADDR:PORT PAYLOAD: in a tunnel", 3, func(a []string, o *outcome.Outcome) error {
		c, err := tunnel(a[0], a[1], o)
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := io.WriteString(c, a[2]); err != nil {
			return err
		}
		return hear(c, o)
	}}
	attempts["listen"] = attempt{"PORT: says the marker to each connection, on every address, until SIGTERM", 1, listen}
	attempts["unix"] = attempt{"PATH or @NAME", 1, func(a []string, o *outcome.Outcome) error {
		c, err := net.DialTimeout("unix", a[0], patience)
		if err != nil {
			return err
		}
		defer c.Close()
		return hear(c, o)
	}}
	attempts["addrs"] = attempt{": the interfaces and their addresses", 0, func(_ []string, o *outcome.Outcome) error {
		links, err := net.Interfaces()
		if err != nil {
			return err
		}
		for _, l := range links {
			addrs, err := l.Addrs()
			if err != nil {
				return err
			}
			o.Detail += fmt.Sprintf("%s %v;", l.Name, addrs)
		}
		return nil
	}}
}

// dial connects, to a name as the resolver of the image would. It does not use MPTCP: the walls are not what it tests.
func dial(addr string, o *outcome.Outcome) (net.Conn, error) {
	d := net.Dialer{Timeout: patience}
	d.SetMultipathTCP(false)
	c, err := d.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	o.Connected = true
	return c, c.SetDeadline(time.Now().Add(patience))
}

func tcp(addr, payload string, o *outcome.Outcome) error {
	c, err := dial(addr, o)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.WriteString(c, payload); err != nil {
		return err
	}
	return hear(c, o)
}

// tunnel connects to addr through a proxy, whose URL has the scheme http or socks5.
func tunnel(proxyURL, addr string, o *outcome.Outcome) (net.Conn, error) {
	scheme, host, _ := strings.Cut(proxyURL, "://")
	c, err := dial(host, o)
	if err != nil {
		return nil, err
	}
	if scheme == "socks5" {
		dialer, err := proxy.SOCKS5("tcp", host, nil, given{c})
		if err != nil {
			return nil, err
		}
		return dialer.Dial("tcp", addr)
	}
	if _, err := fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", addr, addr); err != nil {
		return nil, err
	}
	in := bufio.NewReader(c)
	r, err := http.ReadResponse(in, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return nil, err
	}
	if r.Body.Close(); r.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the proxy says %s", r.Status)
	}
	return ahead{c, in}, nil
}

// given is a dialer of one connection that is there already.
type given struct{ net.Conn }

func (g given) Dial(string, string) (net.Conn, error) { return g.Conn, nil }

// ahead is a connection of which more was read than was asked for.
type ahead struct {
	net.Conn
	in *bufio.Reader
}

func (a ahead) Read(b []byte) (int, error) { return a.in.Read(b) }

// secure makes a TLS connection and sends one request. rest may begin with another host than the server name.
func secure(c net.Conn, name string, rest []string, o *outcome.Outcome) error {
	host := name
	if len(rest) > 0 {
		host, rest = rest[0], rest[1:]
	}
	// What is asked is who was reached, not whether to trust it: the lab's authority is unknown in here.
	config := &tls.Config{InsecureSkipVerify: true, ServerName: name}
	if name == "-" {
		config.ServerName = ""
	}
	s := tls.Client(c, config)
	if err := s.Handshake(); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	return request(s, host, rest, o)
}

// hear reads until the marker has come, or until the end.
func hear(c net.Conn, o *outcome.Outcome) error {
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	var got bytes.Buffer
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		got.Write(buf[:n])
		o.Reply = got.String()
		if bytes.Contains(got.Bytes(), []byte(outcome.Marker)) {
			return nil
		}
		if err == nil && got.Len() < 64<<10 {
			continue
		}
		if got.Len() > 0 {
			return errForeign
		}
		return err
	}
}

func udp(addr string, payload []byte, o *outcome.Outcome) error {
	c, err := net.DialTimeout("udp", addr, patience)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write(payload); err != nil {
		return err
	}
	return hear(c, o)
}

// request sends one request as bytes, so that nothing corrects it, and reads the whole answer.
func request(c net.Conn, host string, rest []string, o *outcome.Outcome) error {
	method, path := "GET", "/"
	if len(rest) > 0 {
		method = rest[0]
	}
	if len(rest) > 1 {
		path = rest[1]
	}
	if _, err := fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: probe\r\nConnection: close\r\n\r\n", method, path, host); err != nil {
		return err
	}
	got, err := io.ReadAll(io.LimitReader(c, 64<<10))
	o.Reply = string(got)
	if bytes.Contains(got, []byte(outcome.Marker)) {
		return nil
	}
	if len(got) > 0 || err == nil {
		return errForeign
	}
	return err
}

var types = map[string]dnsmessage.Type{
	"A": dnsmessage.TypeA, "AAAA": dnsmessage.TypeAAAA, "TXT": dnsmessage.TypeTXT, "MX": dnsmessage.TypeMX, "NS": dnsmessage.TypeNS,
	"SRV": dnsmessage.TypeSRV, "ANY": dnsmessage.TypeALL, "HTTPS": 65, "SVCB": 64, "NULL": 10, "AXFR": dnsmessage.TypeAXFR, "CNAME": dnsmessage.TypeCNAME,
}

// lookup asks one server one question. It is OK if there is an answer; the answers are in Reply, the response code in Detail.
func lookup(a []string, o *outcome.Outcome) error {
	server := a[1]
	if server == "-" {
		conf, err := os.ReadFile("/etc/resolv.conf")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(conf)) {
			if f := strings.Fields(line); len(f) == 2 && f[0] == "nameserver" {
				server = net.JoinHostPort(f[1], "53")
				break
			}
		}
	}
	typ, network := dnsmessage.TypeA, "udp"
	if len(a) > 2 {
		known, ok := types[a[2]]
		if !ok {
			return fmt.Errorf("type %s is not known here", a[2])
		}
		typ = known
	}
	if len(a) > 3 {
		network = a[3]
	}
	name, err := dnsmessage.NewName(strings.TrimSuffix(a[0], ".") + ".")
	if err != nil {
		return err
	}
	query, err := (&dnsmessage.Message{
		Header:    dnsmessage.Header{ID: uint16(os.Getpid()), RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: name, Type: typ, Class: dnsmessage.ClassINET}},
	}).Pack()
	if err != nil {
		return err
	}
	c, err := net.DialTimeout(network, server, patience)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if network == "tcp" {
		query = append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)
	}
	if _, err := c.Write(query); err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	n := 0
	if network == "tcp" {
		if _, err := io.ReadFull(c, buf[:2]); err != nil {
			return err
		}
		n, err = io.ReadFull(c, buf[:binary.BigEndian.Uint16(buf)])
	} else {
		n, err = c.Read(buf)
	}
	if err != nil {
		return err
	}
	var m dnsmessage.Message
	if err := m.Unpack(buf[:n]); err != nil {
		return err
	}
	o.Detail = strings.TrimPrefix(m.RCode.String(), "RCode")
	var found []string
	for _, r := range m.Answers {
		switch b := r.Body.(type) {
		case *dnsmessage.AResource:
			found = append(found, netip.AddrFrom4(b.A).String())
		case *dnsmessage.AAAAResource:
			found = append(found, netip.AddrFrom16(b.AAAA).String())
		default:
			found = append(found, r.Body.GoString())
		}
	}
	for _, r := range m.Additionals {
		if opt, ok := r.Body.(*dnsmessage.OPTResource); ok {
			for _, option := range opt.Options {
				if option.Code == 15 && len(option.Data) >= 2 { // Extended DNS Error, RFC 8914
					o.Detail += " EDE=" + strconv.Itoa(int(binary.BigEndian.Uint16(option.Data))) + " " + string(option.Data[2:])
				}
			}
		}
	}
	o.Reply = strings.Join(found, " ")
	if len(found) == 0 {
		return errors.New("no answer")
	}
	return nil
}

// listen prints nothing until it is told to end: whether it is there is seen by connecting to it.
func listen(a []string, o *outcome.Outcome) error {
	ln, err := net.Listen("tcp", "0.0.0.0:"+a[0])
	if err != nil {
		return err
	}
	done := make(chan os.Signal, 1)
	signal.Notify(done, unix.SIGTERM)
	go func() {
		<-done
		ln.Close()
	}()
	for {
		c, err := ln.Accept()
		if err != nil {
			return nil
		}
		o.Reply += c.RemoteAddr().String() + " "
		go func() {
			defer c.Close()
			io.WriteString(c, outcome.Marker+" listener\n")
			c.SetDeadline(time.Now().Add(patience))
			io.Copy(io.Discard, c)
		}()
	}
}
