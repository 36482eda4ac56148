package world

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Config says what is particular about a program's world.
type Config struct {
	Prefix string            // of the names of the run's folder and cgroups; by it those of killed runs are found
	Net    bool              // a network namespace of its own; otherwise the program is in the host's
	Etc    map[string]string // by path below /etc: files that are replaced in there
}

const (
	envStage = "COFFERDAM_WORLD_STAGE"
	envDir   = "COFFERDAM_WORLD_DIR"
	envData  = "COFFERDAM_WORLD_DATA"
)

// tmpOutside holds the run's folder. TMPDIR may name a place that is hidden inside, or that the proxy's user cannot reach.
const tmpOutside = "/tmp"

// The main thread must stay in the namespaces that it starts in: it is the one that /proc/self speaks of, and a thread that has gone
// elsewhere can end, but not this one. A lock that init takes keeps every other goroutine off it.
func init() { runtime.LockOSThread() }

// Run calls inside in the world of c and returns the exit code of the program. prepare is called once, outside, with the run's folder: it is
// empty, world-readable, and removed at the end. What prepare returns is what Inside returns in there.
func Run(c Config, prepare func(dir string) (data string, err error), inside func() int) (int, error) {
	switch os.Getenv(envStage) {
	case "":
		return outside(c, prepare)
	case "keeper":
		keep(os.Getenv(envDir))
		return 0, nil
	case "init":
		return initProcess(c)
	default:
		return inside(), nil
	}
}

// Outside reports whether this process is the one that somebody else has started.
func Outside() bool { return os.Getenv(envStage) == "" }

// Inside reports whether this process is in the world, and returns the run's folder and what was prepared.
func Inside() (dir, data string, ok bool) {
	return os.Getenv(envDir), os.Getenv(envData), os.Getenv(envStage) == "inside"
}

// outside prepares, and runs keeper and init. It holds the lock of the run's folder, by which others see that the run is alive.
func outside(c Config, prepare func(dir string) (string, error)) (code int, err error) {
	removeDead(c.Prefix)
	dir, err := os.MkdirTemp(tmpOutside, c.Prefix)
	if err != nil {
		return 0, err
	}
	stop, err := startKeeper(dir)
	if err != nil {
		return 0, errors.Join(err, os.RemoveAll(dir))
	}
	defer func() { err = errors.Join(err, stop()) }()
	if err := os.Chmod(dir, 0o755); err != nil { // the proxy, which is not root, executes from here
		return 0, err
	}
	lock, err := os.Open(dir)
	if err != nil {
		return 0, err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return 0, fmt.Errorf("lock %s: %w", dir, err)
	}
	// A signal during prepare ends this process, and with it the keeper's pipe.
	data, err := prepare(dir)
	if err != nil {
		return 0, err
	}
	flags := uintptr(unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC)
	if c.Net {
		flags |= unix.CLONE_NEWNET
	}
	return run(again(envStage+"=init", envDir+"="+dir, envData+"="+data), flags, nil)
}

// again is this program with the same arguments, and more environment.
func again(env ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	return cmd
}

// startKeeper returns when the keeper runs; stop has it do its work and waits.
func startKeeper(dir string) (stop func() error, err error) {
	theirs, end, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	cmd := again(envStage+"=keeper", envDir+"="+dir)
	cmd.Stdin, cmd.Dir = theirs, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is not for it
	if err := cmd.Start(); err != nil {
		end.Close()
		return nil, fmt.Errorf("start the keeper: %w", err)
	}
	return func() error {
		end.Close()
		return cmd.Wait()
	}, nil
}

// keep waits until the program has ended and removes what it leaves on the host.
func keep(dir string) {
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	io.Copy(io.Discard, os.Stdin) // whatever ends it: there is nobody left to write
	removeCgroups(filepath.Base(dir))
	os.RemoveAll(dir) // nobody would read it
}

// run starts cmd with the caller's stdio, forwards signals, and returns its exit code. The child dies with the caller. reap, when not nil,
// takes the place of waiting.
func run(cmd *exec.Cmd, flags uintptr, reap func(pid int) (syscall.WaitStatus, error)) (int, error) {
	// Pdeathsig is sent when the thread ends, not the process: this is the main thread (init).
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	go func() { // ends with the process, which ends after the child
		for s := range signals {
			cmd.Process.Signal(s) // it may have ended
		}
	}()
	if reap == nil {
		reap = func(int) (syscall.WaitStatus, error) {
			err := cmd.Wait()
			if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
				err = nil
			}
			if err != nil {
				return 0, err
			}
			return cmd.ProcessState.Sys().(syscall.WaitStatus), nil
		}
	}
	status, err := reap(cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	if status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return status.ExitStatus(), nil
}

// initProcess is PID 1: it makes the mounts, runs the program, and reaps the orphans, of which containerd's shims are many.
func initProcess(c Config) (int, error) {
	if err := mounts(c.Etc); err != nil {
		return 0, err
	}
	return run(again(envStage+"=inside", "TMPDIR="+tmpDir), 0, func(pid int) (syscall.WaitStatus, error) {
		for {
			var status syscall.WaitStatus
			got, err := syscall.Wait4(-1, &status, 0, nil)
			switch {
			case errors.Is(err, syscall.EINTR):
			case err != nil:
				return 0, os.NewSyscallError("wait4", err)
			case got == pid:
				return status, nil
			}
		}
	})
}

const (
	runDir = "/run"
	tmpDir = "/var/tmp" // not below /run, of which a sandbox gets nothing
)

// mounts makes the host's files unreachable where the program writes: nothing of a run is left on the disk.
func mounts(etc map[string]string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return os.NewSyscallError("mount / private", err)
	}
	for _, m := range []struct {
		typ, dir, data string
		flags          uintptr
	}{
		{"proc", "/proc", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"tmpfs", runDir, "mode=755", 0},
		{"tmpfs", "/var/log", "mode=755", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"tmpfs", tmpDir, "mode=1777", unix.MS_NOSUID | unix.MS_NODEV},
		{"overlay", "/etc", "lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work", 0},
	} {
		if err := unix.Mount(m.typ, m.dir, m.typ, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.typ, m.dir, err)
		}
		if m.dir == runDir {
			for _, d := range []string{"/run/etc/upper", "/run/etc/work", "/run/lock"} {
				if err := os.MkdirAll(d, 0o755); err != nil {
					return err
				}
			}
		}
	}
	for file, text := range etc {
		if err := os.RemoveAll(file); err != nil { // a symbolic link on many hosts
			return err
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// removeDead removes what killed runs have left: their folders, which nobody has locked, and their cgroups.
func removeDead(prefix string) {
	dirs, _ := filepath.Glob(filepath.Join(tmpOutside, prefix+"*"))
	for _, dir := range dirs {
		f, err := os.Open(dir)
		if err != nil {
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			removeCgroups(filepath.Base(dir))
			os.RemoveAll(dir) // the next run tries again
		}
		f.Close()
	}
}

// removeCgroups removes the cgroups of a run whose processes are gone or about to be.
func removeCgroups(run string) {
	for deadline := time.Now().Add(5 * time.Second); ; <-time.After(time.Millisecond) { // polled: nobody tells when a foreign process ends
		left := Cgroups(run)
		for _, dir := range left {
			os.Remove(dir) // it is looked for again
		}
		if len(left) == 0 || time.Now().After(deadline) {
			return
		}
	}
}

// Cgroups lists the cgroup folders below those whose names start with prefix, the deepest first, in every hierarchy.
func Cgroups(prefix string) []string {
	var out []string
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		tops, _ := filepath.Glob(pattern + prefix + "*")
		for _, top := range tops {
			var below []string
			filepath.WalkDir(top, func(p string, d os.DirEntry, err error) error { // it never returns one
				if err == nil && d.IsDir() {
					below = append(below, p)
				}
				return nil
			})
			for _, dir := range slices.Backward(below) {
				out = append(out, dir)
			}
		}
	}
	return out
}
