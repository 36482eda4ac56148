package syscalls_test

import (
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/proxy/confine/syscalls"
	"cofferdam.dev/cofferdam/proxy/confine/syscalls/load"
	"cofferdam.dev/cofferdam/proxy/confine/syscalls/syscallstest"
)

const (
	x32Bit = 0x40000000
	skip   = 0xffffffff // -1, with which a tracer has the kernel skip a call
)

func TestZeroFilterPrints(t *testing.T) {
	want, err := os.ReadFile("testdata/zero.filter")
	if got := (syscalls.Filter{}).String(); err != nil || got != string(want) {
		t.Errorf("%q, want %q (%v)", got, want, err)
	}
}

// decide says what a filter means, rule by rule.
func decide(f syscalls.Filter, c syscallstest.Call) uint32 {
	if c.Arch != syscalls.AuditArch || c.Number >= x32Bit && c.Number != skip {
		return syscallstest.Killed
	}
	for _, r := range f.Rules {
		holds := r.Number == c.Number
		for _, when := range r.When {
			holds = holds && c.Args[when.Arg]&when.Mask == when.Want
		}
		switch {
		case holds && r.Ask:
			return unix.SECCOMP_RET_USER_NOTIF
		case holds && r.Errno == 0:
			return syscallstest.Allowed
		case holds:
			return syscallstest.Refused(r.Errno)
		}
	}
	if f.Newest != 0 && c.Number > f.Newest && c.Number != skip {
		return syscallstest.Refused(unix.ENOSYS)
	}
	if f.Else != 0 {
		return syscallstest.Refused(f.Else)
	}
	return syscallstest.Refused(unix.EPERM)
}

// anyFilter has rules for numbers in runs and with gaps, several for a call, with masks of every kind.
func anyFilter(r *rand.Rand) syscalls.Filter {
	f := syscalls.Filter{Else: syscall.Errno(r.IntN(3)), Newest: []uint32{0, 199, 200, x32Bit - 1, x32Bit, 1 << 31}[r.IntN(6)]}
	mask := func() uint64 {
		return []uint64{0, 1, 0xff00, 1 << 40, syscalls.WholeInt, syscalls.WholeAll, syscalls.WholeAll - syscalls.WholeInt, r.Uint64()}[r.IntN(8)]
	}
	for range r.IntN(300) {
		rule := syscalls.Rule{Call: "x", Number: uint32(r.IntN(200)), Errno: syscall.Errno(r.IntN(3) * r.IntN(2))}
		rule.Ask = rule.Errno == 0 && r.IntN(4) == 0
		for range r.IntN(4) * r.IntN(2) {
			m := mask()
			rule.When = append(rule.When, syscalls.Condition{Arg: uint(r.IntN(6)), Mask: m, Want: m & []uint64{0, 1, syscalls.WholeAll, r.Uint64()}[r.IntN(4)]})
		}
		f.Rules = append(f.Rules, rule)
	}
	return f
}

// check compares what the compiled filter says with what its rules do, where a verdict may change.
func check(t *testing.T, r *rand.Rand, f syscalls.Filter) {
	t.Helper()
	run := syscallstest.Compile(t, f)
	numbers := []uint32{skip, skip - 1, x32Bit, x32Bit | 1, x32Bit - 1, 1 << 31}
	for n := range uint32(202) {
		numbers = append(numbers, n)
	}
	for _, number := range numbers {
		arguments := [][6]uint64{{}, {r.Uint64(), r.Uint64(), r.Uint64(), r.Uint64(), r.Uint64(), r.Uint64()}}
		for _, rule := range f.Rules {
			if rule.Number != number {
				continue
			}
			var args [6]uint64
			for _, c := range rule.When {
				args[c.Arg] = args[c.Arg]&^c.Mask | c.Want
			}
			arguments = append(arguments, args)
			if len(rule.When) > 0 {
				c := rule.When[r.IntN(len(rule.When))]
				args[c.Arg] ^= 1 << r.IntN(64)
				arguments = append(arguments, args)
			}
		}
		for _, args := range arguments {
			c := syscallstest.Call{Arch: syscalls.AuditArch, Number: number, Args: args}
			if got, want := run(c), decide(f, c); got != want {
				t.Fatalf("%+v: %#x, want %#x, in\n%v", c, got, want, f)
			}
			c.Arch ^= 1
			if got := run(c); got != syscallstest.Killed {
				t.Fatalf("%+v: %#x", c, got)
			}
		}
	}
}

func TestProgramDoesWhatTheRulesSay(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	check(t, r, syscalls.Filter{})
	for range 200 {
		check(t, r, anyFilter(r))
	}
}

func FuzzProgram(f *testing.F) {
	f.Add(uint64(1), uint64(1))
	f.Fuzz(func(t *testing.T, a, b uint64) {
		r := rand.New(rand.NewPCG(a, b))
		check(t, r, anyFilter(r))
	})
}

func TestMalformedRules(t *testing.T) {
	when := func(c ...syscalls.Condition) syscalls.Filter {
		return syscalls.Filter{Rules: []syscalls.Rule{{Call: "x", When: c}}}
	}
	one := syscalls.Condition{Mask: 1, Want: 1}
	long := when(slices.Repeat([]syscalls.Condition{one}, 200)...) // beyond the reach of a conditional jump
	check(t, rand.New(rand.NewPCG(1, 2)), long)
	for what, f := range map[string]syscalls.Filter{
		"argument":      when(syscalls.Condition{Arg: 6}),
		"never holds":   when(syscalls.Condition{Mask: 1, Want: 2}),
		"x32":           {Rules: []syscalls.Rule{{Call: "x", Number: x32Bit}}},
		"too new":       {Rules: []syscalls.Rule{{Call: "x", Number: 9}}, Newest: 8},
		"error and ask": {Rules: []syscalls.Rule{{Call: "x", Errno: 1, Ask: true}}},
		"errno":         {Rules: []syscalls.Rule{{Call: "x", Errno: 4096}}},
		"default errno": {Else: 4096},
		"too long":      when(slices.Repeat([]syscalls.Condition{one}, 2000)...),
	} {
		if program, err := f.Program(); err == nil {
			t.Errorf("%s gives %d instructions", what, len(program))
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := load.Filter(nil); err == nil {
		t.Error("no program was loaded")
	}
}
