package runner

import (
	"bufio"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// settle gives back the memory that the start took: what Go has kept, and the pages of the program itself, of which waiting needs few. They are
// clean, and come back from the page cache when they are used.
func settle() {
	debug.FreeOSMemory()
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer f.Close()
	for _, m := range cleanParts(bufio.NewScanner(f), program) {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m[0], m[1]-m[0], unix.MADV_DONTNEED)
	}
}

// cleanParts are the parts of a program in memory, by first and last address, that cannot be written to and have no page that was: they are
// as in the file (proc_pid_smaps(5)).
func cleanParts(smaps *bufio.Scanner, program string) (parts [][2]uintptr) {
	var part [2]uintptr
	readOnly := false
	for smaps.Scan() {
		fields := strings.Fields(smaps.Text())
		switch {
		case len(fields) >= 6 && strings.Contains(fields[0], "-"):
			first, last, _ := strings.Cut(fields[0], "-")
			from, ferr := strconv.ParseUint(first, 16, 8*int(unsafe.Sizeof(part[0])))
			to, terr := strconv.ParseUint(last, 16, 8*int(unsafe.Sizeof(part[0])))
			part = [2]uintptr{uintptr(from), uintptr(to)}
			readOnly = ferr == nil && terr == nil && strings.HasPrefix(fields[1], "r-") && strings.Join(fields[5:], " ") == program
		case len(fields) >= 5 && strings.Contains(fields[0], "-"):
			readOnly = false // of no file
		case readOnly && len(fields) == 3 && fields[0] == "Anonymous:" && fields[1] == "0":
			parts = append(parts, part)
		}
	}
	return parts
}
