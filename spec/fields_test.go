package spec_test

import (
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"cofferdam.dev/cofferdam/spec"
)

// specFields says for every field of the runtime-spec what Rewrite does with it. A new version of the library with a new
// field fails TestEverySpecFieldIsJudged until somebody has thought about it; until then Rewrite, which builds its result
// from nothing, leaves the field out.
//
//	kept       as it is       refused    not accepted
//	rewritten  judged         dropped    never in the result
var specFields = map[reflect.Type]map[string]string{
	reflect.TypeFor[specs.Spec](): {
		"Version": "rewritten", "Process": "rewritten", "Root": "rewritten", "Hostname": "kept", "Domainname": "kept",
		"Mounts": "rewritten", "Hooks": "rewritten", "Annotations": "rewritten", "Linux": "rewritten", "Solaris": "refused",
		"Windows": "refused", "VM": "refused", "ZOS": "refused", "FreeBSD": "refused",
	},
	reflect.TypeFor[specs.Process](): {
		"Terminal": "kept", "ConsoleSize": "kept", "User": "rewritten", "Args": "kept", "CommandLine": "dropped",
		"Env": "rewritten", "Cwd": "rewritten", "Capabilities": "rewritten", "Rlimits": "rewritten",
		"NoNewPrivileges": "rewritten", "ApparmorProfile": "rewritten", "OOMScoreAdj": "rewritten", "Scheduler": "rewritten",
		"SelinuxLabel": "rewritten", "IOPriority": "rewritten", "ExecCPUAffinity": "dropped",
	},
	reflect.TypeFor[specs.Box]():  {"Height": "kept", "Width": "kept"},
	reflect.TypeFor[specs.User](): {"UID": "kept", "GID": "kept", "Umask": "kept", "AdditionalGids": "kept", "Username": "dropped"},
	reflect.TypeFor[specs.LinuxCapabilities](): {
		"Bounding": "rewritten", "Effective": "rewritten", "Permitted": "rewritten", "Inheritable": "dropped", "Ambient": "dropped",
	},
	reflect.TypeFor[specs.POSIXRlimit](): {"Type": "rewritten", "Hard": "kept", "Soft": "kept"},
	reflect.TypeFor[specs.Scheduler](): {
		"Policy": "rewritten", "Nice": "rewritten", "Priority": "dropped", "Flags": "dropped", "Runtime": "dropped",
		"Deadline": "dropped", "Period": "dropped",
	},
	reflect.TypeFor[specs.LinuxIOPriority](): {"Class": "rewritten", "Priority": "rewritten"},
	reflect.TypeFor[specs.CPUAffinity]():     {"Initial": "dropped", "Final": "dropped"},
	reflect.TypeFor[specs.Root]():            {"Path": "rewritten", "Readonly": "kept"},
	reflect.TypeFor[specs.Mount](): {
		"Destination": "rewritten", "Type": "rewritten", "Source": "rewritten", "Options": "rewritten",
		"UIDMappings": "rewritten", "GIDMappings": "rewritten",
	},
	reflect.TypeFor[specs.Hooks](): {
		"Prestart": "dropped", "CreateRuntime": "dropped", "CreateContainer": "dropped", "StartContainer": "dropped",
		"Poststart": "dropped", "Poststop": "kept",
	},
	reflect.TypeFor[specs.Hook](): {"Path": "kept", "Args": "kept", "Env": "kept", "Timeout": "kept"},
	reflect.TypeFor[specs.Linux](): {
		"UIDMappings": "rewritten", "GIDMappings": "rewritten", "Sysctl": "rewritten", "Resources": "rewritten",
		"CgroupsPath": "rewritten", "Namespaces": "rewritten", "Devices": "rewritten", "NetDevices": "dropped",
		"Seccomp": "rewritten", "RootfsPropagation": "rewritten", "MaskedPaths": "rewritten", "ReadonlyPaths": "rewritten",
		"MountLabel": "rewritten", "IntelRdt": "dropped", "MemoryPolicy": "dropped", "Personality": "rewritten",
		"TimeOffsets": "rewritten",
	},
	reflect.TypeFor[specs.LinuxNamespace]():  {"Type": "rewritten", "Path": "rewritten"},
	reflect.TypeFor[specs.LinuxIDMapping]():  {"ContainerID": "kept", "HostID": "kept", "Size": "kept"},
	reflect.TypeFor[specs.LinuxTimeOffset](): {"Secs": "kept", "Nanosecs": "kept"},
	reflect.TypeFor[specs.LinuxResources](): {
		"Devices": "rewritten", "Memory": "rewritten", "CPU": "rewritten", "Pids": "rewritten", "BlockIO": "kept",
		"HugepageLimits": "kept", "Network": "dropped", "Rdma": "kept", "Unified": "rewritten",
	},
	reflect.TypeFor[specs.LinuxMemory](): {
		"Limit": "rewritten", "Reservation": "rewritten", "Swap": "rewritten", "Kernel": "dropped", "KernelTCP": "dropped",
		"Swappiness": "kept", "DisableOOMKiller": "dropped", "UseHierarchy": "kept", "CheckBeforeUpdate": "kept",
	},
	reflect.TypeFor[specs.LinuxCPU](): {
		"Shares": "kept", "Quota": "rewritten", "Burst": "dropped", "Period": "rewritten", "RealtimeRuntime": "dropped",
		"RealtimePeriod": "dropped", "Cpus": "kept", "Mems": "kept", "Idle": "kept",
	},
	reflect.TypeFor[specs.LinuxPids](): {"Limit": "rewritten"},
	reflect.TypeFor[specs.LinuxBlockIO](): {
		"Weight": "kept", "LeafWeight": "kept", "WeightDevice": "kept", "ThrottleReadBpsDevice": "kept",
		"ThrottleWriteBpsDevice": "kept", "ThrottleReadIOPSDevice": "kept", "ThrottleWriteIOPSDevice": "kept",
	},
	reflect.TypeFor[specs.LinuxWeightDevice]():      {"LinuxBlockIODevice": "kept", "Weight": "kept", "LeafWeight": "kept"},
	reflect.TypeFor[specs.LinuxThrottleDevice]():    {"LinuxBlockIODevice": "kept", "Rate": "kept"},
	reflect.TypeFor[specs.LinuxBlockIODevice]():     {"Major": "kept", "Minor": "kept"},
	reflect.TypeFor[specs.LinuxHugepageLimit]():     {"Pagesize": "kept", "Limit": "kept"},
	reflect.TypeFor[specs.LinuxNetwork]():           {"ClassID": "dropped", "Priorities": "dropped"},
	reflect.TypeFor[specs.LinuxInterfacePriority](): {"Name": "dropped", "Priority": "dropped"},
	reflect.TypeFor[specs.LinuxRdma]():              {"HcaHandles": "kept", "HcaObjects": "kept"},
	reflect.TypeFor[specs.LinuxDevice](): {
		"Path": "rewritten", "Type": "rewritten", "Major": "rewritten", "Minor": "rewritten", "FileMode": "kept", "UID": "kept", "GID": "kept",
	},
	reflect.TypeFor[specs.LinuxNetDevice](): {"Name": "dropped"},
	reflect.TypeFor[specs.LinuxDeviceCgroup](): {
		"Allow": "rewritten", "Type": "rewritten", "Major": "rewritten", "Minor": "rewritten", "Access": "rewritten",
	},
	// The spec's own filter is dropped whole; this is what is done with the host's.
	reflect.TypeFor[specs.LinuxSeccomp](): {
		"DefaultAction": "rewritten", "DefaultErrnoRet": "rewritten", "Architectures": "kept", "Flags": "dropped",
		"ListenerPath": "dropped", "ListenerMetadata": "dropped", "Syscalls": "rewritten",
	},
	reflect.TypeFor[specs.LinuxSyscall]():    {"Names": "rewritten", "Action": "rewritten", "ErrnoRet": "kept", "Args": "kept"},
	reflect.TypeFor[specs.LinuxSeccompArg](): {"Index": "kept", "Value": "kept", "ValueTwo": "kept", "Op": "kept"},
	reflect.TypeFor[specs.LinuxIntelRdt](): {
		"ClosID": "dropped", "Schemata": "dropped", "L3CacheSchema": "dropped", "MemBwSchema": "dropped", "EnableMonitoring": "dropped",
	},
	reflect.TypeFor[specs.LinuxMemoryPolicy](): {"Mode": "dropped", "Nodes": "dropped", "Flags": "dropped"},
	reflect.TypeFor[specs.LinuxPersonality]():  {"Domain": "rewritten", "Flags": "rewritten"},
}

func TestEverySpecFieldIsJudged(t *testing.T) {
	seen := map[reflect.Type]bool{}
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice || typ.Kind() == reflect.Map {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || seen[typ] {
			return
		}
		seen[typ] = true
		judged, ok := specFields[typ]
		if !ok {
			t.Errorf("%v: no field of it is judged", typ)
			return
		}
		var names []string
		for i := range typ.NumField() {
			f := typ.Field(i)
			names = append(names, f.Name)
			if judged[f.Name] != "refused" {
				walk(f.Type)
			}
		}
		slices.Sort(names)
		if diff := cmp.Diff(names, slices.Sorted(maps.Keys(judged))); diff != "" {
			t.Errorf("%v: fields (-of the library +judged):\n%s", typ, diff)
		}
	}
	walk(reflect.TypeFor[specs.Spec]())
	for typ := range specFields {
		if !seen[typ] {
			t.Errorf("%v: judged, but not part of a spec", typ)
		}
	}
}

func TestWorkspacePatterns(t *testing.T) {
	for _, p := range []string{"", "/", "//a", "a/", "a//b", ".", "../a", "a/./b", "a/..", "[a]", `a\b`, "a\x00", "a\xff", strings.Repeat("a", 4097)} {
		_, _, err := spec.Rewrite(base(t), spec.Sandbox{ID: "default:web-1", Workspace: spec.Workspace{Hidden: []string{p}}}, testHost())
		if err == nil || !strings.Contains(err.Error(), "is not a pattern") {
			t.Errorf("%.20q: %v", p, err)
		}
	}
	_, _, err := spec.Rewrite(base(t), spec.Sandbox{ID: "default:web-1", Workspace: spec.Workspace{Hidden: make([]string, 4097)}}, testHost())
	if err == nil || !strings.Contains(err.Error(), "more than 4096") {
		t.Error(err)
	}
}

// Every field of Sandbox is enforced by Rewrite, refused by it, or a label.
func TestEverySandboxFieldIsEnforced(t *testing.T) {
	type result struct {
		s   *specs.Spec
		err error
	}
	with := func(change func(*spec.Sandbox)) result {
		sb := spec.Sandbox{ID: "default:web-1"}
		change(&sb)
		s, _, err := spec.Rewrite(base(t), sb, testHost())
		return result{s, err}
	}
	refused := func(r result) bool { return r.err != nil && r.s == nil }
	written := []spec.FileRule{{Path: "/w", Source: "/home/u/p", Access: spec.Write}}
	asks := func(r result) bool {
		return r.err == nil && slices.Contains(r.s.Mounts[len(r.s.Mounts)-1].Options, "ro") &&
			slices.ContainsFunc(r.s.Linux.Seccomp.Syscalls, func(c specs.LinuxSyscall) bool { return c.Action == specs.ActNotify })
	}
	cases := map[string]func() bool{
		"ID": func() bool { return refused(with(func(sb *spec.Sandbox) { sb.ID = "../x" })) },
		"Tools": func() bool {
			r := with(func(sb *spec.Sandbox) { sb.Tools = []string{"/usr", "/etc/ssl/certs"} })
			seen := 0
			for _, m := range r.s.Mounts {
				if (m.Destination == "/usr" || m.Destination == "/etc/ssl/certs") && m.Source == m.Destination && slices.Contains(m.Options, "rro") {
					seen++
				}
			}
			return seen == 2 && refused(with(func(sb *spec.Sandbox) { sb.Tools = []string{"/etc"} }))
		},
		"Agent": func() bool { return with(func(sb *spec.Sandbox) { sb.Agent = "\x00any text" }).err == nil },
		"Files.Path": func() bool {
			return refused(with(func(sb *spec.Sandbox) {
				sb.Files = []spec.FileRule{{Path: "x", Source: "/home/u/p", Access: spec.Read}}
			}))
		},
		"Files.Source": func() bool {
			r := with(func(sb *spec.Sandbox) { sb.Files = []spec.FileRule{{Path: "/w", Source: "/etc", Access: spec.Read}} })
			var re *spec.RefusedError
			return refused(r) && errors.As(r.err, &re)
		},
		"Files.Access": func() bool {
			r := with(func(sb *spec.Sandbox) {
				sb.Files = []spec.FileRule{{Path: "/w", Source: "/home/u/p", Access: spec.Read}}
			})
			none := with(func(sb *spec.Sandbox) { sb.Files = []spec.FileRule{{Path: "/w", Source: "/home/u/p"}} })
			odd := with(func(sb *spec.Sandbox) { sb.Files = []spec.FileRule{{Path: "/w", Source: "/home/u/p", Access: 3}} })
			return slices.Contains(r.s.Mounts[len(r.s.Mounts)-1].Options, "ro") && refused(none) && refused(odd)
		},
		// Whoever answers the filter judges by these; here it is seen that it asks, and that the mount is a wall meanwhile.
		"Workspace.ReadOnly": func() bool {
			return asks(with(func(sb *spec.Sandbox) { sb.Files, sb.Workspace.ReadOnly = written, []string{".git/hooks"} }))
		},
		"Workspace.Writable": func() bool {
			return asks(with(func(sb *spec.Sandbox) { sb.Files, sb.Workspace.Writable = written, []string{"*.sh"} }))
		},
		"Workspace.Hidden": func() bool {
			hide := func(sb *spec.Sandbox) { sb.Files, sb.Workspace.Hidden = written, []string{"/.env"} }
			host := testHost()
			host.Hidden = []string{"/w/.env"}
			sb := spec.Sandbox{ID: "default:web-1"}
			hide(&sb)
			s, _, err := spec.Rewrite(base(t), sb, host)
			if err != nil {
				return false
			}
			again, changes, err := spec.Rewrite(s, sb, host)
			host.Hidden = []string{"/elsewhere/.env"}
			_, _, elsewhere := spec.Rewrite(base(t), sb, host)
			return slices.Contains(s.Linux.MaskedPaths, "/w/.env") && refused(with(hide)) && elsewhere != nil &&
				err == nil && len(changes) == 0 && cmp.Equal(s, again)
		},
		"Network.Mode":   func() bool { return refused(with(func(sb *spec.Sandbox) { sb.Network.Mode = 2 })) },
		"Network.Policy": func() bool { return refused(with(func(sb *spec.Sandbox) { sb.Network.Policy = "a/b" })) },
		"Env": func() bool {
			r := with(func(sb *spec.Sandbox) { sb.Env = []string{"A=b"} })
			bad := with(func(sb *spec.Sandbox) { sb.Env = []string{"A"} })
			socket := with(func(sb *spec.Sandbox) { sb.Env = []string{"NOTIFY_SOCKET=/x"} })
			return slices.Contains(r.s.Process.Env, "A=b") && refused(bad) && refused(socket)
		},
		"Limits.MemoryBytes": func() bool {
			r := with(func(sb *spec.Sandbox) { sb.Limits.MemoryBytes = 1 << 30 })
			return *r.s.Linux.Resources.Memory.Limit == 1<<30 && refused(with(func(sb *spec.Sandbox) { sb.Limits.MemoryBytes = -1 }))
		},
		"Limits.Pids": func() bool {
			r := with(func(sb *spec.Sandbox) { sb.Limits.Pids = 9 })
			return *r.s.Linux.Resources.Pids.Limit == 9 && refused(with(func(sb *spec.Sandbox) { sb.Limits.Pids = -1 }))
		},
		"Limits.CPUs": func() bool {
			r := with(func(sb *spec.Sandbox) { sb.Limits.CPUs = 0.5 })
			return *r.s.Linux.Resources.CPU.Quota == 50000 && refused(with(func(sb *spec.Sandbox) { sb.Limits.CPUs = -1 }))
		},
	}
	var fields []string
	var walk func(prefix string, typ reflect.Type)
	walk = func(prefix string, typ reflect.Type) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			inner := f.Type
			if inner.Kind() == reflect.Slice {
				inner = inner.Elem()
			}
			if inner.Kind() == reflect.Struct {
				walk(prefix+f.Name+".", inner)
				continue
			}
			fields = append(fields, prefix+f.Name)
		}
	}
	walk("", reflect.TypeFor[spec.Sandbox]())
	for _, f := range fields {
		if cases[f] == nil {
			t.Errorf("Sandbox.%s: nothing says how it is enforced", f)
		} else if !cases[f]() {
			t.Errorf("Sandbox.%s: not enforced", f)
		}
	}
	if len(cases) != len(fields) {
		t.Errorf("%d cases for the fields %s", len(cases), strings.Join(fields, " "))
	}
}
