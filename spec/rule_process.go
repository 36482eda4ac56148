package spec

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// ruleProcess rewrites the container's first process.
func ruleProcess(p *pass) error {
	out, err := rewriteProcess(p.in.Process, p.sb.Env, &p.recorder)
	if err != nil {
		return err
	}
	// Unset, the adjustment is that of the shim, which containerd shields from the OOM killer (-998): the agent's memory
	// would outlive the host's services. In a user namespace the caller may be unprivileged, and lowering it to 0 refused.
	if out.OOMScoreAdj == nil && len(p.out.Linux.UIDMappings) == 0 && !p.host.Rootless {
		out.OOMScoreAdj = new(int)
		p.added("process.oomScoreAdj", "0", "else it would be the shim's")
	}
	p.out.Process = out
	return nil
}

// rewriteProcess applies the rules for any process. in is the caller's own copy.
func rewriteProcess(in *specs.Process, env []string, r *recorder) (*specs.Process, error) {
	cwd, err := workingDir(in.Cwd)
	if err != nil {
		return nil, err
	}
	out := &specs.Process{
		Terminal:    in.Terminal,
		ConsoleSize: in.ConsoleSize,
		// Which user it is makes no difference to the walls: root in the container is expected.
		User: specs.User{UID: in.User.UID, GID: in.User.GID, Umask: in.User.Umask, AdditionalGids: in.User.AdditionalGids},
		Args: in.Args,
		Cwd:  cwd,
		// No set-user-id program and no file capability gives an agent more than it was started with.
		NoNewPrivileges: true,
		Capabilities:    capabilities(in.Capabilities, r),
		Env:             mergeEnv(in.Env, env, r),
	}
	if cwd != in.Cwd {
		r.changed("process.cwd", in.Cwd+" to "+cwd, "shortest form")
	}
	if !in.NoNewPrivileges {
		r.changed("process.noNewPrivileges", "true", "set-user-id programs give no rights")
	}
	if in.User.Username != "" {
		r.dropped("process.user.username", in.User.Username, "means something on Windows only")
	}
	if in.CommandLine != "" {
		r.dropped("process.commandLine", "", "means something on Windows only")
	}
	if out.Rlimits, err = rlimits(in.Rlimits, r); err != nil {
		return nil, err
	}
	scheduling(in, out, r)
	processLabels(in, out, r)
	return out, nil
}

// workingDir refuses a directory below /proc, where it can name a file descriptor that the runtime has open on the host
// (CVE-2024-21626). A symbolic link in the image to such a place is for the runtime to find.
func workingDir(cwd string) (string, error) {
	clean := path.Clean(cwd)
	switch {
	case checkPath(clean) != "" || cwd == "":
		return "", refused("process.cwd", "%q is not an absolute path", cwd)
	case slices.Contains(strings.Split(cwd, "/"), ".."):
		return "", refused("process.cwd", "%q leads upwards", cwd)
	case within(clean, "/proc"):
		return "", refused("process.cwd", "%q lies in /proc", cwd)
	}
	return clean, nil
}

// rlimitTypes are the limits that may be set. RLIMIT_NICE and RLIMIT_RTPRIO are rights to take processors from others
// rather than limits: real-time tasks are not bound by the CPU quota.
var rlimitTypes = map[string]bool{
	"RLIMIT_AS": true, "RLIMIT_CPU": true, "RLIMIT_DATA": true, "RLIMIT_FSIZE": true,
	"RLIMIT_LOCKS": true, "RLIMIT_MEMLOCK": true, "RLIMIT_MSGQUEUE": true, "RLIMIT_NOFILE": true, "RLIMIT_NPROC": true,
	"RLIMIT_RSS": true, "RLIMIT_RTTIME": true, "RLIMIT_SIGPENDING": true, "RLIMIT_STACK": true,
	"RLIMIT_NICE": false, "RLIMIT_RTPRIO": false,
}

// noCore keeps the agent's crashes from running a program of the host: where core_pattern is a pipe, core(5), the kernel starts that
// program as root in the initial namespaces, and a limit of 0 does not stop it. Its special value 1 does.
var noCore = specs.POSIXRlimit{Type: "RLIMIT_CORE", Soft: 1, Hard: 1}

func rlimits(in []specs.POSIXRlimit, r *recorder) ([]specs.POSIXRlimit, error) {
	out := []specs.POSIXRlimit{noCore}
	for _, l := range in {
		if l.Type == noCore.Type {
			continue
		}
		keep, known := rlimitTypes[l.Type]
		at := "process.rlimits[" + l.Type + "]"
		switch {
		case !known:
			return nil, refused(at, "not a known limit")
		case !keep:
			r.dropped(at, fmt.Sprintf("%d", l.Hard), "the agent does not choose its priority")
		default:
			out = append(out, l)
		}
	}
	if !slices.Contains(in, noCore) {
		r.added("process.rlimits[RLIMIT_CORE]", "1", "a crash of the agent starts no program on the host")
	}
	return out, nil
}

// scheduling keeps what makes a process less important than others and drops what makes it more so.
func scheduling(in, out *specs.Process, r *recorder) {
	if in.OOMScoreAdj != nil {
		adj := max(*in.OOMScoreAdj, 0)
		if adj != *in.OOMScoreAdj {
			r.changed("process.oomScoreAdj", fmt.Sprintf("%d to 0", *in.OOMScoreAdj), "the agent is not spared before the host's processes")
		}
		out.OOMScoreAdj = &adj
	}
	if s := in.Scheduler; s != nil {
		plain := s.Policy == specs.SchedOther || s.Policy == specs.SchedBatch || s.Policy == specs.SchedIdle
		if plain && s.Nice >= 0 && s.Nice <= 19 && s.Priority == 0 && len(s.Flags) == 0 && s.Runtime == 0 && s.Deadline == 0 && s.Period == 0 {
			out.Scheduler = &specs.Scheduler{Policy: s.Policy, Nice: s.Nice}
		} else {
			r.dropped("process.scheduler", string(s.Policy), "real-time and raised priorities escape the CPU limit")
		}
	}
	if io := in.IOPriority; io != nil {
		if (io.Class == specs.IOPRIO_CLASS_BE || io.Class == specs.IOPRIO_CLASS_IDLE) && io.Priority >= 0 && io.Priority <= 7 {
			out.IOPriority = &specs.LinuxIOPriority{Class: io.Class, Priority: io.Priority}
		} else {
			r.dropped("process.ioPriority", string(io.Class), "only best effort and idle")
		}
	}
	if in.ExecCPUAffinity != nil {
		// The first of the two applies before the process is in its cgroup.
		r.dropped("process.execCPUAffinity", "", "the cpuset decides")
	}
}
