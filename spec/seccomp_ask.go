package spec

import (
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// An ask is a system call about which somebody is asked before the kernel carries it out, since it could change a file in a workspace, which is mounted
// read-only: package shim/workspace/broker says what then happens. Calls that are about a descriptor which is open for writing are
// not: who has one was allowed to.
type ask struct {
	call string
	// when is what an argument must be for it; its zero value: whatever it is.
	when anyOf
}

// anyOf holds if an argument has one of the bits.
type anyOf struct {
	arg  uint
	bits []uint64
}

// Numbers of the Linux ABI: fcntl.h and unistd.h. Those of open(2) are the same on all architectures that have a profile.
const (
	oWronly = 0o1
	oRdwr   = 0o2
	oCreat  = 0o100
	oTrunc  = 0o1000

	accessWrite = 0o2 // W_OK
)

// asked are the calls. An open(2) that only reads, which is what programs do most, is nobody's business.
var asked = []ask{
	{"open", anyOf{1, opensToWrite}},
	{"openat", anyOf{2, opensToWrite}},
	{call: "openat2"},
	{call: "creat"},
	{"access", anyOf{1, []uint64{accessWrite}}},
	{"faccessat", anyOf{2, []uint64{accessWrite}}},
	{"faccessat2", anyOf{2, []uint64{accessWrite}}},
	{call: "mkdir"},
	{call: "mkdirat"},
	{call: "mknod"},
	{call: "mknodat"},
	{call: "symlink"},
	{call: "symlinkat"},
	{call: "rename"},
	{call: "renameat"},
	{call: "renameat2"},
	{call: "link"},
	{call: "linkat"},
	{call: "unlink"},
	{call: "unlinkat"},
	{call: "rmdir"},
	{call: "truncate"},
	{call: "chmod"},
	{call: "fchmod"},
	{call: "fchmodat"},
	{call: "fchmodat2"},
	{call: "chown"},
	{call: "lchown"},
	{call: "fchown"},
	{call: "fchownat"},
	{call: "utime"},
	{call: "utimes"},
	{call: "futimesat"},
	{call: "utimensat"},
	{call: "setxattr"},
	{call: "lsetxattr"},
	{call: "fsetxattr"},
	{call: "removexattr"},
	{call: "lremovexattr"},
	{call: "fremovexattr"},
}

var opensToWrite = []uint64{oWronly, oRdwr, oCreat, oTrunc}

// askRules are the rules for all of asked. A call with a condition is let through where it does not hold, by a rule of its own that cannot
// match together with one of the others: libseccomp has no order among the rules of a call.
func askRules() []specs.LinuxSyscall {
	var always []string
	var rules []specs.LinuxSyscall
	for _, a := range asked {
		if len(a.when.bits) == 0 {
			always = append(always, a.call)
			continue
		}
		mask := uint64(0)
		for _, bit := range a.when.bits {
			mask |= bit
			rules = append(rules, specs.LinuxSyscall{Names: []string{a.call}, Action: specs.ActNotify, Args: []specs.LinuxSeccompArg{
				{Index: a.when.arg, Value: bit, ValueTwo: bit, Op: specs.OpMaskedEqual},
			}})
		}
		rules = append(rules, specs.LinuxSyscall{Names: []string{a.call}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{
			{Index: a.when.arg, Value: mask, ValueTwo: 0, Op: specs.OpMaskedEqual},
		}})
	}
	return append(rules, specs.LinuxSyscall{Names: always, Action: specs.ActNotify})
}

// without returns a list of calls that has none of asked.
func without(calls string, asked []ask) string {
	return strings.Join(slices.DeleteFunc(strings.Fields(calls), func(call string) bool {
		return slices.ContainsFunc(asked, func(a ask) bool { return a.call == call })
	}), " ")
}
