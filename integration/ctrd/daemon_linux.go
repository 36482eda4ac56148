package ctrd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const base = "/run/cd"

// A Daemon is one running containerd. Its methods are safe for concurrent use, but Stop, Kill and Start, which need the daemon for themselves.
type Daemon struct {
	Engine    Engine
	Address   string // of the gRPC socket
	Namespace string // of every container; also the parent of their cgroups

	path string // PATH of the daemon
	dir  string
	log  string
	proc *exec.Cmd
	gone chan struct{} // closed when proc has been waited for

	mu   sync.Mutex
	next int             // number of the next container; guarded by mu
	live map[string]bool // containers that were started and not removed; guarded by mu
}

// New starts engine with the folders of path in front of its PATH. namespace must be unique on the host.
func New(engine Engine, namespace string, path ...string) (*Daemon, error) {
	d := &Daemon{
		Engine: engine, Namespace: namespace, dir: filepath.Join(base, engine.Name), live: map[string]bool{},
		path: strings.Join(append(path, engine.Dir, "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ":"),
	}
	d.Address = filepath.Join(d.dir, "s.sock")
	d.log = filepath.Join(d.dir, "log")
	if err := os.MkdirAll(d.dir, 0o755); err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`version = 2
root = %q
state = %q
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.sandbox-controllers",
  "io.containerd.internal.v1.opt", "io.containerd.internal.v1.restart", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.nri.v1.nri", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.erofs", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = %q
[ttrpc]
  address = %q
[debug]
  level = "debug"
`, filepath.Join(d.dir, "root"), filepath.Join(d.dir, "state"), d.Address, d.Address+".ttrpc")
	if err := os.WriteFile(filepath.Join(d.dir, "config.toml"), []byte(config), 0o644); err != nil {
		return nil, err
	}
	return d, d.Start()
}

// Start starts the daemon, after New only when Stop or Kill has ended it, and waits until it serves.
func (d *Daemon) Start() error {
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(d.Engine.Dir, "containerd"), "--config", filepath.Join(d.dir, "config.toml"))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "PATH=") || strings.HasPrefix(kv, "COFFERDAM_") }), "PATH="+d.path)
	// A group of its own: a signal for the tests is not one for the daemon. If they die, the lab's init does too, and with it everything.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	gone := make(chan struct{})
	go func() {
		cmd.Wait()
		close(gone)
	}()
	d.proc, d.gone = cmd, gone

	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		select {
		case <-gone:
			return fmt.Errorf("containerd %s ended: %s", d.Engine.Name, d.Log(20))
		case <-time.After(10 * time.Millisecond): // nothing to wait for but its socket
		}
		c, err := net.Dial("unix", d.Address)
		if err != nil {
			continue
		}
		c.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		_, err = d.output(ctx, nil, "version")
		cancel()
		if err == nil {
			return nil
		}
	}
	return fmt.Errorf("containerd %s does not serve: %s", d.Engine.Name, d.Log(20))
}

// Halt ends the daemon with a signal, and leaves shims and containers running.
func (d *Daemon) Halt(sig unix.Signal) error {
	if err := d.proc.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-d.gone:
		return nil
	case <-time.After(20 * time.Second):
		return fmt.Errorf("containerd %s does not end", d.Engine.Name)
	}
}

// Signal sends a signal to the daemon that does not end it.
func (d *Daemon) Signal(sig unix.Signal) error { return d.proc.Process.Signal(sig) }

// Restart ends and starts the daemon while containers run; with SIGKILL it is a crash.
func (d *Daemon) Restart(t testing.TB, sig unix.Signal) {
	t.Helper()
	if err := d.Halt(sig); err != nil {
		t.Fatal(err)
	}
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
}

// Log returns the last lines of the daemon's log, in which its shims' logs are too.
func (d *Daemon) Log(lines int) string {
	data, err := os.ReadFile(d.log)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// A Result is how a ctr command ended.
type Result struct {
	Stdout, Stderr string
	Code           int // exit code of ctr, which is the container's for run and exec
}

func (r Result) String() string {
	return fmt.Sprintf("exit code %d\nstdout: %s\nstderr: %s", r.Code, r.Stdout, r.Stderr)
}

// Ctr runs ctr and returns how it ended, whatever that is. It is killed after half a minute.
func (d *Daemon) Ctr(t testing.TB, args ...string) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	r, err := d.output(ctx, nil, args...)
	if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || ctx.Err() != nil) {
		t.Fatalf("ctr %s: %v\n%s", strings.Join(args, " "), err, r)
	}
	return r
}

// MustCtr is Ctr, but the test fails unless the code is 0.
func (d *Daemon) MustCtr(t testing.TB, args ...string) Result {
	t.Helper()
	r := d.Ctr(t, args...)
	if r.Code != 0 {
		t.Fatalf("ctr %s: %s\nlog of containerd:\n%s", strings.Join(args, " "), r, d.Log(15))
	}
	return r
}

// Command returns a ctr command for a caller who wants its streams or to kill it.
func (d *Daemon) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(d.Engine.Dir, "ctr"), append([]string{"-a", d.Address, "-n", d.Namespace}, args...)...)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

func (d *Daemon) output(ctx context.Context, stdin io.Reader, args ...string) (Result, error) {
	cmd := d.Command(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	err := cmd.Run()
	code := -1
	if cmd.ProcessState != nil {
		code = cmd.ProcessState.ExitCode()
	}
	return Result{stdout.String(), stderr.String(), code}, err
}

// Import imports an image archive.
func (d *Daemon) Import(archive string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if r, err := d.output(ctx, nil, "images", "import", archive); err != nil {
		return fmt.Errorf("ctr images import %s: %w: %s", archive, err, r)
	}
	return nil
}

// Stop removes what containers are left, ends the daemon, and removes its folder. It returns the containers that a test has forgotten.
func (d *Daemon) Stop() (forgotten []string, err error) {
	d.mu.Lock()
	for id := range d.live {
		forgotten = append(forgotten, id)
	}
	d.mu.Unlock()
	for _, id := range forgotten {
		err = errors.Join(err, d.remove(id))
	}
	err = errors.Join(err, d.Halt(unix.SIGTERM))
	return forgotten, errors.Join(err, d.unmount(), os.RemoveAll(d.dir))
}

// unmount detaches what is mounted below the daemon's folder, the last first.
func (d *Daemon) unmount() error {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	lines := strings.Split(string(data), "\n")
	slices.Reverse(lines)
	for _, line := range lines {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], d.dir+"/") {
			err = errors.Join(err, unix.Unmount(f[4], unix.MNT_DETACH))
		}
	}
	return err
}

// Forget kills and deletes a container and its task that Command was used for, and is content if they are gone.
func (d *Daemon) Forget(id string) error { return d.remove(id) }

// remove kills and deletes a container and its task, and is content if they are gone.
func (d *Daemon) remove(id string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	task, taskErr := d.output(ctx, nil, "task", "delete", "--force", id)
	box, boxErr := d.output(ctx, nil, "container", "delete", id)
	d.mu.Lock()
	delete(d.live, id)
	d.mu.Unlock()
	if boxErr != nil && !strings.Contains(box.Stderr, "not found") {
		return fmt.Errorf("remove container %s: %v %s; %v %s", id, taskErr, task, boxErr, box)
	}
	return nil
}

// Bundles is a shell pattern of the bundles of all daemons.
const Bundles = base + "/*/state/io.containerd.runtime.v2.task/*/*"

// bundle is where containerd keeps a running task's files.
func (d *Daemon) bundle(id string) string {
	return filepath.Join(d.dir, "state", "io.containerd.runtime.v2.task", d.Namespace, id)
}

// Bundle returns the folder of a running task: config.json as the runtime got it, and the shim's address.
func (d *Daemon) Bundle(id string) (string, error) {
	dir := d.bundle(id)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("container %s has no bundle", id)
	} else if err != nil {
		return "", err
	}
	return dir, nil
}
