package spec

import (
	"errors"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// pass is one application of the rules. Rules read in and host, and write only their own part of out.
type pass struct {
	recorder
	in   *specs.Spec // a copy of the engine's spec
	out  *specs.Spec // built from nothing: what no rule copies is not there
	sb   Sandbox
	host Host
}

// rules in the order in which they run. What refuses comes first, so that its reasons are about the spec as it was
// written; the mounts need the namespaces (for mapped ids), and the paths need the mounts' check of Sandbox.Files.
var rules = []struct {
	name string
	run  func(*pass) error
}{
	{"refuse", ruleRefuse},
	{"version", ruleVersion},
	{"root", ruleRoot},
	{"namespaces", ruleNamespaces},
	{"mounts", ruleMounts},
	{"paths", rulePaths},
	{"process", ruleProcess},
	{"devices", ruleDevices},
	{"limits", ruleLimits},
	{"sysctls", ruleSysctls},
	{"kernel", ruleKernel},
	{"seccomp", ruleSeccomp},
	{"labels", ruleLabels},
	{"hooks", ruleHooks},
	{"annotations", ruleAnnotations},
}

// Rewrite returns a new spec in which the agent has what sb grants and nothing else of the host, with one [Change] for
// each difference from s, in the order of the rules. It does not modify s, is deterministic, and has nothing left to do
// on its own result. A spec that cannot be made safe is a *[RefusedError]; other errors mean that sb or h is unusable.
//
// sb.Files holds resolved sources, see [FileRule]; h is complete, see [Host]. A workspace is mounted read-only even if it
// may be written to: then the filter asks about what would change it.
func Rewrite(s *specs.Spec, sb Sandbox, h Host) (*specs.Spec, []Change, error) {
	if s == nil {
		return nil, nil, errors.New("rewrite spec: it is nil")
	}
	if err := sb.check(); err != nil {
		return nil, nil, err
	}
	if err := h.check(); err != nil {
		return nil, nil, err
	}
	in, err := clone(s)
	if err != nil {
		return nil, nil, err
	}
	p := &pass{in: in, sb: sb, host: h, out: &specs.Spec{
		// Names in a UTS namespace of the container's own.
		Hostname:   in.Hostname,
		Domainname: in.Domainname,
		Linux:      &specs.Linux{},
	}}
	for _, r := range rules {
		p.rule = r.name
		if err := r.run(p); err != nil {
			return nil, nil, err
		}
	}
	out, err := clone(p.out) // shares nothing with h
	if err != nil {
		return nil, nil, err
	}
	return out, p.changes, nil
}

// RewriteProcess applies the rules for processes to p, as [Rewrite] does to the container's first one: no capability
// beyond [AllowedCapabilities], no new privileges, sb.Env merged in. Of sb it reads Env alone. It does not modify p.
func RewriteProcess(p *specs.Process, sb Sandbox) (*specs.Process, []Change, error) {
	if p == nil {
		return nil, nil, errors.New("rewrite process: it is nil")
	}
	if err := checkEnv(sb.Env); err != nil {
		return nil, nil, err
	}
	in, err := clone(p)
	if err != nil {
		return nil, nil, err
	}
	r := &recorder{rule: "process"}
	out, err := rewriteProcess(in, sb.Env, r)
	if err != nil {
		return nil, nil, err
	}
	return out, r.changes, nil
}

// RewriteResources bounds r, which may be nil, by l and returns a complete set: limits that r leaves open are set to l's
// (see [DefaultLimits] for zero fields), and the device list is the default one. It does not modify r. For a change of a
// running container's resources see [RewriteUpdate].
func RewriteResources(r *specs.LinuxResources, l Limits) (*specs.LinuxResources, []Change, error) {
	return resources(r, l, true)
}

// RewriteUpdate bounds r as [RewriteResources] does, but leaves open what r leaves open: in a task's Update an absent
// limit means "as it is", and filling it in could raise it.
func RewriteUpdate(r *specs.LinuxResources, l Limits) (*specs.LinuxResources, []Change, error) {
	return resources(r, l, false)
}

func resources(r *specs.LinuxResources, l Limits, complete bool) (*specs.LinuxResources, []Change, error) {
	if err := l.Validate(); err != nil {
		return nil, nil, err
	}
	in := &specs.LinuxResources{}
	if r != nil {
		var err error
		if in, err = clone(r); err != nil {
			return nil, nil, fmt.Errorf("resources: %w", err)
		}
	}
	rec := &recorder{rule: "limits"}
	out := rewriteResources(in, l.OrDefault(), complete, rec)
	return out, rec.changes, nil
}
