package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// cpuGroup is the cgroup of a sandbox's own processes out here, the proxy and the broker: what an agent has them do would else be done at the
// cost of whatever runs beside them, thread by thread. Together they have one weight, that of one sandbox's agent, and as much of the processors
// as there is to share. It has no quota: a process that has used one up stands still for the rest of a period, and others wait for it.
//
// A process is put into it after it was started, and the first ones once the sandbox is taken to be one that stays: moving takes the kernel
// milliseconds, in which it starts no process.
type cpuGroup struct {
	path string // as in linux.cgroupsPath

	mu      sync.Mutex
	dir     string // empty: not made yet
	running map[int]struct{}
}

// cpuGroupPath is known by the sandbox's ID alone. Agents that have no engine have theirs beside it, by names without a colon.
func cpuGroupPath(id string) string { return "/cofferdam/" + id }

// start wraps the starter of what belongs into the group.
func (g *cpuGroup) start(start Starter) Starter {
	return func(cmd *exec.Cmd) (<-chan error, error) {
		exited, err := start(cmd)
		if err != nil {
			return nil, err
		}
		pid := cmd.Process.Pid
		g.mu.Lock()
		if g.running == nil {
			g.running = map[int]struct{}{}
		}
		g.running[pid] = struct{}{}
		g.mu.Unlock()
		go g.join(pid) // what it does first may be done anywhere
		ended := make(chan error, 1)
		go func() { // ends with the process
			err := <-exited
			g.mu.Lock()
			delete(g.running, pid)
			g.mu.Unlock()
			ended <- err
		}()
		return ended, nil
	}
}

// join moves a process into the group, if there is one by now. Of what has ended meanwhile nobody needs to know.
func (g *cpuGroup) join(pid int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, runs := g.running[pid]; runs && g.dir != "" {
		_ = os.WriteFile(filepath.Join(g.dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
	}
}

// make makes the group, and moves into it what runs.
func (g *cpuGroup) make() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	dir, err := newCPUGroup(g.path)
	if err != nil {
		return err
	}
	g.dir = dir
	for pid := range g.running {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// newCPUGroup makes a cgroup in the hierarchy that shares out the processors: of version 1 that of the controller cpu (cgroups(7)); of
// version 2 all of them, where each folder says what is shared out below it (the kernel's cgroup-v2 document).
func newCPUGroup(path string) (dir string, err error) {
	var at unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &at); err != nil {
		return "", err
	}
	root := filepath.Join(cgroupRoot, "cpu")
	if at.Type == unix.CGROUP2_SUPER_MAGIC {
		root = cgroupRoot
	} else if _, err := os.Stat(filepath.Join(root, "cpu.shares")); err != nil {
		return "", fmt.Errorf("no hierarchy of the controller cpu: %w", err)
	}
	dir = filepath.Join(root, path)
	above := filepath.Dir(dir)
	if err := os.Mkdir(above, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	if at.Type == unix.CGROUP2_SUPER_MAGIC {
		for _, folder := range []string{root, above} {
			if err := os.WriteFile(filepath.Join(folder, "cgroup.subtree_control"), []byte("+cpu"), 0); err != nil {
				return "", err
			}
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) { // of one that was killed
		return "", err
	}
	return dir, nil
}

// remove removes the group. What was in it has ended.
func (g *cpuGroup) remove() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.dir == "" {
		return nil
	}
	if err := emptyAndRemove(g.dir, cgroupTries, killAll); err != nil {
		return err
	}
	g.dir = ""
	return nil
}

// weigh puts the sandbox's own processes into their cgroup.
func (s *Sandbox) weigh() {
	if s.cpus == nil {
		return
	}
	if err := s.cpus.make(); err != nil {
		s.update(func(st *State) {
			st.Weaker = append(st.Weaker, "no cgroup for the proxy and the broker, whose use of the processors has no weight of its own: "+err.Error())
		})
	}
}
