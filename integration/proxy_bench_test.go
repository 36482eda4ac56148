//go:build linux

package integration

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"cofferdam.dev/cofferdam/integration/lab"
	"cofferdam.dev/cofferdam/netns"
	"cofferdam.dev/cofferdam/netns/netnstest"
	"cofferdam.dev/cofferdam/proxy/policy"
	"cofferdam.dev/cofferdam/proxy/process"
	"cofferdam.dev/cofferdam/proxy/record"
)

// The benchmarks of the proxy compare ways from an agent to a server in UPLINK, one veth each:
//
//	direct     load -- veth --> server
//	cofferdam  load -- veth --> GATE: cofferdam-proxy -- lo --> server
//	haproxy    load -- veth --> haproxy -- lo --> server; and so nginx, and tinyproxy, which is asked for tunnels
//
// They run in turn, round by round, so that what else the machine does meets all of them. What counts is the ratio of two of them in the same
// round, of which the median is reported.
const proxyRounds = 5

// The server's ports, as in integration/load/serve.go. A peer that listens for each has them at a distance.
const (
	bulkPort  = 9001 // sends as many bytes as it is asked for
	replyPort = 9002 // answers one byte and closes
	echoPort  = 9003
	webPort   = 9004

	haproxyPorts  = 1000
	nginxPorts    = 2000
	tinyproxyPort = 12000
)

var (
	uplinkEnd = netip.MustParsePrefix("10.201.0.1/30") // where the server is, for all
	plainEnd  = netip.MustParsePrefix("10.201.0.2/30") // of a client without Cofferdam
)

// A way is one of those that are compared.
type way struct {
	name string
	box  *os.File // the network namespace of its clients
	far  int      // what its ports are above the server's
	via  string   // the HTTP proxy that makes its tunnels
	pid  int      // of its first process
}

// BenchmarkProxyBulk reports MiB per second of one connection, downwards.
func BenchmarkProxyBulk(b *testing.B) {
	ways := everyWay(b, "direct", "cofferdam", "haproxy", "nginx")
	compare(b, ways, "MiB/s", func(w way) float64 { return w.load(b, bulkPort, "bulk", "-n", strconv.Itoa(512<<20)).Rate })
}

// BenchmarkProxyConnections reports connections per second of 16 clients, each of which connects, sends a byte, awaits one, and the end.
func BenchmarkProxyConnections(b *testing.B) {
	ways := everyWay(b, "direct", "cofferdam", "haproxy", "nginx", "tinyproxy")
	compare(b, ways, "conn/s", func(w way) float64 { return w.load(b, replyPort, "connect", "-c", "16", "-for", "1s").Rate })
}

// BenchmarkProxyRequests reports requests per second of 16 clients that keep their connections, by net/http on both sides. HAProxy is in
// HTTP mode here, as it decides about requests too.
func BenchmarkProxyRequests(b *testing.B) {
	ways := everyWay(b, "direct", "cofferdam", "haproxy")
	compare(b, ways, "req/s", func(w way) float64 {
		return w.load(b, webPort, "requests", "-host", "bench.test:"+strconv.Itoa(webPort+w.far), "-c", "16", "-for", "1s").Rate
	})
}

// BenchmarkProxyEcho reports the microseconds that a byte takes there and back over an open connection, and how many more than direct.
func BenchmarkProxyEcho(b *testing.B) {
	ways := everyWay(b, "direct", "cofferdam", "haproxy", "nginx", "tinyproxy")
	compare(b, ways, "µs", func(w way) float64 { return w.load(b, echoPort, "echo", "-n", "5000").Median })
}

// BenchmarkProxyFirstByte reports the microseconds from connecting to the answer and the end, of one client, and how many more than direct.
func BenchmarkProxyFirstByte(b *testing.B) {
	ways := everyWay(b, "direct", "cofferdam", "haproxy", "nginx", "tinyproxy")
	compare(b, ways, "µs", func(w way) float64 { return w.load(b, replyPort, "connect", "-for", "500ms").Median })
}

// idleConnections are open at once in BenchmarkProxyIdle.
const idleConnections = 2000

// BenchmarkProxyIdle reports what an idle connection costs in the memory of the proxy's processes, in KiB of proportional set size; the
// kernel's sockets are not in it. Connections that carry TCP come first, then others that carried a request of HTTP.
func BenchmarkProxyIdle(b *testing.B) {
	for _, kind := range []struct {
		name string
		port int
		ways []string
		args []string
	}{
		{"tcp", echoPort, []string{"cofferdam", "haproxy", "nginx"}, nil},
		{"http", webPort, []string{"cofferdam", "haproxy"}, []string{"-http", "-host", "bench.test"}},
	} {
		b.Run(kind.name, func(b *testing.B) {
			ways := everyWay(b, kind.ways...)
			for b.Loop() {
				for _, w := range ways {
					processes := append(children(b, []int{w.pid}, w.name), w.pid)
					before := pss(b, processes)
					release := w.hold(b, kind.port, kind.args...)
					b.ReportMetric(float64(pss(b, processes)-before)/idleConnections, w.name+"-KiB/conn")
					release()
				}
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// compare measures all ways in turn and reports the medians, and those of the ratios of cofferdam to the others. A time is reported with what
// cofferdam adds to direct.
func compare(b *testing.B, ways []way, unit string, measure func(w way) float64) {
	for b.Loop() {
		got := map[string][]float64{}
		ratios := map[string][]float64{}
		var added []float64
		for range proxyRounds {
			for _, w := range ways {
				got[w.name] = append(got[w.name], measure(w))
			}
			latest := func(name string) float64 { return got[name][len(got[name])-1] }
			for _, w := range ways {
				ratios[w.name] = append(ratios[w.name], latest("cofferdam")/latest(w.name))
			}
			added = append(added, latest("cofferdam")-latest("direct"))
		}
		for _, w := range ways {
			b.ReportMetric(median(got[w.name]), w.name+"-"+unit)
			if w.name != "cofferdam" {
				b.ReportMetric(median(ratios[w.name]), "to-"+w.name)
			}
		}
		if unit == "µs" {
			b.ReportMetric(median(added), "added-"+unit)
		}
	}
	b.ReportMetric(0, "ns/op")
}

// command runs the load client on this way, with address last.
func (w way) command(port int, args ...string) *exec.Cmd {
	a, _ := lab.Inside()
	if w.via != "" {
		args = append(args, "-via", w.via)
	}
	args = append(args, net.JoinHostPort(uplinkEnd.Addr().String(), strconv.Itoa(port+w.far)))
	return exec.Command(filepath.Join(a.Dir, "load"), args...)
}

// measured is what the load client prints.
type measured struct{ Rate, Median, P99 float64 }

func (w way) load(b *testing.B, port int, args ...string) (m measured) {
	b.Helper()
	cmd := w.command(port, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := netns.Do(w.box, cmd.Start)
	if err == nil {
		err = cmd.Wait()
	}
	if err == nil {
		err = json.Unmarshal(out.Bytes(), &m)
	}
	if err != nil {
		b.Fatalf("%s: load %s: %v\n%s", w.name, args, err, &errs)
	}
	return m
}

// hold opens idle connections; release closes them.
func (w way) hold(b *testing.B, port int, args ...string) (release func()) {
	b.Helper()
	cmd := w.command(port, append([]string{"hold", "-n", strconv.Itoa(idleConnections)}, args...)...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := netns.Do(w.box, cmd.Start); err != nil {
		b.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	release = func() {
		in.Close()
		cmd.Wait()
	}
	if line != "open\n" {
		release()
		b.Fatalf("%s: the connections were not opened", w.name)
	}
	return release
}

// everyWay sets up the ways with the given names, for as long as the benchmark runs.
func everyWay(b *testing.B, names ...string) (ways []way) {
	Require(b, needShim, needLoad)
	plain := newBox(b)
	remove, err := lab.Cable("bench", uplinkEnd, plain, plainEnd)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := remove(); err != nil {
			b.Error(err)
		}
	})
	startLoadServer(b, uplinkEnd.Addr().String(), 0)
	for _, name := range names {
		w := way{name: name, box: plain}
		switch name {
		case "cofferdam":
			w.box, w.pid = startCofferdam(b)
		case "haproxy":
			w.far, w.pid = haproxyPorts, startHAProxy(b)
		case "nginx":
			w.far, w.pid = nginxPorts, startNginx(b)
		case "tinyproxy":
			w.via, w.pid = net.JoinHostPort(uplinkEnd.Addr().String(), strconv.Itoa(tinyproxyPort)), startTinyproxy(b)
		}
		ways = append(ways, w)
	}
	return ways
}

func newBox(b *testing.B) *os.File {
	b.Helper()
	box, err := netns.NewUplink()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { box.Close() })
	return box.NS()
}

// benchPolicy allows the server, by its address.
var benchPolicy = fmt.Sprintf(`version: 1
network:
  rules:
    - {allow: bench.test, ports: [%d, %d, %d], protocol: tcp, addresses: [%s]}
    - {allow: bench.test, ports: [%d], protocol: http, addresses: [%[4]s]}
`, bulkPort, replyPort, echoPort, uplinkEnd.Addr(), webPort)

// startCofferdam makes a sandbox's network and starts its proxy, as the shim does. It returns BOX and the proxy's process ID.
func startCofferdam(b *testing.B) (box *os.File, pid int) {
	b.Helper()
	a, _ := lab.Inside()
	dir, box := b.TempDir(), newBox(b)
	const id = "bench"
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	gate, err := netns.Setup(b.Context(), filepath.Join(dir, "gates"), id)
	must(err)
	b.Cleanup(func() {
		gate.Close()
		if err := netns.Teardown(filepath.Join(dir, "gates"), id); err != nil {
			b.Error(err)
		}
	})
	listeners, err := gate.Listen()
	must(err)
	b.Cleanup(func() { listeners.Close() })
	must(gate.Attach(box))
	must(gate.Verify(box))

	records, err := record.OpenLog(filepath.Join(dir, "records"), id, record.Limits{})
	must(err)
	b.Cleanup(func() { records.Close() })
	names, err := os.OpenFile(filepath.Join(dir, "names"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	must(err)
	defer names.Close()
	end, stream, err := process.Stream()
	must(err)
	served := make(chan error, 1)
	go func() { served <- errors.Join(records.Serve(stream), stream.Close()) }() // ends with the proxy
	updates, policies, err := process.Stream()
	must(err)
	b.Cleanup(func() { policies.Close() })
	layers, err := policy.MarshalLayers([]policy.Source{{Layer: policy.User, Name: "bench", Text: []byte(benchPolicy)}})
	must(err)
	cmd, ready, err := process.Command(filepath.Join(a.Paths[needShim], "cofferdam-proxy"),
		process.Config{Sandbox: id, Policy: "bench", Layers: layers},
		process.Files{TCP: listeners.TCP, DNS: listeners.DNS, Log: end, Names: names, Updates: updates}, 1_900_000_000)
	must(err)
	cmd.Stderr = os.Stderr
	started, exited := make(chan error, 1), make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the proxy dies with the thread that started it
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if started <- err; err == nil {
			exited <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		ready(b.Context())
		b.Fatal(err)
	}
	b.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := <-exited; err != nil {
			b.Error("proxy:", err)
		}
		if err := <-served; err != nil {
			b.Error("records:", err)
		}
	})
	ctx, cancel := context.WithTimeout(b.Context(), 20*time.Second)
	defer cancel()
	must(ready(ctx))
	return box, cmd.Process.Pid
}

// peer starts a program of Debian's, which must stay in the foreground, and returns its process ID once it accepts connections at port.
func peer(b *testing.B, port int, name string, args ...string) int {
	b.Helper()
	cmd := exec.Command(netnstest.Program(name), args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		cmd.Wait()
		close(exited)
	}()
	b.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		<-exited
	})
	for {
		conn, err := net.Dial("tcp4", net.JoinHostPort(uplinkEnd.Addr().String(), strconv.Itoa(port)))
		if err == nil {
			conn.Close()
			return cmd.Process.Pid
		}
		select {
		case <-exited:
			b.Fatalf("%s: %s", name, &out)
		case <-time.After(time.Millisecond):
		}
	}
}

// writeConfig writes a peer's configuration, in which UPLINK is the server's address.
func writeConfig(b *testing.B, text string) (path string) {
	b.Helper()
	path = filepath.Join(b.TempDir(), "config")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "UPLINK", uplinkEnd.Addr().String())), 0o644); err != nil {
		b.Fatal(err)
	}
	return path
}

func startHAProxy(b *testing.B) int {
	b.Helper()
	netnstest.Require(b, "haproxy")
	config := `
global
	maxconn 4000
defaults
	mode tcp
	option splice-request
	option splice-response
	timeout connect 10s
	timeout client 1h
	timeout server 1h
`
	for _, port := range []int{bulkPort, replyPort, echoPort, webPort} {
		config += fmt.Sprintf("listen %d\n\tbind UPLINK:%d backlog 4096\n\tserver s UPLINK:%[1]d\n", port, port+haproxyPorts)
	}
	config += "\tmode http\n" // the last one
	return peer(b, webPort+haproxyPorts, "haproxy", "-db", "-f", writeConfig(b, config))
}

func startNginx(b *testing.B) int {
	b.Helper()
	const module = "/usr/lib/nginx/modules/ngx_stream_module.so"
	netnstest.Require(b, "nginx")
	if _, err := os.Stat(module); err != nil {
		netnstest.Skip(b, "libnginx-mod-stream", err.Error())
	}
	config := "load_module " + module + `;
worker_processes auto;
error_log stderr;
pid ` + filepath.Join(b.TempDir(), "pid") + `;
daemon off;
events { worker_connections 8000; }
stream {
	proxy_timeout 1h;
`
	for _, port := range []int{bulkPort, replyPort, echoPort} {
		config += fmt.Sprintf("\tserver { listen UPLINK:%d backlog=4096; proxy_pass UPLINK:%d; }\n", port+nginxPorts, port)
	}
	return peer(b, echoPort+nginxPorts, "nginx", "-e", "stderr", "-c", writeConfig(b, config+"}\n"))
}

func startTinyproxy(b *testing.B) int {
	b.Helper()
	netnstest.Require(b, "tinyproxy")
	config := fmt.Sprintf("Port %d\nListen UPLINK\nTimeout 600\nMaxClients 1000\nLogLevel Error\n", tinyproxyPort)
	for _, port := range []int{replyPort, echoPort} {
		config += fmt.Sprintf("ConnectPort %d\n", port)
	}
	return peer(b, tinyproxyPort, "tinyproxy", "-d", "-c", writeConfig(b, config))
}
