package syscalls

import (
	"cmp"
	"fmt"
	"math"
	"runtime"
	"slices"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// The layout of struct seccomp_data (seccomp(2)): the number of the call, the
// architecture, the instruction pointer, six arguments. The machines that are
// known here are little-endian.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16

	x32Bit = 0x40000000 // __X32_SYSCALL_BIT of asm/unistd.h
	noCall = 0xffffffff // -1: a tracer has the kernel skip the call

	maxInstructions = 4096 // BPF_MAXINSNS of linux/bpf_common.h
	maxErrno        = 4095 // MAX_ERRNO of linux/err.h: what is above, the kernel cuts down to it
)

// verdictKill is for what no rule can be about.
var verdictKill = []bpf.Instruction{bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS}}

// Program compiles the filter. It fails on an architecture whose calls are not
// known here, on a rule that is malformed, and on a filter that the kernel would
// not take for its length.
//
// It looks the number of the call up by halves. That is for the start: as the
// kernel takes over a filter it runs it for each call there is, to remember those
// that are let through whatever their arguments (kernel/seccomp.c,
// seccomp_cache_prepare), and a list from top to bottom takes it several times as
// long as the rest of the work.
func (f Filter) Program() ([]unix.SockFilter, error) {
	if AuditArch == 0 {
		return nil, fmt.Errorf("no system call filter for architecture %s", runtime.GOARCH)
	}
	spans, err := f.spans()
	if err != nil {
		return nil, err
	}
	prog := []bpf.Instruction{bpf.LoadAbsolute{Off: offArch, Size: 4}}
	prog = append(prog, unless(bpf.JumpEqual, AuditArch, verdictKill)...)
	prog = append(prog, bpf.LoadAbsolute{Off: offNumber, Size: 4})
	prog = append(prog, search(spans)...)
	if len(prog) > maxInstructions {
		return nil, fmt.Errorf("the system call filter is too long: %d instructions of %d", len(prog), maxInstructions)
	}
	raw, err := bpf.Assemble(prog)
	if err != nil {
		return nil, fmt.Errorf("assemble system call filter: %w", err)
	}
	out := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		out[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return out, nil
}

// A span is a run of call numbers that the same instructions are for: up to the
// next span, or to the highest number there is.
type span struct {
	from uint32
	run  []bpf.Instruction // ends with a verdict
}

// spans cover all numbers, in their order.
func (f Filter) spans() ([]span, error) {
	if f.Else > maxErrno {
		return nil, fmt.Errorf("no such error: %d", uint(f.Else))
	}
	sorted := slices.Clone(f.Rules)
	slices.SortStableFunc(sorted, func(a, b Rule) int { return cmp.Compare(a.Number, b.Number) })
	deny := verdict(f.otherwise())
	spans := []span{{0, deny}}
	add := func(from uint32, run []bpf.Instruction) {
		if last := len(spans) - 1; spans[last].from == from {
			spans = spans[:last]
		}
		if last := len(spans) - 1; last < 0 || !slices.Equal(spans[last].run, run) {
			spans = append(spans, span{from, run})
		}
	}
	for len(sorted) > 0 {
		number := sorted[0].Number
		if number >= x32Bit || f.Newest != 0 && number > f.Newest {
			return nil, fmt.Errorf("rule for %s: no call has the number %d", sorted[0].Call, number)
		}
		end := slices.IndexFunc(sorted, func(r Rule) bool { return r.Number != number })
		if end < 0 {
			end = len(sorted)
		}
		run := deny
		for _, r := range slices.Backward(sorted[:end]) {
			var err error
			if run, err = r.before(run); err != nil {
				return nil, err
			}
		}
		add(number, run)
		add(number+1, deny)
		sorted = sorted[end:]
	}
	if f.Newest != 0 {
		add(min(f.Newest, x32Bit-1)+1, verdict(unix.ENOSYS))
	}
	add(x32Bit, verdictKill) // no call of another ABI has a number so high
	add(noCall, deny)
	return spans, nil
}

// verdict is how a call ends; 0 lets it through.
func verdict(errno syscall.Errno) []bpf.Instruction {
	if errno == 0 {
		return []bpf.Instruction{bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}}
	}
	return []bpf.Instruction{bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(errno)}}
}

// search finds the span of the number that is loaded.
func search(spans []span) []bpf.Instruction {
	if len(spans) == 1 {
		return spans[0].run
	}
	middle := len(spans) / 2
	return append(unless(bpf.JumpGreaterOrEqual, spans[middle].from, search(spans[:middle])), search(spans[middle:])...)
}

// unless runs what it is given unless the condition holds, and that ends with a
// verdict or with what follows. A conditional jump has eight bits for its length.
func unless(cond bpf.JumpTest, val uint32, run []bpf.Instruction) []bpf.Instruction {
	if len(run) <= math.MaxUint8 {
		return append([]bpf.Instruction{bpf.JumpIf{Cond: cond, Val: val, SkipTrue: uint8(len(run))}}, run...)
	}
	return append([]bpf.Instruction{bpf.JumpIf{Cond: cond, Val: val, SkipFalse: 1}, bpf.Jump{Skip: uint32(len(run))}}, run...)
}

// before puts the rule before what is run where it does not match.
func (r Rule) before(next []bpf.Instruction) ([]bpf.Instruction, error) {
	if r.Errno > maxErrno {
		return nil, fmt.Errorf("rule for %s: no such error: %d", r.Call, uint(r.Errno))
	}
	run := verdict(r.Errno)
	if r.Ask {
		if r.Errno != 0 {
			return nil, fmt.Errorf("rule for %s: an error and a question", r.Call)
		}
		run = []bpf.Instruction{bpf.RetConstant{Val: unix.SECCOMP_RET_USER_NOTIF}}
	}
	for _, c := range slices.Backward(r.When) {
		if c.Arg > 5 || c.Want&^c.Mask != 0 {
			return nil, fmt.Errorf("rule for %s: condition %v can never hold", r.Call, c)
		}
		for _, half := range [2]struct{ off, mask, want uint32 }{
			{0, uint32(c.Mask), uint32(c.Want)},
			{4, uint32(c.Mask >> 32), uint32(c.Want >> 32)},
		} {
			if half.mask == 0 {
				continue
			}
			test := []bpf.Instruction{bpf.LoadAbsolute{Off: offArgs + 8*uint32(c.Arg) + half.off, Size: 4}}
			if half.mask != math.MaxUint32 {
				test = append(test, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: half.mask})
			}
			run = slices.Concat(test, unless(bpf.JumpNotEqual, half.want, run))
		}
	}
	if len(r.When) == 0 || slices.IndexFunc(r.When, func(c Condition) bool { return c.Mask != 0 }) < 0 {
		return run, nil // it always matches
	}
	return append(run, next...), nil
}
