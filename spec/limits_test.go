package spec_test

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"cofferdam.dev/cofferdam/spec"
)

func ptr[T any](v T) *T { return &v }

func TestLimitsValidate(t *testing.T) {
	for _, tt := range []struct {
		name string
		l    spec.Limits
		ok   bool
	}{
		{"zero stands for the defaults", spec.Limits{}, true},
		{"the defaults are valid", spec.DefaultLimits(), true},
		{"less memory than a runtime needs", spec.Limits{MemoryBytes: 1}, false},
		{"negative memory is not unlimited", spec.Limits{MemoryBytes: -1}, false},
		{"negative pids are not unlimited", spec.Limits{Pids: -1}, false},
		{"negative processors are not unlimited", spec.Limits{CPUs: -1}, false},
		{"infinite processors", spec.Limits{CPUs: math.Inf(1)}, false},
		{"no number of processors", spec.Limits{CPUs: math.NaN()}, false},
		{"a hundredth of a processor", spec.Limits{CPUs: 0.01}, true},
	} {
		if err := tt.l.Validate(); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestRewriteResources(t *testing.T) {
	l := spec.Limits{MemoryBytes: 1 << 30, Pids: 100, CPUs: 1}
	for _, tt := range []struct {
		name          string
		in            *specs.LinuxResources
		memory, pids  int64
		quota, period int64
	}{
		{"nothing becomes the sandbox's limits", nil, 1 << 30, 100, 100000, 100000},
		{"lower ones are kept", &specs.LinuxResources{
			Memory: &specs.LinuxMemory{Limit: ptr[int64](1 << 20)}, Pids: &specs.LinuxPids{Limit: ptr[int64](5)},
			CPU: &specs.LinuxCPU{Quota: ptr[int64](5000), Period: ptr[uint64](10000)},
		}, 1 << 20, 5, 5000, 10000},
		{"higher ones are lowered, by the ratio", &specs.LinuxResources{
			Memory: &specs.LinuxMemory{Limit: ptr[int64](1 << 40)}, Pids: &specs.LinuxPids{Limit: ptr[int64](101)},
			CPU: &specs.LinuxCPU{Quota: ptr[int64](15000), Period: ptr[uint64](10000)},
		}, 1 << 30, 100, 10000, 10000},
		{"unlimited ones are lowered", &specs.LinuxResources{
			Memory: &specs.LinuxMemory{Limit: ptr[int64](-1)}, Pids: &specs.LinuxPids{Limit: ptr[int64](-1)},
			CPU: &specs.LinuxCPU{Quota: ptr[int64](-1)},
		}, 1 << 30, 100, 100000, 100000},
		{"a quota without a period is per 100 ms", &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr[int64](50000)}}, 1 << 30, 100, 50000, 100000},
		{"a period that the kernel does not take, at the same ratio", &specs.LinuxResources{
			CPU: &specs.LinuxCPU{Quota: ptr[int64](math.MaxInt64), Period: ptr[uint64](math.MaxUint64)},
		}, 1 << 30, 100, 50000, 100000},
	} {
		out, _, err := spec.RewriteResources(tt.in, l)
		if err != nil {
			t.Fatal(err)
		}
		got := []int64{*out.Memory.Limit, *out.Pids.Limit, *out.CPU.Quota, int64(*out.CPU.Period)}
		if diff := cmp.Diff([]int64{tt.memory, tt.pids, tt.quota, tt.period}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		if _, more, _ := spec.RewriteResources(out, l); len(more) > 0 {
			t.Errorf("%s: not idempotent: %v", tt.name, more)
		}
	}
}

func TestRewriteUpdateLeavesOpenWhatIsOpen(t *testing.T) {
	l := spec.Limits{MemoryBytes: 1 << 30, Pids: 100, CPUs: 1}
	for _, tt := range []struct {
		name     string
		in, want *specs.LinuxResources
	}{
		{"nothing", nil, &specs.LinuxResources{}},
		{"zeros, as Docker sends them", &specs.LinuxResources{
			Memory: &specs.LinuxMemory{Limit: ptr[int64](0)}, CPU: &specs.LinuxCPU{Quota: ptr[int64](0), Period: ptr[uint64](0), Shares: ptr[uint64](2)},
		}, &specs.LinuxResources{Memory: &specs.LinuxMemory{}, CPU: &specs.LinuxCPU{Shares: ptr[uint64](2)}}},
		{
			"more memory", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](-1), Swap: ptr[int64](-1)}},
			&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](1 << 30), Swap: ptr[int64](1 << 30)}},
		},
		{
			"a shorter period, which alone would raise the share", &specs.LinuxResources{CPU: &specs.LinuxCPU{Period: ptr[uint64](10000)}},
			&specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr[int64](10000), Period: ptr[uint64](10000)}},
		},
		{"every device", &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}}, &specs.LinuxResources{}},
		{"a limit by another name", &specs.LinuxResources{Unified: map[string]string{"pids.max": "max"}}, &specs.LinuxResources{}},
	} {
		got, _, err := spec.RewriteUpdate(tt.in, l)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}
