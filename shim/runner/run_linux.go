package runner

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	_ "github.com/opencontainers/runc/libcontainer/nsenter" // the first steps of a container, before Go runs
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/netns/fault"
	"cofferdam.dev/cofferdam/proxy/policy"
	"cofferdam.dev/cofferdam/shim/sandbox"
	"cofferdam.dev/cofferdam/spec"
)

// InitBinary is the sandbox's first process; it is installed beside the command line.
const InitBinary = "cofferdam-init"

// Namespace is that of all sandboxes that are run without an engine: their IDs are "run:NAME".
const Namespace = "run"

// IsInit reports whether this process is the first one of a container, started by libcontainer; main then calls Init before anything else.
func IsInit() bool {
	return len(os.Args) == 2 && os.Args[1] == "init" && os.Getenv("_LIBCONTAINER_INITPIPE") != ""
}

// Init sets the container up from inside and never returns.
func Init() {
	debug.SetGCPercent(-1) // it becomes another program before there is anything to collect
	runtime.GOMAXPROCS(1)
	runtime.LockOSThread()
	// libcontainer gives this signal to the process that it starts, not to this one, which that one has made (fork clears it, prctl(2)), and
	// which waits for the runner to release it: it would wait for good.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		panic(err) // no kernel refuses
	}
	libcontainer.Init()
}

// Status is how the agent ended: the exit status, or 128 and the number of the signal, as shells have it.
type Status int

// Plan returns the spec that Run would have carried out, and what was changed to come to it.
func Plan(r Request) (*specs.Spec, []spec.Change, error) {
	_, asked, err := r.sandbox()
	if err != nil {
		return nil, nil, err
	}
	return sandbox.Plan(r.Paths, asked)
}

// sandbox says what to prepare, and the tools that the root file system is made for.
func (r Request) sandbox() (toolchain, sandbox.Request, error) {
	id, err := sandbox.ID(Namespace, r.Name)
	if err != nil {
		return toolchain{}, sandbox.Request{}, err
	}
	tools, err := findToolchain()
	if err != nil {
		return toolchain{}, sandbox.Request{}, err
	}
	bundle := r.Paths.Bundle(id)
	grants := spec.Sandbox{Agent: r.Args[0], Files: r.Files, Network: spec.Network{Mode: spec.Proxied}}
	s := r.Spec
	if s == nil {
		program := spec.Program{Args: r.Args, Env: r.Env, Cwd: r.Cwd, Root: r.Root, Home: r.Home}
		if !r.Rootless {
			program.UID, program.GID = r.UID, r.GID
		}
		if r.Root == "" {
			program.Root, program.ReadOnly = filepath.Join(bundle, rootName), true
			grants.Tools = slices.Concat(tools.tools, r.Optional)
		}
		s = program.Spec()
	}
	s.Linux.CgroupsPath = "/cofferdam/" + r.Name
	if r.Rootless {
		s.Linux.CgroupsPath = ""
		s.Process.User = specs.User{Umask: s.Process.User.Umask} // outside of the inner user namespace
		// Counted per user namespace: of the inner one, all of the agent's.
		s.Process.Rlimits = slices.DeleteFunc(s.Process.Rlimits, func(l specs.POSIXRlimit) bool { return l.Type == "RLIMIT_NPROC" })
		most := uint64(r.Limits.OrDefault().Pids)
		s.Process.Rlimits = append(s.Process.Rlimits, specs.POSIXRlimit{Type: "RLIMIT_NPROC", Soft: most, Hard: most})
	}
	return tools, sandbox.Request{
		Namespace: Namespace, Container: r.Name, Bundle: bundle, Limits: r.Limits, Upstream: r.Upstream, Pool: r.Pool, Start: start,
		Program: &sandbox.Program{
			Spec: s, Grants: grants, Policy: r.Policy, Home: r.Home, Rootless: r.Rootless, OneID: r.Rootless && !r.SeveralIDs(), ProxyID: r.ProxyID, Proxy: r.Proxy, Broker: r.Broker, Weaker: r.Weaker(), Outside: r.outside(),
		},
	}, nil
}

// outside are the files that are used out here. A project's policy lies in the workspace, and is believed for that much.
func (r Request) outside() []string {
	files := []string{r.Proxy, r.Broker, r.Init, "/proc/self/exe"}
	for _, l := range r.Policy {
		if l.Path != "" && l.Layer != policy.Project {
			files = append(files, l.Path)
		}
	}
	return files
}

const rootName = "rootfs" // in a bundle

// Run runs the agent and waits for its end. An error means that the sandbox could not be made or watched; whatever there was of it is gone
// then. Cancelling ctx, as SIGINT and SIGTERM should, ends the setting up; a running agent is ended by signals, which are passed on to it.
func Run(ctx context.Context, r Request, stdio [3]*os.File) (_ Status, err error) {
	collectGarbage := keepGarbage()

	// One of those that cancel ctx may come too late to end the setting up: it is in here then, and the agent's.
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM)
	defer signal.Stop(signals)

	tools, asked, err := r.sandbox()
	if err != nil {
		return 0, err
	}
	var removed chan error // nil: there is no container yet
	asked.Program.Removed = func() error {
		if removed == nil {
			return nil
		}
		err := <-removed
		removed <- err // for the next one
		return err
	}
	sb, err := sandbox.Prepare(ctx, r.Paths, asked)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, sb.Close()) }()
	streams, err := newStreams(stdio)
	if err != nil {
		return 0, fmt.Errorf("streams: %w", err)
	}
	defer func() { err = errors.Join(err, streams.close()) }() // after the container's end
	// Two things that take about as long, and do not need each other.
	made := make(chan error, 1)
	go func() { made <- r.makeRoot(asked.Bundle, tools) }()
	c, err := newContainer(sb, r, asked.Bundle)
	if err == nil {
		defer func() {
			removed = make(chan error, 1)
			go func() { removed <- c.destroy() }() // Close waits for it
		}()
	}
	if err := errors.Join(err, <-made); err != nil {
		return 0, err
	}
	if err := fault.Point("run", "root file system"); err != nil {
		return 0, err
	}
	// Init does one thing after the other; libcontainer hands this on to it, and Go's runtime then starts with less.
	if err := os.Setenv("GOMAXPROCS", "1"); err != nil {
		return 0, err
	}
	end, err := onThread(func() error { return c.start(streams.given) })
	defer end()
	if err != nil {
		return 0, err
	}
	streams.start()
	if err := fault.Point("run", "first process"); err != nil {
		return 0, err
	}
	if err := sb.Attach(ctx, c.pid); err != nil {
		return 0, err
	}
	if err := sb.Verify(c.pid); err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	ctx = context.WithoutCancel(ctx) // from here on signals are the agent's
	signal.Notify(signals, passedSignals...)
	if err := c.release(); err != nil {
		return 0, err
	}
	if err := fault.Point("run", "released agent"); err != nil {
		return 0, err
	}
	sb.Started()
	if err := c.passListener(ctx, sb); err != nil {
		return 0, err
	}
	if err := fault.Point("run", "listener"); err != nil {
		return 0, err
	}
	quiet := time.AfterFunc(quietTime, func() {
		sb.Watch(ctx)
		_, _ = sandbox.Collect(r.Paths) // see below
		collectGarbage()
		settle() // last: what runs after it brings pages back
	})
	defer quiet.Stop()
	// What a crash has left of others goes while the agent runs. One that cannot be removed hinders nobody but cofferdam gc, which says so. Looking
	// through all logs is for those that stay, and for a few of the others, since there may be nobody else.
	collect := sandbox.CollectSandboxes
	if rand.N(64) == 0 {
		collect = sandbox.Collect
	}
	collected := make(chan struct{})
	go func() {
		defer close(collected)
		_, _ = collect(r.Paths)
	}()
	defer func() { <-collected }()
	status, err := c.wait(signals)
	return status, errors.Join(err, fault.Point("run", "ended agent"))
}

// makeRoot makes the root file system of an agent that brings none.
func (r Request) makeRoot(bundle string, t toolchain) error {
	if r.Root != "" || r.Spec != nil {
		return nil
	}
	return makeRoot(filepath.Join(bundle, rootName), r, t)
}

// quietTime after the start a sandbox is taken to be one that stays: then what changes is followed, and the memory that the start took is
// given back.
const quietTime = 500 * time.Millisecond

// startMemory is how much the start may take, in bytes, before anything of it is collected: several times what it needs.
const startMemory = 64 << 20

// keepGarbage has Go collect nothing until the returned function is called: until a sandbox is settled little has been used, and one that ends
// before gives back all of it at once.
func keepGarbage() (collect func()) {
	percent, limit := debug.SetGCPercent(-1), debug.SetMemoryLimit(startMemory)
	return func() {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	}
}

// onThread runs f on a thread of its own, which ends when end is called: what f starts dies with the thread that started it (prctl(2),
// PR_SET_PDEATHSIG), and f may change what is the thread's own. The caller is not bound to it, since then each wait of its own would be two
// switches between threads.
func onThread(f func() error) (end func(), err error) {
	done, ended := make(chan error), make(chan struct{})
	go func() { // ends with end
		runtime.LockOSThread() // and never unlocked
		done <- f()
		<-ended
	}()
	return sync.OnceFunc(func() { close(ended) }), <-done
}

// start starts a child; see sandbox.Starter.
func start(cmd *exec.Cmd) (<-chan error, error) {
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }() // ends with the child
	return exited, nil
}
