package ctrd

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"cofferdam.dev/cofferdam/integration/outcome"
)

// Runtimes by name.
const (
	Cofferdam = "io.containerd.cofferdam.v1"
	Stock     = "io.containerd.runc.v2"
)

// A Container is what ctr run is asked for.
type Container struct {
	Image       string
	Runtime     string            // Cofferdam or Stock
	ID          string            // "" makes one up
	Policy      string            // annotation cofferdam.dev/policy
	Workspace   string            // a folder of the host, mounted at /workspace
	Annotations map[string]string // more of them
	Flags       []string          // more flags of ctr run, e.g. --privileged
	Args        []string          // the command
}

func (d *Daemon) args(c *Container, flags ...string) []string {
	d.mu.Lock()
	d.next++
	if c.ID == "" {
		c.ID = fmt.Sprintf("c%d", d.next)
	}
	d.mu.Unlock()
	args := append([]string{"run"}, flags...)
	args = append(args, "--runtime", c.Runtime)
	if c.Workspace != "" {
		args = append(args, "--mount", "type=bind,src="+c.Workspace+",dst=/workspace,options=rbind:rw")
	}
	if c.Policy != "" {
		args = append(args, "--annotation", "cofferdam.dev/policy="+c.Policy)
	}
	for _, k := range slices.Sorted(maps.Keys(c.Annotations)) {
		args = append(args, "--annotation", k+"="+c.Annotations[k])
	}
	args = append(args, c.Flags...)
	args = append(args, c.Image, c.ID)
	return append(args, c.Args...)
}

// Run runs a container to its end and removes it.
func (d *Daemon) Run(t testing.TB, c Container) Result {
	t.Helper()
	return d.Ctr(t, d.args(&c, "--rm")...)
}

// Running is a container that was started. It is removed when its test ends.
type Running struct {
	ID   string
	User string // of each Exec, UID:GID; "" is the container's own
	d    *Daemon
	n    int // execs so far; a Running belongs to one test, which does not exec concurrently
}

// TryContainer starts a container and returns when its command has been started. Without a command it sleeps for an hour.
func (d *Daemon) TryContainer(t testing.TB, c Container) (*Running, Result) {
	t.Helper()
	if len(c.Args) == 0 {
		c.Args = []string{"sleep", "3600"}
	}
	args := d.args(&c, "-d")
	d.mu.Lock()
	d.live[c.ID] = true
	d.mu.Unlock()
	r := &Running{ID: c.ID, d: d}
	t.Cleanup(func() { r.Remove(t) })
	return r, d.Ctr(t, args...)
}

// Attach returns a ctr command that runs a container with the command's streams, and the container, which is there once the command runs.
func (d *Daemon) Attach(t testing.TB, c Container) (*Running, *exec.Cmd) {
	t.Helper()
	args := d.args(&c)
	d.mu.Lock()
	d.live[c.ID] = true
	d.mu.Unlock()
	r := &Running{ID: c.ID, d: d}
	t.Cleanup(func() { r.Remove(t) })
	return r, d.Command(t.Context(), args...)
}

// StartContainer is TryContainer for a container that must start.
func (d *Daemon) StartContainer(t testing.TB, c Container) *Running {
	t.Helper()
	r, got := d.TryContainer(t, c)
	if got.Code != 0 {
		t.Fatalf("start container %s: %s\nlog of containerd:\n%s", r.ID, got, d.Log(30))
	}
	return r
}

// Remove kills and removes the container; again is no error.
func (r *Running) Remove(t testing.TB) {
	t.Helper()
	r.d.mu.Lock()
	live := r.d.live[r.ID]
	r.d.mu.Unlock()
	if !live {
		return
	}
	if err := r.d.remove(r.ID); err != nil {
		t.Error(err)
	}
}

// Exec runs a command in the container.
func (r *Running) Exec(t testing.TB, args ...string) Result {
	t.Helper()
	return r.ExecWith(t, nil, args...)
}

// ExecWith is Exec with more flags of ctr task exec.
func (r *Running) ExecWith(t testing.TB, flags []string, args ...string) Result {
	t.Helper()
	return r.d.Ctr(t, r.exec(flags, args)...)
}

// AttachExec returns a ctr command that runs a command in the container, with its streams.
func (r *Running) AttachExec(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	return r.d.Command(t.Context(), r.exec(nil, args)...)
}

func (r *Running) exec(flags, args []string) []string {
	r.n++
	all := append([]string{"task", "exec", "--exec-id", "e" + strconv.Itoa(r.n)}, flags...)
	if r.User != "" {
		all = append(all, "--user", r.User)
	}
	return append(append(all, r.ID), args...)
}

// Probe makes one attempt in the container. On a busy machine ctr 1.6 sometimes loses what a process printed, with the stock runtime too: its
// client gives the streams up that it has not opened yet when the process ends. A probe that printed nothing is made again.
func (r *Running) Probe(t testing.TB, attempt ...string) outcome.Outcome {
	t.Helper()
	got := r.Exec(t, append([]string{"probe"}, attempt...)...)
	for try := 0; try < 3 && got.Stdout == "" && got.Stderr == "" && got.Code <= 1; try++ {
		got = r.Exec(t, append([]string{"probe"}, attempt...)...)
	}
	o, err := outcome.Parse([]byte(got.Stdout))
	if err != nil {
		t.Fatalf("probe %s in %s: %v: %s\nlog of containerd:\n%s", strings.Join(attempt, " "), r.ID, err, got, r.d.Log(15))
	}
	return o
}

// PID returns the process ID of the container's command, as ctr lists it.
func (r *Running) PID(t testing.TB) int {
	t.Helper()
	for line := range strings.Lines(r.d.MustCtr(t, "task", "list").Stdout) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == r.ID {
			pid, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatalf("ctr task list: %q", line)
			}
			return pid
		}
	}
	t.Fatalf("container %s has no task", r.ID)
	return 0
}

// Shims returns the processes that serve the container: those whose command line names a shim and its ID.
func (r *Running) Shims(t testing.TB) []int {
	t.Helper()
	var pids []int
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		cmd, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		args := strings.Split(string(cmd), "\x00")
		if strings.HasPrefix(filepath.Base(args[0]), "containerd-shim-") && slices.Contains(args, r.ID) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}
