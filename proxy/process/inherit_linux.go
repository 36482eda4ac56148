package process

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Bounds on what the process may hold, whatever the parent's own limits are.
// RLIMIT_NPROC counts all threads of the user: of all sandboxes that share one,
// and of a person's whole session where the proxy runs as that person.
const (
	maxConfig = 96 << 20 // the longest policy is 64 MiB, and a third more in base64
	maxFiles  = 8192
	maxProcs  = 16384

	// What an agent can make the proxy hold is bounded by connections, and those by bytes of their heads, of which Go makes up to forty
	// times as much. Beyond this the process ends and another one is started: the host does not run out of memory for one sandbox.
	maxData       = 1 << 30
	dataPerPolicy = 24       // bytes for each one of the policy's layers, while they are parsed
	maxFile       = 32 << 20 // the names file of a full pool fits
)

// Inherit takes over what the parent prepared. It is the first thing the child
// does: when it returns without error, the process can gain no privileges, has
// no capabilities, cannot be traced or dumped by its own user, holds no
// descriptor but the contract's, and has limits. The second is package confine's
// Self, which takes what is left of files and system calls.
//
// ready is not nil if there is a pipe to report an error to; the caller passes
// it to [Ready] in either case.
func Inherit() (cfg Config, f Files, ready *os.File, err error) {
	if ready, err = inherited(fdReady, "ready pipe"); err != nil {
		return cfg, f, nil, fmt.Errorf("%w: this program is started by cofferdam, not by hand", err)
	}
	if err := closeOthers(); err != nil {
		return cfg, f, ready, err
	}
	// One that was executed by descriptor is called like that; the name is for people alone.
	_ = os.WriteFile("/proc/self/comm", []byte("cofferdam-proxy"), 0)
	if cfg, err = readConfig(); err != nil {
		return cfg, f, ready, err
	}
	if err := restrict(cfg); err != nil {
		return cfg, f, ready, err
	}
	for _, file := range []struct {
		fd    uintptr
		name  string
		check func(fd int) error
		to    **os.File
	}{
		{fdTCP, "tcp listener", nonblocking, &f.TCP},
		{fdDNS, "dns socket", nonblocking, &f.DNS},
		{fdLog, "record log", nonblocking, &f.Log},
		{fdNames, "names file", appends, &f.Names},
		{fdUpdates, "policy stream", nonblocking, &f.Updates},
	} {
		if err := file.check(int(file.fd)); err != nil {
			return cfg, f, ready, fmt.Errorf("%s: %w", file.name, err)
		}
		if *file.to, err = inherited(file.fd, file.name); err != nil {
			return cfg, f, ready, err
		}
	}
	return cfg, f, ready, nil
}

// nonblocking does for a socket what package net would do later, when status flags cannot be changed any more (package confine).
func nonblocking(fd int) error {
	return os.NewSyscallError("set nonblocking", unix.SetNonblock(fd, true))
}

// appends fails unless what is written goes to the file's end. The flag is the file's own and can only be taken from it by
// fcntl(2), which package confine forbids: so what was written stays.
func appends(fd int) error {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return os.NewSyscallError("get flags", err)
	}
	if flags&unix.O_APPEND == 0 {
		return errors.New("not opened with O_APPEND")
	}
	return nil
}

// inherited wraps a descriptor that must have survived exec: one that the Go
// runtime happened to open at the same number has the close-on-exec flag.
func inherited(fd uintptr, name string) (*os.File, error) {
	flags, err := unix.FcntlInt(fd, unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC != 0 {
		return nil, fmt.Errorf("file descriptor %d (%s) is not inherited", fd, name)
	}
	unix.CloseOnExec(int(fd))
	return os.NewFile(fd, name), nil
}

// closeOthers closes what else survived exec. The runtime's own descriptors
// (epoll, the cgroup's cpu.max) are close-on-exec and stay.
func closeOthers() error {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("list file descriptors: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("list file descriptors: %w", err)
	}
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil || fd < fdEnd {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd)
		}
	}
	return nil
}

func readConfig() (Config, error) {
	file, err := inherited(fdConfig, "config")
	if err != nil {
		return Config{}, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxConfig+1))
	if err != nil {
		return Config{}, fmt.Errorf("read config: %w", err)
	}
	if len(data) > maxConfig {
		return Config{}, fmt.Errorf("read config: larger than %d bytes", maxConfig)
	}
	var cfg Config
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&cfg); err != nil {
		return Config{}, fmt.Errorf("decode config: %w", err)
	}
	if err := cfg.validate(); err != nil {
		return Config{}, fmt.Errorf("config: %w", err)
	}
	return cfg.withDefaults(), nil
}

// restrict gives up what the process does not need and checks that it is gone.
func restrict(cfg Config) error {
	if err := refuseRoot(cfg); err != nil {
		return err
	}
	_, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0)
	if err := allThreads("set no_new_privs", errno); err != nil {
		return err
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	_, _, errno = syscall.AllThreadsSyscall(unix.SYS_CAPSET,
		uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none)), 0)
	if err := allThreads("drop capabilities", errno); err != nil {
		return err
	}
	if err := noCapabilities(); err != nil {
		return err
	}
	// After the reads of /proc/self above: this hides most of it from ourselves
	// too, and from every other process of the same user.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("set not dumpable: %w", err)
	}
	for _, limit := range []struct {
		name     string
		resource int
		max      uint64
	}{
		{"core", unix.RLIMIT_CORE, 0},
		{"fsize", unix.RLIMIT_FSIZE, maxFile},
		{"nofile", unix.RLIMIT_NOFILE, maxFiles},
		{"nproc", unix.RLIMIT_NPROC, maxProcs},
		{"data", unix.RLIMIT_DATA, maxData + dataPerPolicy*uint64(len(cfg.Layers))},
	} {
		if err := lower(limit.resource, limit.max); err != nil {
			return fmt.Errorf("limit %s: %w", limit.name, err)
		}
	}
	return nil
}

// refuseRoot lets uid 0 pass only if it is root of nothing but a user namespace
// that has no other id.
func refuseRoot(cfg Config) error {
	if real, effective, saved := unix.Getresuid(); real != 0 && effective != 0 && saved != 0 {
		return nil
	}
	if !cfg.AllowRoot {
		return errors.New("refusing to run as root")
	}
	uidMap, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return fmt.Errorf("read user namespace: %w", err)
	}
	if f := strings.Fields(string(uidMap)); len(f) != 3 || f[2] != "1" {
		return errors.New("refusing to run as root: this user namespace has more than one id")
	}
	return nil
}

// allThreads is the error of a system call made on every thread of the process:
// these attributes are per thread, and the Go runtime already has several.
func allThreads(what string, errno syscall.Errno) error {
	switch errno {
	case 0:
		return nil
	case syscall.ENOTSUP:
		return fmt.Errorf("%s on all threads: not possible in a binary with cgo (build with CGO_ENABLED=0)", what)
	default:
		return fmt.Errorf("%s on all threads: %w", what, errno)
	}
}

// noCapabilities fails if a capability is left that could be used or regained.
func noCapabilities() error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	seen := 0
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch key {
		case "CapEff", "CapPrm", "CapAmb", "CapInh":
			seen++
			if strings.Trim(strings.TrimSpace(value), "0") != "" {
				return fmt.Errorf("refusing to run with capabilities: %s %s", key, strings.TrimSpace(value))
			}
		}
	}
	if seen != 4 {
		return errors.New("read capabilities: /proc/self/status lists no capability sets")
	}
	return nil
}

// lower sets both limits to max, or to what is allowed already if that is less.
func lower(resource int, limit uint64) error {
	var old unix.Rlimit
	if err := unix.Getrlimit(resource, &old); err != nil {
		return err
	}
	limit = min(limit, old.Max)
	return unix.Setrlimit(resource, &unix.Rlimit{Cur: limit, Max: limit})
}
