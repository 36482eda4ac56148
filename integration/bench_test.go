//go:build linux

package integration

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/integration/ctrd"
	"cofferdam.dev/cofferdam/netns/netnstest"
)

// rounds of a benchmark: in each, the stock runtime and Cofferdam run in turn on the same containerd, so that what else the machine does
// meets both.
const rounds = 40

func median[T int64 | float64 | time.Duration](xs []T) T {
	s := slices.Sorted(slices.Values(xs))
	return s[len(s)/2]
}

// BenchmarkStart times `ctr run --rm IMAGE true`. What counts is the ratio: an absolute time says more about the machine.
func BenchmarkStart(b *testing.B) {
	Require(b, needShim)
	for _, name := range []string{"deb", "v2"} {
		b.Run(name, func(b *testing.B) {
			d := Engine(b, name)
			run := func(runtime string) time.Duration {
				began := time.Now()
				if got := d.Run(b, ctrd.Container{Image: agentImage, Runtime: runtime, Args: []string{"true"}}); got.Code != 0 {
					b.Fatal(got)
				}
				return time.Since(began)
			}
			run(ctrd.Stock)
			run(ctrd.Cofferdam)
			for b.Loop() {
				var stock, ours []time.Duration
				var ratios []float64
				for range rounds {
					s, o := run(ctrd.Stock), run(ctrd.Cofferdam)
					stock, ours, ratios = append(stock, s), append(ours, o), append(ratios, float64(o)/float64(s))
				}
				b.ReportMetric(float64(median(stock).Microseconds())/1000, "stock-ms")
				b.ReportMetric(float64(median(ours).Microseconds())/1000, "cofferdam-ms")
				b.ReportMetric(float64(median(ours))/float64(median(stock)), "ratio")
				b.ReportMetric(median(ratios), "paired-ratio")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkIdleMemory tells what one idle container costs outside of itself: the stock shim, and our shim with its proxy, in KiB of
// proportional set size (proc_pid_smaps(5)), which divides shared pages among those who share them.
func BenchmarkIdleMemory(b *testing.B) {
	Require(b, needShim)
	for _, name := range []string{"deb", "v2"} {
		b.Run(name, func(b *testing.B) {
			d := Engine(b, name)
			for b.Loop() {
				stock := d.StartContainer(b, ctrd.Container{Image: agentImage, Runtime: ctrd.Stock})
				b.ReportMetric(float64(pss(b, stock.Shims(b))), "stock-shim-KiB")
				ours := d.StartContainer(b, ctrd.Container{Image: agentImage, Runtime: ctrd.Cofferdam})
				<-time.After(2 * time.Second) // idle is what it is once the start has been tidied up
				shims := ours.Shims(b)
				b.ReportMetric(float64(pss(b, shims)), "shim-KiB")
				b.ReportMetric(float64(pss(b, children(b, shims, "cofferdam-proxy"))), "proxy-KiB")
				stock.Remove(b)
				ours.Remove(b)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkRun times `cofferdam run true` beside bwrap with as many namespaces and beside srt, and tells what an idle sandbox takes, in KiB of
// all its processes. /run, and a person's folder for what ends with a login, are in memory, as on a machine that systemd has started.
func BenchmarkRun(b *testing.B) {
	var peers [2]string
	for i, name := range []string{"bwrap", "srt"} {
		path, err := exec.LookPath(name)
		if err != nil {
			netnstest.Skip(b, name, err.Error())
		}
		peers[i] = path
	}
	inMemory(b, "/run", 0)
	for _, one := range people {
		b.Run(one.name, func(b *testing.B) {
			p := newPerson(b, one.name, one.id)
			inMemory(b, filepath.Join(p.home, "run"), p.id)
			bwrap := []string{
				"bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin",
				"--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64", "--symlink", "usr/sbin", "/sbin", "--proc", "/proc",
				"--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", p.home, "--bind", p.workspace(), p.workspace(), "--chdir", p.workspace(), "true",
			}
			timed := func(cmd *exec.Cmd) time.Duration {
				began := time.Now()
				if out, err := cmd.CombinedOutput(); err != nil {
					b.Fatalf("%v: %s", err, out)
				}
				return time.Since(began)
			}
			for b.Loop() {
				var theirs [2][]time.Duration
				var ours []time.Duration
				for range rounds {
					for i, args := range [][]string{bwrap, {"srt", "true"}} {
						cmd := p.command(b, "run", "true")
						cmd.Path, cmd.Args = peers[i], args
						theirs[i] = append(theirs[i], timed(cmd))
					}
					ours = append(ours, timed(p.command(b, "run", "true")))
				}
				b.ReportMetric(float64(median(ours).Microseconds())/1000, "cofferdam-ms")
				b.ReportMetric(float64(median(theirs[0]).Microseconds())/1000, "bwrap-ms")
				b.ReportMetric(float64(median(ours))/float64(median(theirs[0])), "of-bwrap")
				b.ReportMetric(float64(median(theirs[1]).Microseconds())/1000, "srt-ms")
				b.ReportMetric(float64(median(theirs[1]))/float64(median(ours)), "times-faster-than-srt")

				b.ReportMetric(float64(idle(b, p, "sleep 3600", "cofferdam-proxy", initProgram)), "idle-KiB")
				b.ReportMetric(float64(idle(b, p, "touch x; sleep 3600", "cofferdam-proxy", initProgram, broker)), "idle-KiB-after-a-write")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// Programs of a sandbox as /proc has them.
const (
	initProgram = "cofferdam-init"
	broker      = "cofferdam-broker"
)

// idle is what an idle sandbox takes once its agent has done something, in KiB of `cofferdam run` and one process of each of the programs.
func idle(b *testing.B, p person, script string, programs ...string) int64 {
	b.Helper()
	cmd := p.command(b, "run", "sh", "-c", script)
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Signal(unix.SIGTERM) // killed, its cgroup would be left: what would remove it is gone with the lab
	<-time.After(2 * time.Second)          // idle is what it is once the start has been tidied up
	pids := []int{cmd.Process.Pid}
	for _, program := range programs {
		pids = append(pids, children(b, pids[:1], program)...)
	}
	if len(pids) != 1+len(programs) {
		b.Fatalf("%d processes", len(pids))
	}
	return pss(b, pids)
}

// inMemory has somebody's folder be empty and in memory for the rest of a benchmark.
func inMemory(b *testing.B, dir string, id uint32) {
	b.Helper()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("mode=755,uid=%d,gid=%[1]d", id)); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

// pss sums the proportional set sizes of processes, in KiB. There must be some.
func pss(b *testing.B, pids []int) (sum int64) {
	b.Helper()
	if len(pids) == 0 {
		b.Fatal("no process to measure")
	}
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			b.Fatal(err)
		}
		_, rest, _ := bytes.Cut(text, []byte("\nPss:"))
		kib, err := strconv.ParseInt(string(bytes.Fields(rest)[0]), 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		sum += kib
	}
	return sum
}

// children returns the children of processes that run a program of the given name.
func children(b testing.TB, parents []int, program string) (pids []int) {
	b.Helper()
	exes, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		b.Fatal(err)
	}
	for _, exe := range exes {
		target, err := os.Readlink(exe)
		if err != nil || filepath.Base(target) != program {
			continue
		}
		status, err := os.ReadFile(filepath.Join(filepath.Dir(exe), "status"))
		if err != nil {
			continue // it has ended
		}
		for _, parent := range parents {
			if strings.Contains(string(status), fmt.Sprintf("\nPPid:\t%d\n", parent)) {
				pid, err := strconv.Atoi(filepath.Base(filepath.Dir(exe)))
				if err != nil {
					b.Fatal(err)
				}
				pids = append(pids, pid)
			}
		}
	}
	return pids
}
