//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/log"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"cofferdam.dev/cofferdam/proxy/policy"
	"cofferdam.dev/cofferdam/shim/runner"
	"cofferdam.dev/cofferdam/shim/runner/userns"
	"cofferdam.dev/cofferdam/shim/sandbox"
	"cofferdam.dev/cofferdam/spec"
)

// runFlags are those of `cofferdam run`.
type runFlags struct {
	workspace, policy, rootfs, bundle, name, memory string
	allow, read, with, env                          []string
	cpus                                            float64
	pids                                            int64
	readOnly, strict, printSpec, report, json       bool
	asRoot                                          bool
}

func runCommand(p sandbox.Paths) *cobra.Command {
	var f runFlags
	c := &cobra.Command{
		Use:   "run [flags] [--] COMMAND [ARG...]",
		Short: "Run a command between both walls, without a daemon",
		Long: `Runs COMMAND in a sandbox of its own: of the host's files it sees the workspace (the current folder, or -w), at its own
place, and the host's programs, read-only; home and /tmp are private and gone afterwards. Of the network it reaches what the
policy allows, through a filtering proxy; without a policy, nothing.

The policy has up to three layers, and allows what each of them allows: the administrator's, ` + p.AdminPolicy() + `,
which bounds flags too; the caller's, ` + userPolicyName(p) + `, or instead of that what --policy
and --allow say; and the project's, ` + sandbox.ProjectFile + ` at the top of the workspace, which only narrows and grants nothing
by itself. What a file does not say it does not allow, but for the project's, which may be silent about the network or
files. cofferdam policy show prints the layers.

The command is the caller's own user inside, and files that it writes in the workspace belong to the caller. It gets of the
environment ` + strings.Join(runner.Passed(), ", ") + ` and what --env names.
With --with a tool that is installed in the caller's home comes along, for example nvm or cargo: its programs, and no
credentials; cofferdam tools lists them.
Its git knows the caller's name and email address, and nothing else of the caller's configuration.

Without root, the caller's subordinate ids (subuid(5)) are the proxy's and, with --as-root, those of an image's other users.

Files by which a workspace could strike back later (git hooks and configuration, editor, shell, agent and CI files) are
protected in it, see SECURITY.md. At the end, if standard error is a terminal, it is told what was changed, reached and refused.

Exit status: that of COMMAND, 128+N if signal N ended it, 127 if it was not found, 126 if it could not be executed, 125 for
a failure of cofferdam's own.`,
		Example: `  cofferdam run -- make test
  cofferdam run --policy web --allow api.example.org -w ~/src/project sh
  cofferdam run --with nvm -- npm test
  cofferdam run --rootfs /srv/images/debian -- apt-get update`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 && f.bundle == "" {
				return errors.New("a command is needed, or --bundle")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if os.Geteuid() != 0 { // this process becomes another program, see enter
				if err := userns.EndBySignals(); err != nil {
					return err
				}
			} else if !f.printSpec {
				go sandbox.HurryCgroups() // ends on its own
			}
			git := askGit(cmd.Context())
			r, left, err := f.request(p, args)
			if err != nil {
				return err
			}
			for _, l := range left {
				fmt.Fprintf(cmd.ErrOrStderr(), "cofferdam: warning: --with %s: it is left out\n", l)
			}
			if f.printSpec {
				return printSpec(cmd.OutOrStdout(), r)
			}
			if r.Root == "" && r.Spec == nil { // else /etc is not ours
				if err := git(&r); err != nil {
					fmt.Fprintf(cmd.ErrOrStderr(), "cofferdam: warning: the command's git does not know who you are: %v\n", err)
				}
			}
			weaker := r.Weaker()
			if f.strict && len(weaker) > 0 {
				return fmt.Errorf("--strict: %s", strings.Join(weaker, "; "))
			}
			hint, err := unmet(r.Policy, p.User)
			if err != nil {
				return err
			}
			for line := range strings.Lines(hint) {
				fmt.Fprintf(cmd.ErrOrStderr(), "cofferdam: hint: %s\n", strings.TrimSuffix(line, "\n"))
			}
			for _, w := range weaker {
				fmt.Fprintf(cmd.ErrOrStderr(), "cofferdam: warning: %s\n", w)
			}
			how := reportNothing
			switch {
			case f.json:
				how = reportJSON
			case f.report, runner.IsTerminal(os.Stderr):
				how = reportPeople
			}
			return enter(cmd.Context(), job{r, how, f.strict})
		},
	}
	flags := c.Flags()
	flags.SetInterspersed(false) // what follows COMMAND is its own
	flags.StringVarP(&f.workspace, "workspace", "w", "", "the `folder` that the command may write to (default: the current one)")
	flags.BoolVar(&f.readOnly, "read-only", false, "the workspace may only be read")
	flags.StringVar(&f.policy, "policy", "", "a policy, instead of the caller's own: a `file`, or the name of one in "+p.Policies)
	flags.StringArrayVar(&f.allow, "allow", nil, "allow `HOST[:PORT]`, with --policy or instead of the caller's own policy: port 443 is TLS (default), 80 HTTP, 22 SSH, others TCP")
	flags.StringArrayVar(&f.read, "read", nil, "a `path` of the host that the command may read, at its own place")
	flags.StringArrayVar(&f.with, "with", nil, "a `tool` of the caller's home, read-only and without its credentials: nvm, cargo, pyenv and others, see cofferdam tools, or a program in PATH")
	flags.StringVar(&f.rootfs, "rootfs", "", "a `folder` with a root file system to run in, which the command may write to")
	flags.BoolVar(&f.asRoot, "as-root", false, "with --rootfs: the command is root in there, of the caller's subordinate ids")
	flags.StringVar(&f.bundle, "bundle", "", "an OCI bundle's `folder`: what it says is run, its root, process and workspace, as a container would")
	flags.StringArrayVarP(&f.env, "env", "e", nil, "a variable: `KEY=VALUE`, or KEY for the caller's value")
	flags.StringVar(&f.memory, "memory", "", "most memory, as in 512MiB or 4GiB")
	flags.Float64Var(&f.cpus, "cpus", 0, "most processors' worth of time")
	flags.Int64Var(&f.pids, "pids", 0, "most processes and threads")
	flags.BoolVar(&f.strict, "strict", false, "refuse to run where this host cannot give every layer")
	flags.BoolVar(&f.printSpec, "print-spec", false, "print the OCI spec that would be run, and run nothing")
	flags.BoolVar(&f.report, "report", false, "tell on standard error what the command did, also where that is no terminal")
	flags.BoolVar(&f.json, "json", false, "tell it as one JSON object, the last line on standard error")
	flags.StringVar(&f.name, "name", "", "the sandbox's name (default: the workspace's, and a random part)")
	return c
}

func printSpec(w io.Writer, r runner.Request) error {
	s, _, err := runner.Plan(r)
	if err != nil {
		return err
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(s)
}

// agentStatus is the error of a command that ran and ended: nothing is printed for it.
type agentStatus runner.Status

func (e agentStatus) Error() string { return "exit status " + strconv.Itoa(int(e)) }

// job is what travels into a user namespace.
type job struct {
	Request runner.Request
	Report  reporting
	Strict  bool
}

// luggage is a job as it travels. An OCI spec is text already, if there is one: to have one in a type is to have all of its types looked at.
type luggage struct {
	Job  job
	Spec json.RawMessage
}

func (j job) pack() ([]byte, error) {
	l := luggage{Job: j}
	if j.Request.Spec != nil {
		var err error
		if l.Spec, err = json.Marshal(j.Request.Spec); err != nil {
			return nil, err
		}
	}
	return json.Marshal(l)
}

func unpack(payload []byte) (job, error) {
	var l luggage
	if err := json.Unmarshal(payload, &l); err != nil {
		return job{}, err
	}
	if len(l.Spec) > 0 && string(l.Spec) != "null" {
		if err := json.Unmarshal(l.Spec, &l.Job.Request.Spec); err != nil {
			return job{}, err
		}
	}
	return l.Job, nil
}

// enter does the job: as root here, as anybody else in a user namespace, to which this process moves.
func enter(ctx context.Context, j job) error {
	if !j.Request.Rootless {
		return carry(ctx, j)
	}
	payload, err := j.pack()
	if err != nil {
		return err
	}
	return userns.Exec(ctx, payload, j.Request.IDs, j.Request.SeveralIDs())
}

// settle takes back what the request expects of ids that the user namespace does not have.
func (j *job) settle(stderr io.Writer) error {
	r := &j.Request
	if r.ProxyID == 0 || userns.HasIDs() {
		return nil
	}
	before := r.Weaker()
	r.IDs, r.Others, r.ProxyID, r.NoIDs = userns.IDs{}, nil, 0, "newuidmap does not give out the ids of /etc/subuid"
	for _, w := range r.Weaker() {
		switch {
		case slices.Contains(before, w):
		case j.Strict:
			return fmt.Errorf("--strict: %s", w)
		default:
			fmt.Fprintf(stderr, "cofferdam: warning: %s\n", w)
		}
	}
	return nil
}

// carry runs the request in this process.
func carry(ctx context.Context, j job) error {
	// The terminal is the agent's. What a person should know of is an error here, in the decision log, or in the sandbox's state.
	if err := log.SetLevel("error"); err != nil {
		return err
	}
	began := time.Now()
	status, err := runner.Run(ctx, j.Request, [3]*os.File{os.Stdin, os.Stdout, os.Stderr})
	if err != nil {
		return err
	}
	id, err := sandbox.ID(runner.Namespace, j.Request.Name)
	if err != nil {
		return err
	}
	j.Report.write(os.Stderr, j.Request.Paths, id, began, status)
	if status != 0 {
		return agentStatus(status)
	}
	return nil
}

// request gathers what the flags and this host say. What must be known of owners is looked at here, before a user namespace hides them.
// left are the parts of tools that are left out.
func (f *runFlags) request(p sandbox.Paths, args []string) (r runner.Request, left []string, err error) {
	config, err := sandbox.LoadConfig(p.Config)
	if err != nil {
		return r, nil, err
	}
	me, home, err := caller()
	if err != nil {
		return r, nil, err
	}
	workspace, err := realPath(f.workspace, ".")
	if err != nil {
		return r, nil, fmt.Errorf("workspace: %w", err)
	}
	r = runner.Request{
		Name: f.name, Args: args, Cwd: workspace, Home: home,
		UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), User: me.Username, Group: me.Username,
		Upstream: config.Upstream, Pool: config.Pool, Paths: p, Rootless: os.Geteuid() != 0,
	}
	if g, err := user.LookupGroupId(me.Gid); err == nil {
		r.Group = g.Name
	}
	if r.Name == "" {
		r.Name = nameAfter(workspace)
	}
	access := spec.Write
	if f.readOnly {
		access = spec.Read
	}
	r.Files = []spec.FileRule{{Path: workspace, Source: workspace, Access: access}}
	if here, err := realPath("", "."); err == nil && strings.HasPrefix(here, workspace+"/") {
		r.Cwd = here
	}
	for _, at := range f.read {
		if err := addReadable(&r, at); err != nil {
			return r, nil, fmt.Errorf("--read: %w", err)
		}
	}
	if f.asRoot {
		if f.rootfs == "" {
			return r, nil, errors.New("--as-root: a root file system is needed, --rootfs")
		}
		r.UID, r.GID, r.User, r.Group = 0, 0, "root", "root"
	}
	if f.rootfs != "" {
		if r.Root, err = realPath(f.rootfs, ""); err != nil {
			return r, nil, fmt.Errorf("--rootfs: %w", err)
		}
	}
	tools, err := f.tools(&r)
	if err != nil {
		return r, nil, err
	}
	if r.Env, err = environment(os.Environ(), tools, f.env, r); err != nil {
		return r, nil, err
	}
	if f.bundle != "" {
		if workspace, err = f.readBundle(&r); err != nil {
			return r, nil, err
		}
	}
	if r.Policy, err = f.layers(p, workspace); err != nil {
		return r, nil, err
	}
	parsed, err := r.Policy.Parse()
	if err != nil {
		return r, nil, err
	}
	for _, t := range tools {
		if err := t.bound(parsed); err != nil {
			return r, nil, err
		}
		for _, out := range t.found.Out {
			left = append(left, t.name+": "+out)
		}
	}
	if err := f.addFiles(&r, parsed); err != nil {
		return r, nil, err
	}
	if r.Limits, err = f.limits(config.Limits, parsed.Limits()); err != nil {
		return r, nil, err
	}
	if r.Proxy, err = sandbox.FindBinary(sandbox.ProxyBinary); err != nil {
		return r, nil, err
	}
	if r.Broker, err = sandbox.FindBinary(sandbox.BrokerBinary); err != nil {
		return r, nil, err
	}
	if r.Init, err = sandbox.FindBinary(runner.InitBinary); err != nil {
		return r, nil, err
	}
	if r.Rootless {
		if err := addIDs(&r, me.Username); err != nil {
			return r, nil, err
		}
	}
	return r, left, nil
}

// caller is who calls, and the home of whoever that is.
func caller() (*user.User, string, error) {
	me, err := user.Current()
	if err != nil {
		return nil, "", fmt.Errorf("find out who is calling: %w", err)
	}
	if own := os.Getenv("HOME"); filepath.IsAbs(own) { // programs look there first
		return me, filepath.Clean(own), nil
	}
	return me, filepath.Clean(me.HomeDir), nil
}

// addIDs gives the request the caller's subordinate ids, if there are any.
func addIDs(r *runner.Request, name string) error {
	ids, err := userns.FindIDs(name, uint32(os.Getuid()))
	if none, is := errors.AsType[*userns.NoIDsError](err); is {
		r.NoIDs = none.Reason + "; to mend it: " + none.Mend
		return nil
	}
	if err != nil {
		return fmt.Errorf("subordinate ids: %w", err)
	}
	st, err := os.Stat(r.Proxy)
	if err != nil {
		return err
	}
	if st.Mode().Perm()&0o005 != 0o005 {
		r.NoIDs = r.Proxy + " is not to be executed by others; to mend it: chmod o+rx " + r.Proxy
		return nil
	}
	r.IDs = ids
	r.ProxyID, r.Others = ids.Reserve()
	return nil
}

// readBundle takes from an OCI bundle what there is to run, and for whom. Of the host it sees the workspace that the bundle asks for, see
// spec.Describe, whose folder it returns, and no other folder that was not named by a flag or a policy.
func (f *runFlags) readBundle(r *runner.Request) (workspace string, err error) {
	if f.workspace != "" || f.rootfs != "" {
		return "", errors.New("--bundle: the bundle says where the workspace and the root file system are")
	}
	dir, err := realPath(f.bundle, "")
	if err != nil {
		return "", fmt.Errorf("--bundle: %w", err)
	}
	s, err := spec.ReadBundle(dir)
	if err != nil {
		return "", fmt.Errorf("--bundle: %w", err)
	}
	sb, err := spec.Describe(s, runner.Namespace+":"+r.Name)
	if err != nil {
		return "", fmt.Errorf("--bundle: %w", err)
	}
	if s.Root == nil || s.Linux == nil {
		return "", errors.New("--bundle: root and linux are needed")
	}
	if !filepath.IsAbs(s.Root.Path) {
		s.Root.Path = filepath.Join(dir, s.Root.Path)
	}
	if s.Root.Path, err = filepath.EvalSymlinks(s.Root.Path); err != nil {
		return "", fmt.Errorf("--bundle: root.path: %w", err)
	}
	if len(r.Args) == 0 {
		r.Args = s.Process.Args
	}
	if len(r.Args) == 0 {
		return "", errors.New("--bundle: process.args is empty")
	}
	s.Process.Args = r.Args
	for _, e := range f.env {
		if !strings.Contains(e, "=") {
			e += "=" + os.Getenv(e) // that it is set was looked at
		}
		s.Process.Env = append(s.Process.Env, e)
	}
	if f.policy == "" {
		f.policy = sb.Network.Policy
	}
	r.Spec, r.UID, r.GID = s, s.Process.User.UID, s.Process.User.GID
	r.Files = append(sb.Files, r.Files[1:]...) // the first one is the current folder
	if len(sb.Files) == 0 {
		return "", nil
	}
	if workspace, err = filepath.EvalSymlinks(sb.Files[0].Source); err != nil {
		return "", fmt.Errorf("--bundle: workspace: %w", err)
	}
	return workspace, nil
}

// addReadable adds a path of the host: a tool, which is mounted with the others, or files.
func addReadable(r *runner.Request, at string) error {
	if clean := filepath.Clean(at); spec.IsTool(clean) {
		if !slices.Contains(r.Optional, clean) {
			r.Optional = append(r.Optional, clean)
		}
		return nil
	}
	path, err := filepath.Abs(at)
	if err != nil {
		return err
	}
	source, err := realPath(at, "")
	if err != nil {
		return err
	}
	r.Files = append(r.Files, spec.FileRule{Path: path, Source: source, Access: spec.Read})
	return nil
}

// limits are what the flags and the policy ask for, and no more than the administrator's configuration gives.
func (f runFlags) limits(ceiling spec.Limits, policy policy.Limits) (spec.Limits, error) {
	most := ceiling.OrDefault()
	asked := spec.Limits{Pids: f.pids, CPUs: f.cpus}
	if f.memory != "" {
		n, err := units.RAMInBytes(f.memory)
		if err != nil || n <= 0 {
			return asked, fmt.Errorf("--memory: %q is not a size", f.memory)
		}
		asked.MemoryBytes = n
	}
	if err := asked.Validate(); err != nil {
		return asked, err
	}
	asked, err := sandbox.Narrow(asked, policy)
	if err != nil {
		return asked, err
	}
	asked = asked.OrDefault()
	return spec.Limits{
		MemoryBytes: min(most.MemoryBytes, asked.MemoryBytes), Pids: min(most.Pids, asked.Pids), CPUs: min(most.CPUs, asked.CPUs),
	}, nil
}

// environment is the agent's: what runner.Passed names of the caller's, who it is, what tools need, and what --env adds.
func environment(own []string, tools []homeTool, flags []string, r runner.Request) ([]string, error) {
	var env []string
	for _, e := range own {
		if key, _, _ := strings.Cut(e, "="); slices.Contains(runner.Passed(), key) {
			env = append(env, e)
		}
	}
	home := r.Home
	if r.Root != "" && r.UID == 0 { // root of the image
		home = "/root"
	}
	env = append(env, "HOME="+home, "USER="+r.User, "LOGNAME="+r.User)
	for _, t := range tools {
		env = t.addTo(env)
	}
	for _, e := range flags {
		key, _, given := strings.Cut(e, "=")
		if key == "" {
			return nil, fmt.Errorf("--env %q: want KEY=VALUE or KEY", e)
		}
		if !given {
			value, ok := os.LookupEnv(key)
			if !ok {
				return nil, fmt.Errorf("--env %s: it is not set", key)
			}
			e = key + "=" + value
		}
		env = setVariable(env, e)
	}
	return env, nil
}

// setVariable puts KEY=VALUE in the place of what there was of the key.
func setVariable(env []string, e string) []string {
	key, _, _ := strings.Cut(e, "=")
	return append(slices.DeleteFunc(env, func(old string) bool { return strings.HasPrefix(old, key+"=") }), e)
}

// realPath resolves a path of the command line; empty stands for other.
func realPath(p, other string) (string, error) {
	if p == "" {
		p = other
	}
	abs, err := filepath.Abs(p)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}

// nameAfter makes a name out of a folder's, see sandbox.ID.
func nameAfter(folder string) string {
	keep := func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}
	base := strings.Map(keep, filepath.Base(folder))
	random := make([]byte, 4)
	_, _ = rand.Read(random) // never fails
	name := hex.EncodeToString(random)
	if base == "" {
		return name
	}
	return base[:min(len(base), 32)] + "-" + name
}

// userPolicyName is how help calls the caller's own policy.
func userPolicyName(p sandbox.Paths) string {
	if p.User == "" {
		return sandbox.UserPolicy("$XDG_CONFIG_HOME")
	}
	return p.User
}

// xdg is a folder of the XDG base directory specification, or other where the caller has not chosen any.
func xdg(key, other string) string {
	if dir := os.Getenv(key); filepath.IsAbs(dir) { // the specification ignores others
		return filepath.Clean(dir)
	}
	return other
}

func configHome(home string) string { return xdg("XDG_CONFIG_HOME", filepath.Join(home, ".config")) }

// userPaths are where an ordinary user's sandboxes live.
func userPaths() (sandbox.Paths, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return sandbox.Paths{}, err
	}
	run := xdg("XDG_RUNTIME_DIR", "")
	if run == "" {
		// The specification wants a replacement with the same properties: the caller's alone.
		run = filepath.Join(os.TempDir(), fmt.Sprintf("cofferdam-%d", os.Getuid()))
		if err := os.Mkdir(run, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return sandbox.Paths{}, err
		}
		if err := private(run); err != nil {
			return sandbox.Paths{}, err
		}
	}
	return sandbox.UserPaths(run, xdg("XDG_STATE_HOME", filepath.Join(home, ".local/state")), configHome(home)), nil
}
