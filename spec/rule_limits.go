package spec

import (
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// ruleLimits bounds the container's resources and says where its cgroup is.
func ruleLimits(p *pass) error {
	in := p.in.Linux.Resources
	if in == nil {
		in = &specs.LinuxResources{}
	}
	p.out.Linux.Resources = rewriteResources(in, p.sb.Limits.OrDefault(), true, &p.recorder)
	return p.cgroupsPath()
}

// cgroupsPath keeps the engine's choice, in either of runc's forms ("/a/b", "slice:prefix:name"), unless it is the root
// cgroup, where limits do nothing, or could name one elsewhere.
func (p *pass) cgroupsPath() error {
	at := p.in.Linux.CgroupsPath
	if upwards().MatchString(at) {
		return refused("linux.cgroupsPath", "%q leads upwards", at)
	}
	if at != "" && rootOnly().MatchString(at) {
		return refused("linux.cgroupsPath", "%q is the root cgroup, which has no limits", at)
	}
	p.out.Linux.CgroupsPath = at
	return nil
}

var (
	upwards  = lazily(`(^|[/:])\.\.([/:]|$)`)
	rootOnly = lazily(`^[/.]*$`)
)

// rewriteResources returns in bounded by l, which has no zero field. With complete, what in leaves open is set.
func rewriteResources(in *specs.LinuxResources, l Limits, complete bool, r *recorder) *specs.LinuxResources {
	out := &specs.LinuxResources{
		Memory:         memory(in.Memory, l.MemoryBytes, complete, r),
		CPU:            cpu(in.CPU, l.CPUs, complete, r),
		Pids:           pids(in.Pids, l.Pids, complete, r),
		HugepageLimits: in.HugepageLimits, // these three can only take away
		BlockIO:        in.BlockIO,
		Rdma:           in.Rdma,
		Unified:        unified(in.Unified, r),
		Devices:        deviceRules(),
	}
	if complete && !reflect.DeepEqual(in.Devices, out.Devices) || !complete && len(in.Devices) > 0 {
		r.changed("linux.resources.devices", "", "no device but the default ones is opened")
	}
	if !complete {
		out.Devices = nil // as they are
	}
	if in.Network != nil {
		r.dropped("linux.resources.network", "", "network classes and priorities are not the container's to set")
	}
	return out
}

// lower records a limit that was set to bound because it was above it, or open.
func lower(at string, given *int64, bound int64, r *recorder) *int64 {
	switch {
	case given == nil || *given == 0:
		r.added(at, fmt.Sprint(bound), "limit of the sandbox")
	case *given < 0 || *given > bound:
		r.changed(at, fmt.Sprintf("%d to %d", *given, bound), "limit of the sandbox")
	default:
		return given
	}
	return &bound
}

func memory(in *specs.LinuxMemory, bound int64, complete bool, r *recorder) *specs.LinuxMemory {
	const at = "linux.resources.memory."
	if in == nil {
		if !complete {
			return nil
		}
		in = &specs.LinuxMemory{}
	}
	out := &specs.LinuxMemory{
		Swappiness:        in.Swappiness,
		UseHierarchy:      in.UseHierarchy,
		CheckBeforeUpdate: in.CheckBeforeUpdate,
	}
	swap := in.Swap != nil && *in.Swap != 0
	if complete || in.Limit != nil && *in.Limit != 0 || swap {
		out.Limit = lower(at+"limit", in.Limit, bound, r)
	}
	if swap {
		// Memory and swap together. Swap that was not asked for is left to the kernel's setting: naming it where the
		// kernel does not count swap (cgroup v1 without swapaccount=1) would fail the start.
		out.Swap = in.Swap
		if *in.Swap != *out.Limit {
			limit := *out.Limit
			out.Swap = &limit
			r.changed(at+"swap", fmt.Sprintf("%d to %d", *in.Swap, limit), "no swap beyond the memory limit")
		}
	}
	if in.Reservation != nil && *in.Reservation > 0 {
		most := bound
		if out.Limit != nil {
			most = *out.Limit
		}
		out.Reservation = lower(at+"reservation", in.Reservation, most, r)
	} else if in.Reservation != nil && *in.Reservation < 0 {
		r.dropped(at+"reservation", fmt.Sprint(*in.Reservation), "there is no unlimited share of the host's memory")
	}
	if in.DisableOOMKiller != nil && *in.DisableOOMKiller {
		r.dropped(at+"disableOOMKiller", "", "a sandbox that hangs at its limit holds on to the host's memory")
	}
	if in.Kernel != nil || in.KernelTCP != nil { //nolint:staticcheck // deprecated, and therefore dropped
		r.dropped(at+"kernel, "+at+"kernelTCP", "", "runtimes ignore them; the memory limit counts the kernel's part")
	}
	return out
}

func pids(in *specs.LinuxPids, bound int64, complete bool, r *recorder) *specs.LinuxPids {
	if in == nil {
		if !complete {
			return nil
		}
		in = &specs.LinuxPids{}
	}
	return &specs.LinuxPids{Limit: lower("linux.resources.pids.limit", in.Limit, bound, r)}
}

// Microseconds; the kernel takes periods of 1 ms to 1 s (Documentation/scheduler/sched-bwc.rst).
const (
	defaultPeriod = 100_000
	maxPeriod     = 1_000_000
	minQuota      = 1_000
)

func cpu(in *specs.LinuxCPU, bound float64, complete bool, r *recorder) *specs.LinuxCPU {
	const at = "linux.resources.cpu."
	if in == nil {
		if !complete {
			return nil
		}
		in = &specs.LinuxCPU{}
	}
	out := &specs.LinuxCPU{Shares: in.Shares, Cpus: in.Cpus, Mems: in.Mems, Idle: in.Idle}
	// Either alone would change the ratio of the two.
	if complete || in.Quota != nil && *in.Quota != 0 || in.Period != nil && *in.Period != 0 {
		out.Quota, out.Period = in.Quota, in.Period
		period := uint64(defaultPeriod)
		if in.Period != nil && *in.Period != 0 && *in.Period <= maxPeriod {
			period = *in.Period
		}
		if bound*float64(period) < minQuota {
			period = defaultPeriod // short enough periods have no quota that small
		}
		if in.Quota == nil || *in.Quota <= 0 || in.Period == nil || *in.Period != period || float64(*in.Quota) > bound*float64(period) {
			out.Quota, out.Period = cpuQuota(in, bound, period)
			r.changed(at+"quota", fmt.Sprintf("%d of %d µs", *out.Quota, *out.Period), "limit of the sandbox")
		}
	}
	if in.Burst != nil && *in.Burst != 0 {
		r.dropped(at+"burst", "", "bursts exceed the limit")
	}
	if in.RealtimeRuntime != nil || in.RealtimePeriod != nil {
		r.dropped(at+"realtimeRuntime, "+at+"realtimePeriod", "", "real-time tasks are not bound by the quota")
	}
	return out
}

// cpuQuota returns the lower of in's share of a processor and bound, for a period in microseconds.
func cpuQuota(in *specs.LinuxCPU, bound float64, period uint64) (*int64, *uint64) {
	share := bound
	if in.Quota != nil && *in.Quota > 0 {
		asked := uint64(defaultPeriod)
		if in.Period != nil && *in.Period != 0 {
			asked = *in.Period
		}
		share = min(share, float64(*in.Quota)/float64(asked))
	}
	quota := max(int64(share*float64(period)), minQuota)
	return &quota, &period
}

// unifiedKeys are the cgroup v2 files that a spec may write: weights, and what only takes away. The limits proper go
// through their fields; memory.min and memory.low would protect the agent's memory from the host.
var unifiedKeys = map[string]pattern{
	"cpu.weight":       lazily(`^[0-9]{1,5}$`),
	"io.weight":        lazily(`^(default )?[0-9]{1,5}$`),
	"memory.high":      lazily(`^[0-9]+$`),
	"memory.oom.group": lazily(`^[01]$`),
	"memory.swap.max":  lazily(`^0$`), // kubelet's "no swap"
}

func unified(in map[string]string, r *recorder) map[string]string {
	var out map[string]string
	for _, key := range slices.Sorted(maps.Keys(in)) {
		if known := unifiedKeys[key]; known == nil || !known().MatchString(in[key]) {
			r.dropped("linux.resources.unified["+key+"]", in[key], "could raise a limit")
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[key] = in[key]
	}
	return out
}
