package sandbox

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

type procStat struct {
	state     byte
	startTime uint64
}

// readStat reads what identifies a process from /proc/PID/stat, proc_pid_stat(5). The second field is the command in
// parentheses and may hold anything, parentheses and spaces included: fields count from the last closing one.
func readStat(pid int) (procStat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procStat{}, err
	}
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return procStat{}, fmt.Errorf("/proc/%d/stat: no command", pid)
	}
	f := bytes.Fields(b[i+1:])
	if len(f) < 20 || len(f[0]) != 1 {
		return procStat{}, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(f))
	}
	start, err := strconv.ParseUint(string(f[19]), 10, 64) // field 22, counted from 1; f[0] is field 3
	if err != nil {
		return procStat{}, fmt.Errorf("/proc/%d/stat: start time: %w", pid, err)
	}
	return procStat{state: f[0][0], startTime: start}, nil
}
