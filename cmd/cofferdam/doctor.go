//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/netns"
	"cofferdam.dev/cofferdam/proxy/policy"
	"cofferdam.dev/cofferdam/shim/runner/userns"
	"cofferdam.dev/cofferdam/shim/sandbox"
)

// finding is the outcome of one check.
type finding struct {
	level  level
	detail string
	mend   string // a command, or what to do; empty when nothing is to be done
}

type level int

const (
	good level = iota
	warn
	bad
)

func (l level) String() string { return [...]string{"ok", "warn", "FAIL"}[l] }

// check is one thing that a sandbox needs of the host.
type check struct {
	name string
	run  func(context.Context) []finding
}

func doctorCommand(p sandbox.Paths) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Say what this host lacks, with the command that mends it",
		Long: `Checks what sandboxes need of this host, trying the real thing where that changes nothing: the network check makes a
gate namespace and removes it. Exit status 1 if a sandbox could not run.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			failed := false
			for _, c := range checks(p) {
				for _, f := range c.run(cmd.Context()) {
					fmt.Fprintf(cmd.OutOrStdout(), "%-5s %-12s %s\n", f.level, c.name, f.detail)
					if f.mend != "" {
						fmt.Fprintf(cmd.OutOrStdout(), "%18s mend: %s\n", "", f.mend)
					}
					failed = failed || f.level == bad
				}
			}
			if failed {
				return errFound
			}
			return nil
		},
	}
}

func checks(p sandbox.Paths) []check {
	return []check{
		{"user", checkUser},
		{"kernel", checkKernel},
		{"network", checkNetwork},
		{"userns", checkUserNamespace},
		{"subids", checkSubordinateIDs},
		{"seccomp", checkSeccomp},
		{"landlock", checkLandlock},
		{"cgroup", checkCgroup},
		{"runtime", func(ctx context.Context) []finding { return checkRuntime(ctx, p) }},
		{"containerd", checkContainerd},
		{"shim", checkShim},
		{"config", func(context.Context) []finding { return checkConfig(p) }},
		{"policies", func(context.Context) []finding { return checkPolicies(p) }},
		{"leftovers", func(context.Context) []finding { return checkLeftovers(p) }},
	}
}

func ok(format string, args ...any) []finding {
	return []finding{{level: good, detail: fmt.Sprintf(format, args...)}}
}

func fail(mend, format string, args ...any) []finding {
	return []finding{{level: bad, detail: fmt.Sprintf(format, args...), mend: mend}}
}

func checkUser(context.Context) []finding {
	if os.Geteuid() != 0 {
		return []finding{{warn, "not root: containers need it, cofferdam run does not; the checks below may fail for that alone", "sudo cofferdam doctor"}}
	}
	return ok("root")
}

func checkKernel(context.Context) []finding {
	release, err := sandbox.CheckKernel()
	if err != nil {
		return fail("boot a newer kernel", "%v", err)
	}
	return ok("Linux %s", release)
}

// checkNetwork makes a gate as every sandbox has one, in a folder of its own, and removes it.
func checkNetwork(ctx context.Context) []finding {
	if os.Geteuid() != 0 {
		return []finding{{level: warn, detail: "not tried: a gate is made as root, or in a user namespace"}}
	}
	dir, err := os.MkdirTemp("", "cofferdam-doctor-")
	if err != nil {
		return fail("", "%v", err)
	}
	defer os.RemoveAll(dir)
	g, err := netns.Setup(ctx, dir, "doctor")
	if err != nil {
		return fail("modprobe -a nf_tables nft_tproxy veth", "make a gate: %v", err)
	}
	l, err := g.Listen()
	if err == nil {
		err = l.Close()
	}
	if err := errors.Join(err, g.Close(), netns.Teardown(dir, "doctor")); err != nil {
		return fail("", "gate: %v", err)
	}
	return ok("a gate with its listeners can be made and removed")
}

func checkSeccomp(context.Context) []finding {
	b, err := os.ReadFile("/proc/sys/kernel/seccomp/actions_avail")
	actions := strings.Fields(string(b))
	if err != nil || !slices.Contains(actions, "errno") || !slices.Contains(actions, "user_notif") {
		return fail("boot a kernel with CONFIG_SECCOMP_FILTER", "the kernel has no seccomp filters, or none that ask")
	}
	return ok("filters, and filters that ask")
}

// checkUserNamespace does what cofferdam run does for an ordinary user: a user namespace of the caller's ids alone, and a network namespace
// that belongs to it.
func checkUserNamespace(ctx context.Context) []finding {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "--version")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	if err := cmd.Run(); err != nil {
		return []finding{{warn, fmt.Sprintf("cannot be made (%v): cofferdam run needs one for everybody but root", err), mendUserNamespaces()}}
	}
	return ok("can be made: cofferdam run works without root")
}

// checkSubordinateIDs is about the caller, as cofferdam run is. Root has no need of them.
func checkSubordinateIDs(context.Context) []finding {
	if os.Geteuid() == 0 {
		return ok("not needed by root")
	}
	me, err := user.Current()
	if err != nil {
		return fail("", "find out who is calling: %v", err)
	}
	ids, err := userns.FindIDs(me.Username, uint32(os.Getuid()))
	if none, is := errors.AsType[*userns.NoIDsError](err); is {
		return []finding{{warn, none.Reason + ": the proxy of cofferdam run has no user of its own, and root of an image is one user", none.Mend}}
	}
	if err != nil {
		return fail("", "%v", err)
	}
	count := uint32(0)
	for _, r := range ids.Ranges {
		count += r.Count
	}
	return ok("%d, by %s/newuidmap", count, ids.Folder)
}

// mendUserNamespaces looks for what keeps ordinary users from user namespaces, and returns the command that lets them; empty: nothing known.
func mendUserNamespaces() string {
	for _, knob := range []struct{ path, bad, mend string }{
		{"/proc/sys/user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"},
		{"/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"},
		{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for cofferdam that allows userns"},
	} {
		if b, err := os.ReadFile(knob.path); err == nil && strings.TrimSpace(string(b)) == knob.bad {
			return knob.mend
		}
	}
	return ""
}

// checkLandlock: without it the proxy's files are what its user may read. See package confine for what each version adds.
func checkLandlock(context.Context) []finding {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	const scoped = 6 // the first version that keeps a process from signals and abstract sockets, which the filter does as well
	switch {
	case errno != 0:
		return []finding{{warn, "not there: a proxy that was taken over could read every file that all users can", "boot with lsm=landlock,... (Linux 5.13)"}}
	case abi < scoped:
		return ok("ABI %d: files and, from 4 on, binding TCP ports", abi)
	}
	return ok("ABI %d", abi)
}

func checkCgroup(context.Context) []finding {
	want := []string{"cpu", "memory", "pids"}
	version, have := "v2", []string{}
	if b, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		have = strings.Fields(string(b))
	} else {
		version = "v1"
		b, err := os.ReadFile("/proc/cgroups")
		if err != nil {
			return fail("mount -t cgroup2 none /sys/fs/cgroup", "no cgroups: %v", err)
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) == 4 && f[3] == "1" {
				have = append(have, f[0])
			}
		}
	}
	for _, c := range want {
		if !slices.Contains(have, c) {
			return fail("add cgroup_enable="+c+" to the kernel's command line and boot", "cgroup %s has no %s controller: no limits", version, c)
		}
	}
	return ok("%s with %s", version, strings.Join(want, ", "))
}

// startCommand starts a command the plain way.
func startCommand(cmd *exec.Cmd) (<-chan error, error) {
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	return exited, nil
}

func checkRuntime(ctx context.Context, p sandbox.Paths) []finding {
	c, err := sandbox.LoadConfig(p.Config)
	if err != nil {
		return nil // checkConfig says so
	}
	name := c.Runtime
	if name == "" {
		name = "runc"
	}
	r, err := sandbox.FindRuntime(ctx, p.Cache, name, startCommand)
	if err != nil {
		return fail("apt-get install runc", "%v", err)
	}
	f := finding{detail: fmt.Sprintf("%s %s at %s", r.Name, r.Version, r.Path)}
	if r.Warning != "" {
		f.level, f.detail = warn, fmt.Sprintf("%s, at %s", r.Warning, r.Path)
		f.mend = "install runc 1.2.8, 1.3.3, 1.4.0 or newer; to refuse containers until then: require_fixed_runtime: true in " + p.Config
		if c.FixedRuntimeFor != "" {
			f.level = bad
		}
	}
	return []finding{f}
}

func checkContainerd(ctx context.Context) []finding {
	out, err := exec.CommandContext(ctx, "containerd", "--version").Output()
	if err != nil {
		return fail("apt-get install containerd", "containerd: %v", err)
	}
	return ok("%s", strings.TrimSpace(string(out)))
}

const shimBinary = "containerd-shim-cofferdam-v1"

func checkShim(context.Context) []finding {
	path, err := exec.LookPath(shimBinary)
	if err != nil {
		return fail("make install", "%v; containerd looks for it in its own PATH", err)
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return fail("make install", "%v", err)
	}
	proxy := filepath.Join(filepath.Dir(path), sandbox.ProxyBinary)
	if _, err := os.Stat(proxy); err != nil {
		return fail("make install", "%v", err)
	}
	return ok("%s, %s", path, proxy)
}

func checkConfig(p sandbox.Paths) []finding {
	if _, err := os.Stat(p.Config); errors.Is(err, fs.ErrNotExist) {
		return ok("no %s: defaults", p.Config)
	}
	if _, err := sandbox.LoadConfig(p.Config); err != nil {
		return fail("", "%v", err)
	}
	return ok("%s", p.Config)
}

func checkPolicies(p sandbox.Paths) []finding {
	files, err := filepath.Glob(filepath.Join(p.Policies, "*.yaml"))
	detail := fmt.Sprintf("%d in %s", len(files), p.Policies)
	for _, own := range []string{p.AdminPolicy(), p.User} {
		if _, err := os.Lstat(own); err == nil {
			files, detail = append(files, own), detail+", "+own
		}
	}
	if err != nil || len(files) == 0 {
		return []finding{{level: warn, detail: fmt.Sprintf("none in %s: every sandbox is denied everything", p.Policies)}}
	}
	var out []finding
	for _, f := range files {
		if _, err := policy.Load(f); err != nil {
			out = append(out, finding{level: bad, detail: err.Error()})
		}
	}
	if out != nil {
		return out
	}
	return ok("%s", detail)
}

func checkLeftovers(p sandbox.Paths) []finding {
	ids, err := sandbox.List(p)
	if err != nil {
		return fail("", "%v", err)
	}
	ids = slices.DeleteFunc(ids, func(id string) bool { return sandbox.Owned(p, id) })
	if len(ids) > 0 {
		return []finding{{level: warn, detail: "nobody owns " + strings.Join(ids, ", "), mend: "cofferdam gc"}}
	}
	return ok("none")
}
