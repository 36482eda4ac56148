// Package syscallstest runs compiled filters as the kernel would, in this process
// and without loading them.
package syscallstest

import (
	"encoding/binary"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/proxy/confine/syscalls"
)

// The verdicts that a filter of package syscalls can have, beside an error.
const (
	Allowed = uint32(unix.SECCOMP_RET_ALLOW)
	Killed  = uint32(unix.SECCOMP_RET_KILL_PROCESS & 0xffffffff)
)

// Refused is the verdict of a call that fails with the error.
func Refused(errno unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(errno) }

// A Call is what a filter sees of a system call.
type Call struct {
	Arch, Number uint32
	Args         [6]uint64
}

// Simulate returns the verdict of a compiled filter over a call.
func Simulate(t testing.TB, program []unix.SockFilter) func(Call) uint32 {
	t.Helper()
	raw := make([]bpf.RawInstruction, len(program))
	for i, s := range program {
		raw[i] = bpf.RawInstruction{Op: s.Code, Jt: s.Jt, Jf: s.Jf, K: s.K}
	}
	insts, all := bpf.Disassemble(raw)
	if !all {
		t.Fatal("the program cannot be disassembled")
	}
	vm, err := bpf.NewVM(insts)
	if err != nil {
		t.Fatal(err)
	}
	// struct seccomp_data of a little-endian machine, but words are as the VM reads them.
	data := make([]byte, 16+6*8)
	return func(c Call) uint32 {
		binary.BigEndian.PutUint32(data, c.Number)
		binary.BigEndian.PutUint32(data[4:], c.Arch)
		for i, arg := range c.Args {
			binary.BigEndian.PutUint32(data[16+8*i:], uint32(arg))
			binary.BigEndian.PutUint32(data[20+8*i:], uint32(arg>>32))
		}
		verdict, err := vm.Run(data)
		if err != nil {
			t.Fatal(err)
		}
		return uint32(verdict)
	}
}

// Compile is the filter's [Simulate], of a filter that must compile.
func Compile(t testing.TB, f syscalls.Filter) func(Call) uint32 {
	t.Helper()
	program, err := f.Program()
	if err != nil {
		t.Fatal(err)
	}
	return Simulate(t, program)
}
