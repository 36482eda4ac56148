//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// A flood is one way to use up what is not the agent's own. It does one thing, again and again, in as many goroutines as it says, and ends when
// ctx does. name is an allowed one, which has the server's ports, and below which every name is allowed.
type flood struct {
	workers int
	once    func(ctx context.Context, name string) error
}

// floods by name. What one of them is refused is no failure: it goes on.
var floods = map[string]flood{
	"nothing":   {1, func(ctx context.Context, _ string) error { <-ctx.Done(); return nil }},
	"allowed":   {64, floodAllowed},
	"denied":    {64, floodDenied},
	"synthetic": {64, floodSynthetic},
	"slow":      {3000, floodSlow},
	"queries":   {16, floodQueries},
	"streams":   {64, floodStreams},
	"hellos":    {64, floodHellos},
	"heads":     {16, floodHeads},
	"requests":  {32, floodRequests},
	"udp":       {8, floodUDP},
	"bulk":      {8, floodBulk},
	"cpu":       {256, floodCPU},
	"forks":     {32, floodForks},
	"files":     {16, floodFiles},
	"protected": {16, floodProtected},
	"memory":    {4, floodMemory},
}

// flood makes one flood, or several that are separated by commas, or all.
func (l *load) flood() (result, error) {
	kinds := strings.Split(l.kind, ",")
	if l.kind == "all" {
		kinds = kinds[:0]
		for kind := range floods {
			kinds = append(kinds, kind)
		}
	}
	slices.Sort(kinds)
	unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1 << 14, Max: 1 << 14}) // or what it may
	ctx, cancel := context.WithTimeout(context.Background(), l.span)
	defer cancel()
	var done atomic.Int64
	var workers sync.WaitGroup
	for _, kind := range kinds {
		f, known := floods[kind]
		if !known {
			return result{}, fmt.Errorf("no flood %q", kind)
		}
		n := max(f.workers/len(kinds), 2)
		for range n {
			workers.Go(func() {
				for ctx.Err() == nil {
					if f.once(ctx, l.address) == nil {
						done.Add(1)
					}
				}
			})
		}
	}
	ended := make(chan struct{})
	go func() {
		workers.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(l.span + time.Second): // of what waits for an answer, the end of the process is the end
	}
	return result{Rate: float64(done.Load()) / l.span.Seconds()}, nil
}

// dialTo connects, for as long as ctx at most.
func dialTo(ctx context.Context, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: 5 * time.Second}
	d.SetMultipathTCP(false)
	c, err := d.DialContext(ctx, "tcp4", address)
	if err != nil {
		return nil, err
	}
	until, _ := ctx.Deadline()
	return c, c.SetDeadline(until)
}

// The port is free at once for the next connection: there are more of them than ports.
func drop(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	c.Close()
}

var addresses sync.Map // by name: what was resolved once

func resolved(ctx context.Context, name string) (string, error) {
	if known, ok := addresses.Load(name); ok {
		return known.(string), nil
	}
	found, err := net.DefaultResolver.LookupHost(ctx, name)
	if err != nil {
		return "", err
	}
	addresses.Store(name, found[0])
	return found[0], nil
}

func dialServer(ctx context.Context, name string, port int) (net.Conn, error) {
	addr, err := resolved(ctx, name)
	if err != nil {
		return nil, err
	}
	return dialTo(ctx, net.JoinHostPort(addr, strconv.Itoa(port)))
}

// New connections that are allowed, each with two records.
func floodAllowed(ctx context.Context, name string) error {
	c, err := dialServer(ctx, name, replyPort)
	if err != nil {
		return err
	}
	defer drop(c)
	return roundTrip(c)
}

// Connections to a name that no rule allows.
func floodDenied(ctx context.Context, _ string) error {
	c, err := dialTo(ctx, "45.67.89.66:443")
	if err != nil {
		return err
	}
	defer drop(c)
	if _, err := c.Write(helloTo("name-" + rand.Text() + ".test")); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, c)
	return err
}

// Connections to addresses that stand for no name.
func floodSynthetic(ctx context.Context, _ string) error {
	to := netip.AddrFrom4([4]byte{28, byte(mrand.N(4)), byte(mrand.N(256)), byte(mrand.N(256))})
	c, err := dialTo(ctx, netip.AddrPortFrom(to, uint16(1+mrand.N(65535))).String())
	if err != nil {
		return err
	}
	defer drop(c)
	_, _ = c.Write(helloTo("name.test"))
	_, err = io.Copy(io.Discard, c)
	return err
}

// helloTo is a client hello with a server name.
func helloTo(name string) []byte {
	hello, end := "0123456789.sni.placeholder.test", len(name)
	template := helloTemplate()
	// All lengths stay what they are.
	name = strings.Repeat("x", max(len(hello)-end, 0)) + name[max(end-len(hello), 0):]
	return bytes.Replace(template, []byte(hello), []byte(name), 1)
}

var helloTemplate = sync.OnceValue(func() []byte {
	ours, theirs := net.Pipe()
	go tls.Client(ours, &tls.Config{ServerName: "0123456789.sni.placeholder.test", MinVersion: tls.VersionTLS12}).Handshake()
	buf := make([]byte, 16<<10)
	n, _ := theirs.Read(buf)
	theirs.Close()
	return buf[:n]
})

// Half a head, and then a byte from time to time: as many as there may be.
func floodSlow(ctx context.Context, name string) error {
	c, err := dialServer(ctx, name, webPort)
	if err != nil {
		<-time.After(10 * time.Millisecond)
		return err
	}
	defer drop(c)
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: "+name+"\r\nX: "); err != nil {
		return err
	}
	for ctx.Err() == nil {
		if _, err := c.Write([]byte("x")); err != nil {
			return err
		}
		<-time.After(200 * time.Millisecond)
	}
	return nil
}

// query is one for the address of a name: allowed and new, denied and new, or the same again.
func query(name string) []byte {
	switch mrand.N(3) {
	case 0:
		name = rand.Text() + "." + name
	case 1:
		name = strings.Repeat(rand.Text()+".", 6) + "test"
	}
	n, err := dnsmessage.NewName(name + ".")
	if err != nil {
		panic(err)
	}
	packed, err := (&dnsmessage.Message{
		Header:    dnsmessage.Header{ID: uint16(mrand.N(1 << 16)), RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: n, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}).Pack()
	if err != nil {
		panic(err)
	}
	return packed
}

// Queries that do not wait for their answers.
func floodQueries(ctx context.Context, name string) error {
	c, err := new(net.Dialer).DialContext(ctx, "udp4", "10.200.0.1:53")
	if err != nil {
		return err
	}
	defer c.Close()
	for i := 0; i < 1000 && ctx.Err() == nil; i++ {
		if _, err := c.Write(query(name)); err != nil {
			return err
		}
	}
	return nil
}

// The same over TCP, many in one stream.
func floodStreams(ctx context.Context, name string) error {
	c, err := dialTo(ctx, "10.200.0.1:53")
	if err != nil {
		return err
	}
	defer drop(c)
	go io.Copy(io.Discard, c)
	for range 1000 {
		q := query(name)
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(q))), q...)); err != nil {
			return err
		}
	}
	return nil
}

// Hellos byte by byte.
func floodHellos(ctx context.Context, name string) error {
	c, err := dialTo(ctx, "45.67.89.66:443")
	if err != nil {
		return err
	}
	defer drop(c)
	for _, b := range helloTo(name) {
		if _, err := c.Write([]byte{b}); err != nil {
			return err
		}
	}
	_, err = io.Copy(io.Discard, c)
	return err
}

// Heads of requests as large as they may be, and larger, many over one connection.
func floodHeads(ctx context.Context, name string) error {
	c, err := dialServer(ctx, name, webPort)
	if err != nil {
		return err
	}
	defer drop(c)
	go io.Copy(io.Discard, c)
	head := "GET / HTTP/1.1\r\nHost: " + name + "\r\n" + strings.Repeat("X-Y: z\r\n", 3<<10) + "\r\n"
	for range 100 {
		if _, err := io.WriteString(c, head); err != nil {
			return err
		}
	}
	_, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: "+name+"\r\nX: "+strings.Repeat("x", 1<<20)+"\r\n\r\n")
	return err
}

// Requests over open connections, of which each tenth is denied and recorded.
func floodRequests(ctx context.Context, name string) error {
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dialServer(ctx, name, webPort) },
	}}
	defer client.CloseIdleConnections()
	for i := range 10 {
		host := net.JoinHostPort(name, strconv.Itoa(webPort))
		if i == 9 {
			host = rand.Text() + ".test"
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+"/", nil)
		if err != nil {
			return err
		}
		answer, err := client.Do(req)
		if err != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
	}
	return nil
}

// Packets that the kernel refuses and counts.
func floodUDP(ctx context.Context, _ string) error {
	c, err := new(net.Dialer).DialContext(ctx, "udp4", "45.67.89.66:443")
	if err != nil {
		return err
	}
	defer c.Close()
	packet := make([]byte, 1200)
	for range 1000 {
		_, _ = c.Write(packet) // refused, each second time
	}
	return nil
}

// Downloads.
func floodBulk(ctx context.Context, name string) error {
	c, err := dialServer(ctx, name, bulkPort)
	if err != nil {
		return err
	}
	defer drop(c)
	if err := binary.Write(c, binary.BigEndian, int64(1<<30)); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, c)
	return err
}

func floodCPU(context.Context, string) error {
	for i := uint32(1); i != 0; i *= 3 + i&2 { // it never is
		if i&0xfffff == 1 {
			return nil
		}
	}
	return nil
}

// Processes, as many as there may be: each ends at once, or never.
func floodForks(ctx context.Context, _ string) error {
	args := []string{"true"}
	if mrand.N(2) == 0 {
		args = []string{"sh", "-c", "while :; do :; done"}
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // none outlives the flood
	if err := cmd.Start(); err != nil {
		return err
	}
	if len(args) > 1 {
		go cmd.Wait()
		return nil
	}
	return cmd.Wait()
}

// Files in the workspace, which is the current folder: each call is about a name, and somebody outside makes it.
func floodFiles(ctx context.Context, _ string) error {
	dir, err := os.MkdirTemp(".", "flood-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	block := make([]byte, 64<<10)
	for i := 0; i < 100 && ctx.Err() == nil; i++ {
		name := filepath.Join(dir, strconv.Itoa(i))
		if err := errors.Join(os.WriteFile(name, block, 0o755), os.Rename(name, name+"x"), os.Symlink(name, name)); err != nil {
			return err
		}
	}
	return nil
}

// Files that it may not make, each of which is recorded.
func floodProtected(context.Context, string) error {
	if err := os.MkdirAll(rand.Text()+"/.git/hooks/"+rand.Text(), 0o755); err == nil {
		return errors.New("made")
	}
	return nil
}

// Memory, written to again and again, which others' caches feel.
func floodMemory(ctx context.Context, _ string) error {
	all := make([]byte, 256<<20)
	for ctx.Err() == nil {
		for i := range len(all) / 64 {
			all[i*64]++
		}
	}
	return nil
}
