package lab

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cofferdam.dev/cofferdam/integration/world"
)

// A Snapshot is what a sandbox may leave behind, each thing as one line: processes, mounts, network namespaces, links, cgroups of the run,
// and files below /run/cofferdam and /run/containerd. Because the lab has a PID and a mount namespace of its own, it is complete.
type Snapshot map[string]bool

// Take returns what there is now. The caller's own short-lived children show up in it, so compare when none runs.
func Take() Snapshot {
	s := Snapshot{}
	s.processes()
	s.mounts()
	if links, err := net.Interfaces(); err == nil {
		for _, l := range links {
			s["link "+l.Name] = true
		}
	}
	if a, ok := Inside(); ok {
		for _, dir := range world.Cgroups(filepath.Base(a.Dir)) {
			if !strings.HasPrefix(filepath.Base(dir), runPrefix) { // runc makes that one for all containers and never removes it
				s["cgroup "+dir] = true
			}
		}
		// Of proxies and brokers of its containers, whose namespaces are named after the run.
		for _, pattern := range []string{"/sys/fs/cgroup/cofferdam/", "/sys/fs/cgroup/*/cofferdam/"} {
			dirs, _ := filepath.Glob(pattern + filepath.Base(a.Dir) + "*")
			for _, dir := range dirs {
				s["cgroup "+dir] = true
			}
		}
	}
	for _, top := range []string{"/run/cofferdam", "/run/containerd", "/run/netns", "/run/user", "/dev/shm"} {
		filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				s["file "+p] = true
			}
			return nil
		})
		dirs, _ := filepath.Glob(top + "/*/*")
		for _, d := range dirs {
			if strings.HasPrefix(d, "/run/cofferdam/") {
				s["file "+d] = true
			}
		}
	}
	return s
}

// processes adds every process but the caller, and every network namespace that a process lives in or holds open.
func (s Snapshot) processes() {
	procs, _ := filepath.Glob("/proc/[0-9]*")
	self := fmt.Sprintf("/proc/%d", os.Getpid())
	for _, p := range procs {
		if ns, err := os.Readlink(p + "/ns/net"); err == nil {
			s["netns "+ns] = true
		}
		fds, _ := filepath.Glob(p + "/fd/*")
		for _, fd := range fds {
			if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, "net:[") {
				s["netns "+to] = true
			}
		}
		cmd, err := os.ReadFile(p + "/cmdline")
		if err != nil || p == self {
			continue
		}
		args := strings.TrimSpace(string(bytes.ReplaceAll(cmd, []byte{0}, []byte{' '})))
		if args == "" { // a zombie: it is its parent's duty
			stat, err := os.ReadFile(p + "/stat")
			if err != nil {
				continue
			}
			args = "zombie " + string(stat[:bytes.IndexByte(stat, ')')+1])
		}
		s["process "+filepath.Base(p)+" "+args] = true
	}
}

func (s Snapshot) mounts() {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return
	}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) < 5 {
			continue
		}
		s["mount "+f[4]] = true
		if strings.HasPrefix(f[3], "net:[") {
			s["netns "+f[3]] = true
		}
	}
}

// Since returns what s has and before has not, sorted.
func (s Snapshot) Since(before Snapshot) []string {
	return slices.Sorted(func(yield func(string) bool) {
		for line := range maps.Keys(s) {
			if !before[line] && !yield(line) {
				return
			}
		}
	})
}

// Leftovers waits up to ten seconds until nothing is there that was not in before, and returns the rest. Lines that contain one of ignore
// do not count.
func Leftovers(before Snapshot, ignore ...string) []string {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) { // polled: nobody tells when a foreign process ends
		left := slices.DeleteFunc(Take().Since(before), func(line string) bool {
			return slices.ContainsFunc(ignore, func(i string) bool { return strings.Contains(line, i) })
		})
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
	}
}

// NoLeftovers fails the test with what Leftovers returns.
func NoLeftovers(t testing.TB, before Snapshot, ignore ...string) {
	t.Helper()
	if left := Leftovers(before, ignore...); len(left) > 0 {
		t.Errorf("left behind:\n\t%s", strings.Join(left, "\n\t"))
	}
}
