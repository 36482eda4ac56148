//go:build linux

// Command cofferdam shows and looks after the sandboxes of this host: which run, what was made of their containers, what their agents
// asked for and got, what a policy allows and why, what the host lacks, and what was left behind.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/shim/runner"
	"cofferdam.dev/cofferdam/shim/runner/userns"
	"cofferdam.dev/cofferdam/shim/sandbox"
)

// Exit statuses: 125 is ours, as with docker run; a check that found something is 1.
const (
	exitFound   = 1
	exitFailure = 125
)

func main() {
	if runner.IsInit() {
		runner.Init()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	code := make(chan int)
	go func() { code <- start(ctx) }()
	status := <-code
	stop()
	os.Exit(status)
}

// The main thread is the main goroutine's, which only waits: threads are moved to other namespaces, not all of them come back, and where the main one
// is, is where /proc/self says that the process is.
func init() { runtime.LockOSThread() }

// start goes on with a request that this process has brought into a user namespace, or begins with the command line.
func start(ctx context.Context) int {
	payload, inside, err := userns.Inside()
	if inside {
		var j job
		if err == nil {
			j, err = unpack(payload)
		}
		if err == nil {
			err = j.settle(os.Stderr)
		}
		if err == nil {
			err = carry(ctx, j)
		}
		return conclude(os.Stderr, err)
	}
	p := sandbox.DefaultPaths()
	if os.Geteuid() != 0 {
		if p, err = userPaths(); err != nil {
			return conclude(os.Stderr, err)
		}
	} else if home, err := os.UserHomeDir(); err == nil { // root has a policy of its own too
		p.User = sandbox.UserPolicy(configHome(home))
	}
	return run(ctx, os.Args[1:], os.Stdout, os.Stderr, p)
}

// errFound is returned by a command that worked and found something wrong, which it has printed.
var errFound = errors.New("found")

// run is main without the process: everything below takes its streams and paths from here.
func run(ctx context.Context, args []string, stdout, stderr io.Writer, p sandbox.Paths) int {
	root := &cobra.Command{
		Use:   "cofferdam",
		Short: "Two walls around an AI agent: files and network",
		Long: `Cofferdam puts two walls around an AI agent in any OCI image: of the host's files the agent sees its
workspace only, and of the network what a policy allows, through a filtering proxy.

Containers get the walls from the containerd runtime io.containerd.cofferdam.v1:

  ctr run --rm --runtime io.containerd.cofferdam.v1 \
    --mount type=bind,src=DIR,dst=/workspace,options=rbind:rw \
    --annotation cofferdam.dev/policy=NAME IMAGE ID CMD

NAME is a policy, /etc/cofferdam/policies/NAME.yaml; without one, everything is denied. This command shows
what became of such containers. A sandbox is named by its container's ID, or by NAMESPACE:ID.

Exit status: 0 success, 1 something was found (doctor, policy check), 125 a failure of cofferdam's own.`,
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(runCommand(p), toolsCommand(), psCommand(p), inspectCommand(p), logCommand(p), doctorCommand(p), gcCommand(p), policyCommand(p))

	return conclude(stderr, root.ExecuteContext(ctx))
}

// conclude tells a person about an error and returns the exit status.
func conclude(stderr io.Writer, err error) int {
	var ended agentStatus
	var unstarted *runner.StartError
	switch {
	case errors.As(err, &ended):
		return int(ended)
	case errors.As(err, &unstarted):
		fmt.Fprintf(stderr, "cofferdam: error: %v\n", err)
		return int(unstarted.Status)
	case err == nil:
		return 0
	case errors.Is(err, errFound):
		return exitFound
	default:
		fmt.Fprintf(stderr, "cofferdam: error: %v\n", err)
		if h := hint(err); h != "" {
			fmt.Fprintf(stderr, "cofferdam: hint: %s\n", h)
		}
		return exitFailure
	}
}

// hint says what a person can do about an error; empty: nothing is known.
func hint(err error) string {
	switch {
	case errors.Is(err, userns.ErrNone):
		return mendUserNamespaces()
	case errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0:
		return "sandboxes belong to root: run this with sudo"
	case errors.Is(err, errNoSandbox):
		return "cofferdam ps lists the sandboxes"
	case strings.HasPrefix(err.Error(), "unknown command"), strings.HasPrefix(err.Error(), "unknown flag"):
		return "cofferdam --help"
	default:
		return ""
	}
}

func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}

var errNoSandbox = errors.New("no such sandbox")

// find turns what a person wrote into a sandbox's ID: NAMESPACE:CONTAINER, or a container's ID that exists in one namespace only.
func find(ids []string, name string) (string, error) {
	var found []string
	for _, id := range ids {
		if id == name {
			return id, nil
		}
		if _, c, _ := strings.Cut(id, ":"); c == name {
			found = append(found, id)
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("%s: %w", name, errNoSandbox)
	case 1:
		return found[0], nil
	default:
		return "", fmt.Errorf("%s: in several namespaces: %s", name, strings.Join(found, ", "))
	}
}
