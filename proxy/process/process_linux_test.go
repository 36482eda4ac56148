package process

import (
	"context"
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
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/proxy/policy"
	"cofferdam.dev/cofferdam/proxy/record"
)

const patience = 20 * time.Second

// proxyBinary is the real program, built for these tests.
var proxyBinary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "cofferdam-proxy")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		os.Chmod(dir, 0o755) // another user will execute it
		proxyBinary = filepath.Join(dir, "cofferdam-proxy")
		build := exec.Command("go", "build", "-trimpath", "-o", proxyBinary, "cofferdam.dev/cofferdam/cmd/cofferdam-proxy")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// require skips a test whose means are missing, or fails it if
// COFFERDAM_TEST_REQUIRE names them or says "all".
func require(t *testing.T, name string, ok bool) {
	t.Helper()
	if ok {
		return
	}
	for want := range strings.SplitSeq(os.Getenv("COFFERDAM_TEST_REQUIRE"), ",") {
		if want == name || want == "all" {
			t.Fatalf("missing: %s", name)
		}
	}
	t.Skipf("missing: %s", name)
}

// testUID is the user that the proxy runs as: nobody for root, else the caller.
func testUID() uint32 {
	if uid := os.Geteuid(); uid != 0 {
		return uint32(uid)
	}
	return 65534
}

// gate is what the parent of a proxy holds.
type gate struct {
	t     testing.TB
	tcp   *net.TCPListener
	dns   *net.UDPConn
	files Files // without Log, which each process has for itself
	log   string

	served  sync.WaitGroup // logs that are being served
	updates net.Conn       // to the last process
}

func newGate(t testing.TB) *gate {
	t.Helper()
	g := &gate{t: t, log: filepath.Join(t.TempDir(), "log")}
	var err error
	if g.tcp, err = net.ListenTCP("tcp4", &net.TCPAddr{}); err != nil {
		t.Fatal(err)
	}
	if g.dns, err = net.ListenUDP("udp4", &net.UDPAddr{}); err != nil {
		t.Fatal(err)
	}
	must := func(f *os.File, err error) *os.File {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	t.Cleanup(func() { g.tcp.Close(); g.dns.Close() })
	g.files = Files{
		TCP: must(g.tcp.File()), DNS: must(g.dns.File()),
		Names: must(os.OpenFile(filepath.Join(t.TempDir(), "names"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)),
	}
	return g
}

const testPolicy = "version: 1\nnetwork: {rules: [{allow: good.test}]}\n"

// layers is a policy of a user's text and those of projects.
func layers(text string, projects ...string) []byte {
	sources := []policy.Source{{Layer: policy.User, Name: "test", Text: []byte(text)}}
	for _, p := range projects {
		sources = append(sources, policy.Source{Layer: policy.Project, Name: "project", Text: []byte(p)})
	}
	data, err := policy.MarshalLayers(sources)
	if err != nil {
		panic(err)
	}
	return data
}

func testConfig() Config {
	return Config{
		Sandbox: "box-1", Policy: "test", Layers: layers(testPolicy),
		Pool: netip.MustParsePrefix("127.64.0.0/16"), Box: netip.MustParseAddr("127.0.0.1"),
	}
}

// withLog returns the files for one process, and serves its log until it ends.
func (g *gate) withLog() (Files, error) {
	log, err := record.OpenLog(g.log, "box-1", record.Limits{})
	if err != nil {
		return Files{}, err
	}
	files := g.files
	var records net.Conn
	if files.Log, records, err = Stream(); err != nil {
		return Files{}, err
	}
	if files.Updates, g.updates, err = Stream(); err != nil {
		return Files{}, err
	}
	g.t.Cleanup(func() { g.updates.Close() })
	g.served.Go(func() {
		if err := errors.Join(log.Serve(records), records.Close(), log.Close()); err != nil {
			g.t.Errorf("log: %v", err)
		}
	})
	return files, nil
}

// start starts a proxy from a locked thread that lives until the test ends or
// stop is called. change may edit the command.
func (g *gate) start(cfg Config, uid uint32, change func(*exec.Cmd)) (cmd *exec.Cmd, stop func(), err error) {
	g.t.Helper()
	started := make(chan error)
	stopped := make(chan struct{})
	ended := make(chan struct{})
	go onThread(func() {
		defer close(ended)
		var ready func(context.Context) error
		files, err := g.withLog()
		if err != nil {
			started <- err
			return
		}
		cmd, ready, err = Command(proxyBinary, cfg, files, uid)
		if err != nil {
			started <- err
			return
		}
		cmd.Stderr = os.Stderr
		if change != nil {
			change(cmd)
		}
		err = cmd.Start()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		err = errors.Join(err, ready(ctx))
		started <- err
		if err == nil {
			<-stopped
		}
	})
	err = <-started
	stop = func() {
		select {
		case <-stopped:
		default:
			close(stopped)
		}
		<-ended
		if cmd != nil && cmd.Process != nil {
			cmd.Wait() // it dies with the thread
		}
		g.served.Wait()
	}
	g.t.Cleanup(stop)
	return cmd, stop, err
}

// onThread calls f on a thread that ends with it. The main thread would not: Go
// only parks it.
func onThread(f func()) {
	runtime.LockOSThread() // and never unlocked
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		onThread(f) // on another thread
	}()
	<-done // keeps the main thread until then
	runtime.UnlockOSThread()
}

// lookup asks the proxy for an address.
func (g *gate) lookup(name string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, fmt.Sprintf("127.0.0.1:%d", g.dns.LocalAddr().(*net.UDPAddr).Port))
	}}
	addrs, err := resolver.LookupHost(ctx, name+".")
	return strings.Join(addrs, " "), err
}

// status reads the fields of /proc/PID/status, of every thread.
func status(t *testing.T, pid int) []map[string]string {
	t.Helper()
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no threads of %d: %v", pid, err)
	}
	var all []map[string]string
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // a thread that ended
		}
		fields := make(map[string]string)
		for line := range strings.Lines(string(data)) {
			key, value, _ := strings.Cut(line, ":")
			fields[key] = strings.Join(strings.Fields(value), " ")
		}
		all = append(all, fields)
	}
	return all
}

// TestUnprivileged is invariant I9.
func TestUnprivileged(t *testing.T) {
	g := newGate(t)
	// A descriptor that the parent forgot to mark close-on-exec.
	leak, err := os.Open("/etc/hostname")
	if err != nil {
		t.Fatal(err)
	}
	defer leak.Close()
	const leaked = 77
	if err := unix.Dup2(int(leak.Fd()), leaked); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leaked)
	t.Setenv("COFFERDAM_TEST_SECRET", "x")

	cmd, _, err := g.start(testConfig(), testUID(), nil)
	if err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	for _, fields := range status(t, pid) {
		want := map[string]string{"NoNewPrivs": "1", "CapEff": none, "CapPrm": none, "CapInh": none, "CapAmb": none, "Seccomp": "2"}
		if os.Geteuid() == 0 {
			want["Uid"], want["Gid"], want["Groups"] = "65534 65534 65534 65534", "65534 65534 65534 65534", ""
		}
		for key, value := range want {
			if fields[key] != value {
				t.Errorf("thread %s: %s is %q, want %q", fields["Pid"], key, fields[key], value)
			}
		}
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		t.Fatal(err)
	}
	for name, most := range map[string]uint64{
		"Max core file size": 0, "Max file size": maxFile,
		"Max open files": maxFiles, "Max processes": maxProcs, "Max data size": maxData + dataPerPolicy*uint64(len(layers(testPolicy))),
	} {
		_, after, _ := strings.Cut(string(limits), name)
		fields := strings.Fields(after)
		if len(fields) < 2 {
			t.Fatalf("no %q in %s", name, limits)
		}
		if hard, err := strconv.ParseUint(fields[1], 10, 64); err != nil || hard > most {
			t.Errorf("%s is %s", name, fields[1])
		}
	}

	// Not dumpable: /proc/PID belongs to root, and only root looks further.
	require(t, "root", os.Geteuid() == 0)
	var stat unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/environ", pid), &stat); err != nil || stat.Uid != 0 {
		t.Errorf("environ belongs to %d, %v", stat.Uid, err)
	}
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil || strings.Contains(string(environ), "SECRET") || strings.Contains(string(environ), "PATH=") {
		t.Errorf("environment %q, %v", environ, err)
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	counts := make(map[string]int)
	for _, fd := range fds {
		target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name()))
		if err != nil {
			continue
		}
		kind, _, _ := strings.Cut(target, ":")
		if strings.HasPrefix(target, "/sys/fs/cgroup/") {
			kind = "cgroup" // the Go runtime watches its CPU limit
		}
		counts[kind]++
	}
	for kind, n := range counts {
		switch {
		case kind == "socket" && n == 4, kind == "/dev/null" && n <= 3, kind == "cgroup" && n <= 2, kind == "anon_inode" && n <= 2:
		case kind == g.files.Names.Name(), kind == "pipe" && n == 1: // standard error of go test
		default:
			t.Errorf("%d descriptors of %s", n, kind)
		}
	}
	if dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); dir != "/" {
		t.Errorf("working directory %s, %v", dir, err)
	}
}

const none = "0000000000000000"

func TestRefusesRoot(t *testing.T) {
	require(t, "root", os.Geteuid() == 0)
	g := newGate(t)
	for _, allow := range []bool{false, true} {
		cfg := testConfig()
		cfg.AllowRoot = allow // counts in a user namespace only
		_, _, err := g.start(cfg, 0, func(cmd *exec.Cmd) { cmd.Stderr = nil })
		if err == nil || !strings.Contains(err.Error(), "refusing to run as root") {
			t.Errorf("AllowRoot %v: %v", allow, err)
		}
	}
}

// TestUserNamespace: uid 0 of a user namespace with one id may serve if the
// parent says so, and without its capabilities.
func TestUserNamespace(t *testing.T) {
	probe := exec.Command("/bin/true")
	probe.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}
	require(t, "user namespaces", probe.Run() == nil)
	inNamespace := func(cmd *exec.Cmd) {
		cmd.Stderr = nil
		cmd.SysProcAttr.Credential = nil
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	g := newGate(t)
	cfg := testConfig()
	if _, _, err := g.start(cfg, testUID(), inNamespace); err == nil || !strings.Contains(err.Error(), "refusing to run as root") {
		t.Errorf("without AllowRoot: %v", err)
	}
	cfg.AllowRoot = true
	cmd, _, err := g.start(cfg, testUID(), inNamespace)
	if err != nil {
		t.Fatal(err)
	}
	for _, fields := range status(t, cmd.Process.Pid) {
		for _, set := range []string{"CapEff", "CapPrm", "CapInh", "CapAmb"} {
			if fields[set] != none {
				t.Errorf("thread %s: %s is %s", fields["Pid"], set, fields[set])
			}
		}
	}
}

// TestRestart kills the proxy: what arrives meanwhile waits in the parent's
// sockets, and old addresses still stand for their names.
func TestRestart(t *testing.T) {
	g := newGate(t)
	first, stop, err := g.start(testConfig(), testUID(), nil)
	if err != nil {
		t.Fatal(err)
	}
	before, err := g.lookup("good.test")
	if err != nil {
		t.Fatal(err)
	}
	first.Process.Kill()
	stop()

	conn, err := net.DialTimeout("tcp4", fmt.Sprintf("%s:%d", before, g.tcp.Addr().(*net.TCPAddr).Port), patience)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: good.test\r\n\r\n")

	if _, _, err = g.start(testConfig(), testUID(), nil); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(patience))
	answer := make([]byte, 12)
	if _, err := conn.Read(answer); string(answer) != "HTTP/1.1 403" {
		t.Errorf("the connection that waited got %q, %v", answer, err)
	}
	if after, err := g.lookup("good.test"); after != before {
		t.Errorf("good.test was %s and is %s, %v", before, after, err)
	}
}

// TestTermination: SIGTERM ends the proxy in order, with a record of it.
func TestTermination(t *testing.T) {
	g := newGate(t)
	cmd, _, err := g.start(testConfig(), testUID(), nil)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("the proxy ended with %v", err)
	}
	g.served.Wait()
	f, err := os.Open(g.log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var got []string
	for r, err := range record.Read(f) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, r.Sandbox+" "+r.Policy+" "+r.Kind+" "+r.Reason)
	}
	if want := "box-1 test proxy started|box-1 test proxy stopped"; strings.Join(got, "|") != want {
		t.Errorf("records %q", got)
	}
}

// TestDiesWithItsThread: no proxy outlives the thread that started it.
func TestDiesWithItsThread(t *testing.T) {
	g := newGate(t)
	cmd, stop, err := g.start(testConfig(), testUID(), nil)
	if err != nil {
		t.Fatal(err)
	}
	stop()
	if s := cmd.ProcessState.Sys().(syscall.WaitStatus); s.Signal() != syscall.SIGKILL {
		t.Errorf("ended with %v", cmd.ProcessState)
	}
}

func TestStartErrors(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*Config)
		cmd    func(*exec.Cmd)
		want   string
	}{
		{"a broken policy", func(c *Config) { c.Layers = layers("version: 1\nx: 1\ny: 2\n") }, nil, `test:2:1: x: unknown key; test:3:1: y: unknown key`},
		{"a pool that is none", func(c *Config) { c.Pool = netip.MustParsePrefix("fd00::/64") }, nil, "not an IPv4 prefix"},
		{"another program", nil, func(cmd *exec.Cmd) { cmd.Path = "/bin/true" }, "ended before it was ready"},
		{"no program", nil, func(cmd *exec.Cmd) { cmd.Path = "/nowhere/proxy" }, "no such file"},
		{"no sandbox", func(c *Config) { c.Sandbox = "" }, nil, "missing sandbox ID"},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newGate(t)
			cfg := testConfig()
			if test.change != nil {
				test.change(&cfg)
			}
			_, _, err := g.start(cfg, testUID(), func(cmd *exec.Cmd) {
				cmd.Stderr = nil
				if test.cmd != nil {
					test.cmd(cmd)
				}
			})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
	if _, _, err := Command(proxyBinary, testConfig(), Files{}, 0); err == nil || !strings.Contains(err.Error(), "missing files: TCP, DNS, Log, Names, Updates") {
		t.Errorf("no files: %v", err)
	}
}

// TestNamesAreAppendedTo: a file in which the past could be overwritten is not
// accepted.
func TestNamesAreAppendedTo(t *testing.T) {
	g := newGate(t)
	other, err := os.OpenFile(filepath.Join(t.TempDir(), "file"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	g.files.Names = other
	_, _, err = g.start(testConfig(), testUID(), func(cmd *exec.Cmd) { cmd.Stderr = nil })
	if want := "names file: not opened with O_APPEND"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}

func TestReadyGivesUp(t *testing.T) {
	g := newGate(t)
	files, err := g.withLog()
	if err != nil {
		t.Fatal(err)
	}
	cmd, ready, err := Command("/bin/sleep", testConfig(), files, testUID())
	if err != nil {
		t.Fatal(err)
	}
	cmd.Args = []string{"sleep", "60"}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := ready(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// TestRunByHand: without the contract's descriptors it does nothing.
func TestRunByHand(t *testing.T) {
	out, err := exec.Command(proxyBinary).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "not by hand") {
		t.Errorf("%v: %s", err, out)
	}
}

// BenchmarkStart is the time from the description of a proxy to its readiness.
// It reports the proportional set size of an idle one too.
func BenchmarkStart(b *testing.B) {
	g := newGate(b)
	onThreadDone := make(chan struct{})
	go onThread(func() {
		defer close(onThreadDone)
		for b.Loop() {
			files, err := g.withLog()
			if err != nil {
				b.Error(err)
				return
			}
			cmd, ready, err := Command(proxyBinary, testConfig(), files, testUID())
			if err != nil {
				b.Error(err)
				return
			}
			if err := errors.Join(cmd.Start(), ready(context.Background())); err != nil {
				b.Error(err)
				return
			}
			b.StopTimer()
			if rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", cmd.Process.Pid)); err == nil {
				_, after, _ := strings.Cut(string(rollup), "Pss:")
				if f := strings.Fields(after); len(f) > 0 {
					if kib, err := strconv.ParseFloat(f[0], 64); err == nil {
						b.ReportMetric(kib, "KiB-pss")
					}
				}
			}
			cmd.Process.Kill()
			cmd.Wait()
			b.StartTimer()
		}
	})
	<-onThreadDone
}

// TestPolicyIsReplaced: the process takes a new policy while it runs, refuses a
// bad one and keeps the old, and ends when nobody could send another.
func TestPolicyIsReplaced(t *testing.T) {
	g := newGate(t)
	cmd, _, err := g.start(testConfig(), testUID(), nil)
	if err != nil {
		t.Fatal(err)
	}
	resolves := func(name string) bool {
		_, err := g.lookup(name)
		return err == nil
	}
	if !resolves("good.test") || resolves("other.test") {
		t.Fatal("the first policy is not in force")
	}
	const both = "version: 1\nnetwork: {rules: [{allow: good.test}, {allow: other.test}]}\n"
	if err := NewPolicy.Send(g.updates, layers(both, "version: 1\nnetwork: {rules: [{allow: other.test}, {allow: third.test}]}\n")); err != nil {
		t.Fatal(err)
	}
	if resolves("good.test") || resolves("third.test") || !resolves("other.test") {
		t.Error("the second policy is not in force")
	}
	if err := NewPolicy.Send(g.updates, layers("version: 2\n")); err == nil {
		t.Error("a bad policy is taken")
	}
	if err := NewPolicy.Send(g.updates, []byte(both)); err == nil {
		t.Error("a policy without layers is taken")
	}
	if !resolves("other.test") {
		t.Error("a bad policy has replaced the good one")
	}
	if err := NewPolicy.Send(g.updates, nil); err != nil || resolves("other.test") {
		t.Errorf("no policy does not deny everything: %v", err)
	}
	g.updates.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("the proxy ended with %v", err)
	}
}
