package syscalls

import (
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Filter says which system calls a process may make. It is a description:
// String prints it, [Filter.Program] compiles it. The zero Filter refuses
// everything. A call of another architecture's or of x32 ends the process,
// whatever the rules say.
type Filter struct {
	Rules []Rule
	Else  syscall.Errno // what a call fails with that no rule matches; 0 means EPERM

	// Newest is the highest number of a call that the rules' author knew. What is
	// above fails with ENOSYS, as on the kernel of that time, so that programs
	// fall back to what they did on it. 0: there is nothing of the kind.
	Newest uint32
}

// A Rule lets a call through, or gives it an error of its own, if all of its
// conditions hold. Of the rules for one call the first that matches counts.
type Rule struct {
	Call   string        // as in syscalls(2)
	Number uint32        // on this architecture
	When   []Condition   // on its arguments; none: always
	Errno  syscall.Errno // what it fails with; 0: it is let through
	Ask    bool          // the filter's listener decides (seccomp_unotify(2)); Errno is 0
	Why    string        // for the reader
}

// A Condition holds if the argument's bits in Mask are those of Want. The kernel
// reads only the lower half of an argument whose C type is int, so its mask
// leaves out the upper one.
type Condition struct {
	Arg        uint // from 0 to 5
	Mask, Want uint64
}

// Masks of a whole argument.
const (
	WholeInt = 1<<32 - 1 // of an int
	WholeAll = 1<<64 - 1 // of a pointer, a size, a long
)

// Is compares an int.
func Is[T ~int | ~uint32](arg uint, want T) Condition {
	return Condition{Arg: arg, Mask: WholeInt, Want: uint64(uint32(want))}
}

// Only holds if an int has no other bits than these.
func Only(arg uint, bits uint32) Condition {
	return Condition{Arg: arg, Mask: uint64(^bits)}
}

// Without holds if none of the bits is set.
func Without(arg uint, bits uint64) Condition {
	return Condition{Arg: arg, Mask: bits}
}

// otherwise is what a call fails with that no rule matches.
func (f Filter) otherwise() syscall.Errno {
	if f.Else == 0 {
		return unix.EPERM
	}
	return f.Else
}

// String has one line for each rule, and one for what no rule matches.
func (f Filter) String() string {
	var b strings.Builder
	for _, r := range f.Rules {
		line := r.Call
		for _, c := range r.When {
			line += "  " + c.String()
		}
		if r.Errno != 0 {
			line += "  -> " + errnoName(r.Errno)
		}
		if r.Ask {
			line += "  -> ask"
		}
		if r.Why != "" {
			line = fmt.Sprintf("%-64s # %s", line, r.Why)
		}
		b.WriteString(line + "\n")
	}
	if f.Newest != 0 {
		fmt.Fprintf(&b, "above %d  -> ENOSYS\n", f.Newest)
	}
	fmt.Fprintf(&b, "else  -> %s\nother architecture, x32  -> the process ends\n", errnoName(f.otherwise()))
	return b.String()
}

func (c Condition) String() string {
	if c.Mask == WholeAll || c.Mask == WholeInt {
		return fmt.Sprintf("arg%d == %#x", c.Arg, c.Want)
	}
	return fmt.Sprintf("arg%d & %#x == %#x", c.Arg, c.Mask, c.Want)
}

func errnoName(errno syscall.Errno) string {
	if name := unix.ErrnoName(errno); name != "" {
		return name
	}
	return fmt.Sprintf("errno %d", uint(errno))
}
