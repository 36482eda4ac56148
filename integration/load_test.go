//go:build linux

package integration

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"cofferdam.dev/cofferdam/integration/attack"
	"cofferdam.dev/cofferdam/integration/ctrd"
	"cofferdam.dev/cofferdam/integration/lab"
)

// Two agents on one host, each with a server that only it may reach: one behaves well, the other one does not. The servers stand for other
// machines: what they take of this one is nobody's, so the one comes before all others here and the other one last.
const (
	goodName, goodServer   = "good.load.test", "127.0.0.2"
	floodName, floodServer = "flood.load.test", "127.0.0.3"
	first, last            = -15, 19 // nice(2)
)

// besidePolicy allows a name with the ports of a server, and all names below it.
func besidePolicy(name, server string) string {
	return fmt.Sprintf(`version: 1
network:
  unknown: deny
  rules:
    - {allow: %s, ports: [%d, %d, %d], protocol: tcp, addresses: [%s]}
    - {allow: %[1]s, ports: [%[6]d], protocol: http, addresses: [%[5]s]}
    - {allow: "*.%[1]s", ports: [%[2]d], protocol: tcp, addresses: [%[5]s]}
`, name, bulkPort, replyPort, echoPort, server, webPort)
}

// A tenant is an agent that runs the load client.
type tenant struct {
	*servant
	load string // the client's path inside
}

// measure runs clients one after the other, and returns what each measured.
func (n tenant) measure(t testing.TB, commands ...string) (all []measured) {
	t.Helper()
	got := n.try(t, []string{"sh", "cd " + n.place.Workspace + "; " + n.load + " " + strings.Join(commands, " && "+n.load+" ")})
	if !got.OK {
		t.Fatalf("load %q: %s", commands, got)
	}
	for line := range strings.Lines(got.Reply) {
		var m measured
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("load %q: %v: %s", commands, err, line)
		}
		all = append(all, m)
	}
	return all
}

// neighbourhoods are ways to have two agents on a host.
var neighbourhoods = []struct {
	name string
	move func(t testing.TB, name, policy string) tenant
}{
	{"shim", func(t testing.TB, _, policy string) tenant {
		t.Helper()
		ws := Workspace(t)
		copyLoad(t, ws)
		_, cmd := Engine(t, "deb").Attach(t, ctrd.Container{
			Image: agentImage, Runtime: ctrd.Cofferdam, Policy: Policy(t, policy), Workspace: ws, Args: []string{"probe", "serve"},
		})
		return tenant{serve(t, cmd, attack.Place{Workspace: "/workspace"}), "/workspace/load"}
	}},
	{"run-root", func(t testing.TB, name, policy string) tenant { return moveRun(t, newPerson(t, name, 0), policy) }},
	{"run-user", func(t testing.TB, name, policy string) tenant { return moveRun(t, newPerson(t, name, 4711), policy) }},
}

func moveRun(t testing.TB, p person, policy string) tenant {
	t.Helper()
	copyLoad(t, p.dir)
	cmd := p.command(t, "run", "--policy", p.write(t, ".config/cofferdam/policies/lab.yaml", policy), "--read", p.dir, "--", filepath.Join(p.dir, "probe"), "serve")
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid = true // another terminal, each
	return tenant{serve(t, cmd, attack.Place{Workspace: p.workspace()}), filepath.Join(p.dir, "load")}
}

// copyLoad puts the client into a folder that an agent sees.
func copyLoad(t testing.TB, dir string) {
	t.Helper()
	a, _ := lab.Inside()
	data, err := os.ReadFile(filepath.Join(a.Dir, "load"))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "load"), data, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// startLoadServer starts a server that comes before others or after them.
func startLoadServer(t testing.TB, address string, nice int) {
	t.Helper()
	Require(t, needLoad)
	a, _ := lab.Inside()
	cmd := exec.Command("nice", "-n", strconv.Itoa(nice), filepath.Join(a.Dir, "load"), "serve", address)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	in, out := talk(t, cmd)
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "serving\n" {
		t.Fatalf("server: %q, %v", line, err)
	}
	// Where the scheduler groups by sessions, sched(7), niceness is of the session.
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/autogroup", cmd.Process.Pid), []byte(strconv.Itoa(nice)), 0)
}

// A figure is what the well-behaved agent measures of itself.
type figure struct {
	name  string
	value func(measured) float64
	rate  bool // more is better
}

func median50(m measured) float64  { return m.Median }
func slowest(m measured) float64   { return m.P99 }
func perSecond(m measured) float64 { return m.Rate }

// clients of the well-behaved agent, and what of them counts.
func goodClients(span time.Duration) (commands []string, figures [][]figure) {
	to := func(port int) string { return goodName + ":" + strconv.Itoa(port) }
	commands = []string{
		fmt.Sprintf("requests -for %v -host %s %[2]s", span, to(webPort)),
		fmt.Sprintf("connect -for %v %s", span, to(replyPort)),
		fmt.Sprintf("requests -c 16 -for %v -host %s %[2]s", span, to(webPort)),
		fmt.Sprintf("bulk -n %d %s", 128<<20, to(bulkPort)),
	}
	figures = [][]figure{
		{{name: "request", value: median50}, {name: "request-p99", value: slowest}},
		{{name: "connect", value: median50}, {name: "connect-p99", value: slowest}},
		{{name: "16-clients", value: perSecond, rate: true}},
		{{name: "bulk", value: perSecond, rate: true}},
	}
	return commands, figures
}

// besideKinds are the floods that have shown most, one by one, and all there are together (integration/load/flood.go). The first one is the control: what
// differs there is noise.
var besideKinds = strings.Fields("nothing allowed denied queries hellos udp cpu forks files all")

// BenchmarkBesideAHostileAgent reports how much longer what a well-behaved agent does takes beside a hostile one than alone, in turn, and what
// the hostile one achieves.
func BenchmarkBesideAHostileAgent(b *testing.B) {
	Require(b, needShim, needImage, needLoad)
	lab.Get(b)
	for _, hood := range neighbourhoods {
		b.Run(hood.name, func(b *testing.B) {
			startLoadServer(b, goodServer, first)
			startLoadServer(b, floodServer, last)
			good := hood.move(named{b, b.Name() + "-good"}, "good", besidePolicy(goodName, goodServer))
			hostile := hood.move(named{b, b.Name() + "-hostile"}, "hostile", besidePolicy(floodName, floodServer))
			for _, kind := range besideKinds {
				b.Run(kind, func(b *testing.B) {
					for b.Loop() {
						for name, r := range compareBeside(b, good, hostile, kind) {
							b.ReportMetric(r, name)
						}
					}
					b.ReportMetric(0, "ns/op")
				})
			}
		})
	}
}

// TestProxyAndBrokerHaveAShareOfTheProcessors looks for both in the sandbox's own cgroup: an agent has them work at no one else's cost. The kernel's
// view counts, and that the cgroup is gone afterwards, also if the shim was killed.
func TestProxyAndBrokerHaveAShareOfTheProcessors(t *testing.T) {
	Require(t, needShim, needImage)
	lab.Get(t)
	in := func(t *testing.T, parents []int, group string) {
		t.Helper()
		for _, program := range []string{"cofferdam-proxy", broker} {
			eventually(t, program+" is in "+group, func() bool {
				pids := children(t, parents, program)
				if len(pids) != 1 {
					return false
				}
				text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pids[0]))
				return err == nil && regexp.MustCompile(`(?m)^[0-9]+:(|cpu|cpu,cpuacct):`+regexp.QuoteMeta(group)+"$").Match(text)
			})
		}
	}
	gone := func(t *testing.T, group string) {
		t.Helper()
		if left, err := filepath.Glob("/sys/fs/cgroup/*" + group); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		for _, killed := range []bool{false, true} {
			box := Contained(t, d, "")
			if got := box.Exec(t, "touch", "/workspace/x"); got.Code != 0 {
				t.Fatal(got)
			}
			group := "/cofferdam/" + d.Namespace + ":" + box.ID
			shims := box.Shims(t)
			in(t, shims, group)
			if killed {
				for _, pid := range shims {
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
			}
			box.Remove(t)
			eventually(t, group+" is removed", func() bool {
				left, err := filepath.Glob("/sys/fs/cgroup/*" + group)
				return err == nil && len(left) == 0
			})
		}
	})
	t.Run("run", func(t *testing.T) {
		p := newPerson(t, "root", 0)
		cmd := p.command(t, "run", "--name", "weighed", "--cpus", "1", "sh", "-c", "touch x; read end")
		end, _ := talk(t, cmd)
		in(t, []int{cmd.Process.Pid}, "/cofferdam/run:weighed")
		end.Close()
		if err := cmd.Wait(); err != nil && cmd.ProcessState.ExitCode() != 1 { // of read
			t.Error(err)
		}
		gone(t, "/cofferdam/run:weighed")
	})
}

const besideSpan = 400 * time.Millisecond

// compareBeside measures alone and beside in turn, and returns the medians of the ratios, of which 1 is no difference and more is worse, and what the
// hostile agent has done a second.
func compareBeside(b *testing.B, good, hostile tenant, kind string) map[string]float64 {
	b.Helper()
	const rounds, flooding = 3, 4 * time.Second
	commands, figures := goodClients(besideSpan)
	all := map[string][]float64{}
	for range rounds {
		alone := good.measure(b, commands...)
		before := logged()
		flooded := make(chan []measured, 1)
		go func() {
			defer close(flooded)
			flooded <- hostile.measure(named{b, b.Name()}, fmt.Sprintf("flood -for %v -kind %s %s", flooding, kind, floodName))
		}()
		<-time.After(700 * time.Millisecond) // it is at full speed
		beside := good.measure(b, commands...)
		did := <-flooded
		if len(did) != 1 {
			b.Fatal("there was no flood")
		}
		all["hostile/s"] = append(all["hostile/s"], did[0].Rate)
		all["log-KiB/s"] = append(all["log-KiB/s"], float64(logged()-before)/1024/flooding.Seconds())
		for i, fs := range figures {
			for _, f := range fs {
				r := f.value(beside[i]) / f.value(alone[i])
				if f.rate {
					r = 1 / r
				}
				all[f.name] = append(all[f.name], r)
			}
		}
	}
	medians := map[string]float64{}
	for name, rs := range all {
		medians[name] = median(rs)
	}
	return medians
}

// logged is the size of root's decision logs, in bytes.
func logged() (size int64) {
	files, _ := filepath.Glob("/var/log/cofferdam/*")
	for _, file := range files {
		if info, err := os.Stat(file); err == nil {
			size += info.Size()
		}
	}
	return size
}
