// Package seccomp turns the seccomp profile of an OCI runtime-spec into a filter
// of package syscalls, so that a container can have it without libseccomp.
//
// It carries out what the profiles of package spec say, exactly, and refuses the
// rest by name: no verdict but "allow", an error and "notify", no comparison but
// "equal" and "masked equal", no flags, no path of a listener (who loads the
// filter has it), one architecture. Where a call has
// several rules, the first that matches counts; where a rule has several
// conditions, all must hold.
//
// As with runc, names that the architecture does not know are ignored, which
// refuses those calls; and what is newer than all calls of the profile fails
// with ENOSYS instead of the profile's default, so that programs fall back.
//
//go:generate go run generate.go
package seccomp

import (
	"cmp"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/proxy/confine/syscalls"
)

// An architecture by its OCI name, and its system calls.
type architecture struct {
	name   specs.Arch
	number func(call string) (uint32, bool)
}

// architectures by their name in Go.
var architectures = map[string]architecture{
	"amd64": {specs.ArchX86_64, amd64},
	"arm64": {specs.ArchAARCH64, arm64},
}

// Filter returns what the profile says about the calls of this machine's
// architecture. It fails on everything that the filter would not do exactly.
func Filter(profile *specs.LinuxSeccomp) (syscalls.Filter, error) {
	arch, ok := architectures[runtime.GOARCH]
	if !ok {
		return syscalls.Filter{}, fmt.Errorf("seccomp profile: no system call table for architecture %s", runtime.GOARCH)
	}
	f, err := arch.filter(profile)
	if err != nil {
		return syscalls.Filter{}, fmt.Errorf("seccomp profile: %w", err)
	}
	return f, nil
}

func (a architecture) filter(p *specs.LinuxSeccomp) (f syscalls.Filter, err error) {
	switch {
	case p == nil:
		return f, errors.New("there is none")
	case !slices.Equal(p.Architectures, []specs.Arch{a.name}):
		return f, fmt.Errorf("architectures %v: want %s alone", p.Architectures, a.name)
	case len(p.Flags) > 0:
		return f, fmt.Errorf("flags %v are not carried out", p.Flags)
	case p.ListenerPath != "" || p.ListenerMetadata != "":
		return f, errors.New("a listener is not carried out")
	case p.DefaultAction != specs.ActErrno:
		return f, fmt.Errorf("default action %q: want %s", p.DefaultAction, specs.ActErrno)
	}
	if f.Else, err = errno(p.DefaultErrnoRet); err != nil {
		return f, fmt.Errorf("default action: %w", err)
	}
	for i, call := range p.Syscalls {
		verdict, ask, conditions, err := rule(call)
		if err != nil {
			return f, fmt.Errorf("rule %d (%v): %w", i, call.Names, err)
		}
		for _, name := range call.Names {
			number, known := a.number(name)
			if !known {
				continue
			}
			f.Newest = max(f.Newest, number)
			f.Rules = append(f.Rules, syscalls.Rule{Call: name, Number: number, When: conditions, Errno: verdict, Ask: ask})
		}
	}
	return f, nil
}

// rule is what all calls of an OCI rule have in common; verdict is 0 for those that are let through.
func rule(call specs.LinuxSyscall) (verdict syscall.Errno, ask bool, when []syscalls.Condition, err error) {
	if len(call.Names) == 0 || slices.Contains(call.Names, "") {
		return 0, false, nil, errors.New("a call has no name")
	}
	switch call.Action {
	case specs.ActAllow, specs.ActNotify:
		if call.ErrnoRet != nil {
			return 0, false, nil, fmt.Errorf("%s with an error", call.Action)
		}
		ask = call.Action == specs.ActNotify
	case specs.ActErrno:
		if verdict, err = errno(call.ErrnoRet); err != nil {
			return 0, false, nil, err
		}
	default:
		return 0, false, nil, fmt.Errorf("action %q is not carried out", call.Action)
	}
	for _, arg := range call.Args {
		condition, err := condition(arg)
		if err != nil {
			return 0, false, nil, fmt.Errorf("argument %d: %w", arg.Index, err)
		}
		if slices.ContainsFunc(when, func(c syscalls.Condition) bool { return c.Arg == condition.Arg }) {
			return 0, false, nil, fmt.Errorf("argument %d: two conditions, of which runc would want but one to hold", arg.Index)
		}
		when = append(when, condition)
	}
	return verdict, ask, when, nil
}

func condition(arg specs.LinuxSeccompArg) (c syscalls.Condition, err error) {
	if arg.Index > 5 {
		return c, errors.New("a call has six")
	}
	c.Arg = arg.Index
	switch arg.Op {
	case specs.OpEqualTo:
		if arg.ValueTwo != 0 {
			return c, fmt.Errorf("%s with a second value", arg.Op)
		}
		c.Mask, c.Want = syscalls.WholeAll, arg.Value
	case specs.OpMaskedEqual:
		if arg.ValueTwo&^arg.Value != 0 {
			return c, fmt.Errorf("what is masked with %#x is never %#x", arg.Value, arg.ValueTwo)
		}
		c.Mask, c.Want = arg.Value, arg.ValueTwo
	default:
		return c, fmt.Errorf("operator %q is not carried out", arg.Op)
	}
	return c, nil
}

// errno reads the number of an error; none means EPERM. Error 0 would tell the
// caller that what was refused has been done.
func errno(n *uint) (syscall.Errno, error) {
	number := cmp.Or(n, new(uint(unix.EPERM)))
	if *number == 0 || *number > 4095 { // MAX_ERRNO of linux/err.h
		return 0, fmt.Errorf("no such error: %d", *number)
	}
	return syscall.Errno(*number), nil
}
