package confine

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"

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
)

// program assembles the filter into BPF. It fails on an architecture whose calls
// are not known here, and on a rule that is malformed.
//
// It looks the number of the call up by halves. That is for the start: as the
// kernel takes over a filter it runs it for each call there is, to remember those
// that are let through whatever their arguments (kernel/seccomp.c,
// seccomp_cache_prepare), and a list from top to bottom takes it several times as
// long as the rest of the work.
func (f Filter) program() ([]bpf.RawInstruction, error) {
	if auditArch == 0 {
		return nil, fmt.Errorf("no filter for architecture %s", runtime.GOARCH)
	}
	a := assembler{prog: make([]bpf.Instruction, 0, 8*len(f)+8)}
	a.emit(bpf.LoadAbsolute{Off: offArch, Size: 4})
	ours := a.jump(bpf.JumpEqual, auditArch)
	a.emit(bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS})
	ours()
	a.emit(bpf.LoadAbsolute{Off: offNumber, Size: 4})
	native := a.jump(bpf.JumpBitsNotSet, x32Bit) // no call of another ABI has a number so high
	a.emit(bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS})
	native()

	a.search(f.byCall())
	if a.err != nil {
		return nil, a.err
	}
	return bpf.Assemble(a.prog)
}

// byCall has the rules of each call, in the order of their numbers.
func (f Filter) byCall() []Filter {
	sorted := slices.Clone(f)
	slices.SortStableFunc(sorted, func(a, b Rule) int { return cmp.Compare(a.Number, b.Number) })
	var calls []Filter
	for i, r := range sorted {
		if i == 0 || r.Number != sorted[i-1].Number {
			calls = append(calls, nil)
		}
		last := &calls[len(calls)-1]
		*last = append(*last, r)
	}
	return calls
}

// An assembler writes instructions one after the other.
type assembler struct {
	prog []bpf.Instruction
	err  error // the first one
}

func (a *assembler) emit(i bpf.Instruction) { a.prog = append(a.prog, i) }

// jump leaves from here if the condition holds, for where land is called.
func (a *assembler) jump(cond bpf.JumpTest, val uint32) (land func()) {
	from := len(a.prog)
	a.emit(nil)
	return func() {
		distance := len(a.prog) - from - 1
		if distance > math.MaxUint8 && a.err == nil { // a conditional jump has eight bits for it
			a.err = errors.New("the filter is too long")
		}
		a.prog[from] = bpf.JumpIf{Cond: cond, Val: val, SkipTrue: uint8(distance)}
	}
}

// search returns what the rules say of the call whose number is loaded.
func (a *assembler) search(calls []Filter) {
	switch len(calls) {
	case 0:
		a.emit(bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)})
	case 1:
		other := a.jump(bpf.JumpNotEqual, calls[0][0].Number)
		for _, r := range calls[0] {
			a.rule(r)
		}
		other()
		a.search(nil)
	default:
		middle := len(calls) / 2
		high := a.jump(bpf.JumpGreaterOrEqual, calls[middle][0].Number)
		a.search(calls[:middle])
		high()
		a.search(calls[middle:])
	}
}

// rule returns if its conditions hold, and else runs into what follows.
func (a *assembler) rule(r Rule) {
	var unless []func()
	for _, c := range r.When {
		if (c.Arg > 5 || c.Want&^c.Mask != 0) && a.err == nil {
			a.err = fmt.Errorf("rule for %s: condition %v can never hold", r.Call, c)
		}
		for _, half := range [2]struct{ off, mask, want uint32 }{
			{4, uint32(c.Mask >> 32), uint32(c.Want >> 32)},
			{0, uint32(c.Mask), uint32(c.Want)},
		} {
			if half.mask != 0 {
				a.emit(bpf.LoadAbsolute{Off: offArgs + 8*uint32(c.Arg) + half.off, Size: 4})
				a.emit(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: half.mask})
				unless = append(unless, a.jump(bpf.JumpNotEqual, half.want))
			}
		}
	}
	verdict := uint32(unix.SECCOMP_RET_ALLOW)
	if r.Errno != 0 {
		verdict = unix.SECCOMP_RET_ERRNO | uint32(r.Errno)
	}
	a.emit(bpf.RetConstant{Val: verdict})
	for _, land := range unless {
		land()
	}
}
