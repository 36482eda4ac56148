package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"cofferdam.dev/cofferdam/integration/outcome"
)

// ears are what listens on this machine: a web server on loopback, and services on every address that nobody may reach. They answer, and
// remember.
type ears struct {
	web, sink int // ports

	alone net.Listener // holds the name by which others see that somebody listens
	http  *http.Server
	tcp   net.Listener
	udp   net.PacketConn
	icmp  net.PacketConn
	raw   net.PacketConn

	mu    sync.Mutex
	hosts []string            // Host of each request to the web server; guarded by mu
	heard map[string][]string // by kind: from whom, and what; guarded by mu
}

const rawProtocol = "ip4:253" // for experiments (RFC 3692)

// listen waits until no other demonstration listens on this machine: raw sockets hear them all.
func listen(ctx context.Context) (e *ears, err error) {
	e = &ears{heard: map[string][]string{}}
	defer func() {
		if err != nil {
			e.close()
		}
	}()
	for e.alone == nil {
		if e.alone, err = net.Listen("unix", "@cofferdam-demo"); err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return e, fmt.Errorf("another demonstration runs on this machine: %w", err)
		case <-time.After(50 * time.Millisecond): // nothing tells when
		}
	}
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return e, err
	}
	e.web = web.Addr().(*net.TCPAddr).Port
	e.http = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		e.hosts = append(e.hosts, r.Host)
		e.mu.Unlock()
		fmt.Fprintf(w, "%s web server\n", outcome.Marker)
	})}
	go e.http.Serve(web) // ends with close

	if e.tcp, err = net.Listen("tcp", ":0"); err != nil {
		return e, err
	}
	e.sink = e.tcp.Addr().(*net.TCPAddr).Port
	if e.udp, err = net.ListenPacket("udp", fmt.Sprintf(":%d", e.sink)); err != nil {
		return e, err
	}
	if e.icmp, err = net.ListenPacket("ip4:icmp", "0.0.0.0"); err != nil {
		return e, err
	}
	if e.raw, err = net.ListenPacket(rawProtocol, "0.0.0.0"); err != nil {
		return e, err
	}
	go e.accept()
	go e.receive("udp", e.udp, func([]byte) bool { return true })
	// Others may ping this machine too: only echo requests of the probe and of the fence count.
	go e.receive("icmp", e.icmp, func(p []byte) bool {
		return len(p) > 8 && p[0] == 8 && (bytes.HasSuffix(p, []byte("probe")) || bytes.Contains(p, []byte(fence)))
	})
	go e.receive("raw", e.raw, func([]byte) bool { return true })
	return e, nil
}

func (e *ears) close() {
	if e.http != nil {
		e.http.Close()
	}
	for _, c := range []net.Listener{e.tcp, e.alone} {
		if c != nil {
			c.Close()
		}
	}
	for _, c := range []net.PacketConn{e.udp, e.icmp, e.raw} {
		if c != nil {
			c.Close()
		}
	}
}

func (e *ears) note(kind, what string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.heard[kind] = append(e.heard[kind], what)
}

// accept notes each connection, in the order of arrival, and what it says. It ends with close.
func (e *ears) accept() {
	for {
		c, err := e.tcp.Accept()
		if err != nil {
			return
		}
		e.note("tcp", c.RemoteAddr().String())
		go func() { // ends after a second
			defer c.Close()
			c.SetDeadline(time.Now().Add(time.Second)) //nolint:errcheck // a TCP connection has deadlines
			fmt.Fprintf(c, "%s sink\n", outcome.Marker)
			buf := make([]byte, 64<<10)
			n, _ := c.Read(buf)
			e.note("tcp text", string(buf[:n]))
		}()
	}
}

// receive notes each packet that counts. It ends with close.
func (e *ears) receive(kind string, c net.PacketConn, counts func([]byte) bool) {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		if counts(buf[:n]) {
			e.note(kind, string(buf[:n]))
			if kind == "udp" {
				c.WriteTo([]byte(outcome.Marker+" sink\n"), from) //nolint:errcheck // who has gone needs no answer
			}
		}
	}
}

const fence = "cofferdam demo fence"

// settle sends a fence behind everything that was sent before, and returns when all ears have heard it: what they have not heard by then,
// nobody has sent. An ear that is deaf is an error.
func (e *ears) settle(ctx context.Context) error {
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", e.sink))
	if err != nil {
		return err
	}
	defer c.Close()
	fmt.Fprint(c, fence)
	u, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", e.sink))
	if err != nil {
		return err
	}
	defer u.Close()
	fmt.Fprint(u, fence)
	lo := &net.IPAddr{IP: net.IPv4(127, 0, 0, 1)}
	echo := append([]byte{8, 0, 0, 0, 0, 0, 0, 0}, fence...) // the checksum is wrong, so that nobody answers; raw sockets hear it all the same
	_, icmpErr := e.icmp.WriteTo(echo, lo)
	_, rawErr := e.raw.WriteTo([]byte(fence), lo)
	if err := errors.Join(icmpErr, rawErr); err != nil {
		return err
	}
	for {
		e.mu.Lock()
		deaf := ""
		for kind, text := range map[string]string{"tcp": c.LocalAddr().String(), "udp": fence, "icmp": fence, "raw": fence} {
			if !strings.Contains(strings.Join(e.heard[kind], "\n"), text) {
				deaf = kind
			}
		}
		e.mu.Unlock()
		if deaf == "" {
			e.forget(c.LocalAddr().String())
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the %s ear does not hear the demonstration itself", deaf)
		case <-time.After(time.Millisecond): // nothing tells when
		}
	}
}

// forget removes the fence from what was heard.
func (e *ears) forget(fenceAddr string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for kind, all := range e.heard {
		var rest []string
		for _, s := range all {
			if s != fenceAddr && !strings.Contains(s, fence) {
				rest = append(rest, s)
			}
		}
		e.heard[kind] = rest
	}
}

// count returns how often the ears of these kinds have heard something.
func (e *ears) count(kinds ...string) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, k := range kinds {
		n += len(e.heard[k])
	}
	return n
}

// everything is all that was said to the ears.
func (e *ears) everything() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var b strings.Builder
	for _, all := range e.heard {
		b.WriteString(strings.Join(all, "\n"))
	}
	return b.String()
}

// requested returns the Host of each request.
func (e *ears) requested() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.hosts...)
}

// addresses returns loopback and one more address of this machine, if it has one.
func addresses() []string {
	out := []string{"127.0.0.1", "::1"}
	all, _ := net.InterfaceAddrs()
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && n.IP.To4() != nil {
			return append(out, n.IP.String())
		}
	}
	return out
}
