//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"

	"cofferdam.dev/cofferdam/integration/outcome"
)

// ears are what listens on this machine: a web server on loopback, and services on every address that nobody may reach. They answer, and count.
type ears struct {
	web, sink int // ports

	http *http.Server
	tcp  net.Listener
	udp  net.PacketConn

	mu    sync.Mutex // guards the rest
	hosts []string   // Host of each request
	count map[string]int
}

// fence is what settle sends after everything else.
const fence = "fence"

func listen() (e *ears, err error) {
	e = &ears{count: map[string]int{}}
	defer func() {
		if err != nil {
			e.close()
		}
	}()
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
	go e.accept()
	go e.receive()
	return e, nil
}

func (e *ears) close() {
	if e.http != nil {
		e.http.Close()
	}
	if e.tcp != nil {
		e.tcp.Close()
	}
	if e.udp != nil {
		e.udp.Close()
	}
}

// accept counts connections. It ends with close.
func (e *ears) accept() {
	for {
		c, err := e.tcp.Accept()
		if err != nil {
			return
		}
		e.note("tcp")
		fmt.Fprintf(c, "%s sink\n", outcome.Marker)
		c.Close()
	}
}

// receive counts datagrams. It ends with close.
func (e *ears) receive() {
	buf := make([]byte, 2048)
	for {
		n, from, err := e.udp.ReadFrom(buf)
		if err != nil {
			return
		}
		if string(buf[:n]) == fence {
			e.note(fence)
			continue
		}
		e.note("udp")
		_, _ = e.udp.WriteTo([]byte(outcome.Marker+" sink\n"), from)
	}
}

func (e *ears) note(kind string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.count[kind]++
}

func (e *ears) heard(kind string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.count[kind]
}

// requests counts those for a host, with or without a port.
func (e *ears) requests(host string) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, h := range e.hosts {
		if h == host || strings.HasPrefix(h, host+":") {
			n++
		}
	}
	return n
}

// settle returns once what was sent before has been counted: loopback keeps the order.
func (e *ears) settle(ctx context.Context) error {
	c, err := (&net.Dialer{}).DialContext(ctx, "udp", fmt.Sprintf("127.0.0.1:%d", e.sink))
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte(fence)); err != nil {
		return err
	}
	for e.heard(fence) == 0 {
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}
