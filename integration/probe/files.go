//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/integration/outcome"
)

func init() {
	attempts["fds"] = attempt{": finds descriptors, of any process, of what lies outside of its mounts; Reply has them", 0, func(_ []string, o *outcome.Outcome) error { return found(foreign, o) }}
	attempts["leak"] = attempt{"PATH ATTEMPT...: makes it with a descriptor of PATH, which is of other mounts", 2, leak}
	attempts["roots"] = attempt{"PATH: reads a file through the root, the working folder and each descriptor of every process", 1, func(a []string, o *outcome.Outcome) error {
		return found(func() ([]string, error) { return throughProcesses(a[0]) }, o)
	}}
	attempts["environs"] = attempt{"NAME: reads a variable of the environment of every process but its own", 1, func(a []string, o *outcome.Outcome) error {
		return found(func() ([]string, error) { return environs(a[0]) }, o)
	}}
	attempts["handle"] = attempt{"PATH: opens it by its handle, from the mount that it lies in", 1, openByHandle}
	attempts["nodes"] = attempt{"DIR: makes devices of many kinds, and opens them", 1, func(a []string, o *outcome.Outcome) error {
		return found(func() ([]string, error) { return makeNodes(a[0]) }, o)
	}}
	attempts["devices"] = attempt{"[PATH...]: opens devices, by default all that are in /dev, but for those that everybody has", 0, func(a []string, o *outcome.Outcome) error {
		return found(func() ([]string, error) { return openDevices(a) }, o)
	}}
	attempts["writable"] = attempt{"DIR: finds files of the kernel that can be opened for writing; it does not write", 1, func(a []string, o *outcome.Outcome) error {
		return found(func() ([]string, error) { return writable(a[0]) }, o)
	}}
	attempts["open-write"] = attempt{"PATH: opens it for writing, and writes nothing", 1, func(a []string, o *outcome.Outcome) error {
		f, err := os.OpenFile(a[0], os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return f.Close()
	}}
	attempts["open-read"] = attempt{"PATH: opens it, and reads nothing", 1, func(a []string, o *outcome.Outcome) error {
		f, err := os.Open(a[0])
		if err != nil {
			return err
		}
		return f.Close()
	}}
	attempts["some-of"] = attempt{"PATH: reads 64 bytes", 1, func(a []string, o *outcome.Outcome) error {
		f, err := os.Open(a[0])
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.Read(make([]byte, 64)) // a multiple of what entries of some files are
		return err
	}}
	attempts["page-map"] = attempt{": the physical address of a page of its own", 0, func(_ []string, o *outcome.Outcome) error {
		f, err := os.Open("/proc/self/pagemap")
		if err != nil {
			return err
		}
		defer f.Close()
		page := make([]byte, 1)
		entry := make([]byte, 8)
		if _, err := f.ReadAt(entry, int64(uintptr(unsafe.Pointer(&page[0]))/uintptr(os.Getpagesize())*8)); err != nil {
			return err
		}
		if frame := binary.NativeEndian.Uint64(entry) & (1<<55 - 1); frame != 0 {
			o.Detail = fmt.Sprintf("frame %#x", frame)
			return nil
		}
		return errors.New("the address is hidden")
	}}
	attempts["mode"] = attempt{"PATH OCTAL: chmod", 2, func(a []string, o *outcome.Outcome) error {
		mode, err := strconv.ParseUint(a[1], 8, 32)
		if err != nil {
			return err
		}
		return os.NewSyscallError("chmod", unix.Chmod(a[0], uint32(mode)))
	}}
	attempts["symbols"] = attempt{": addresses of the kernel's code", 0, func(_ []string, o *outcome.Outcome) error {
		f, err := os.Open("/proc/kallsyms")
		if err != nil {
			return err
		}
		defer f.Close()
		text := make([]byte, 4096)
		n, err := io.ReadFull(f, text)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text[:n])) {
			if address, _, _ := strings.Cut(line, " "); strings.Trim(address, "0") != "" {
				o.Detail = line
				return nil
			}
		}
		return errors.New("all are zero")
	}}
	attempts["kernel-log"] = attempt{": syslog(2)", 0, func(_ []string, o *outcome.Outcome) error {
		const readAll = 3 // SYSLOG_ACTION_READ_ALL
		n, err := unix.Klogctl(readAll, make([]byte, 4096))
		o.Detail = fmt.Sprint(n, " bytes")
		return os.NewSyscallError("syslog", err)
	}}
}

// found ends an attempt that looks for something: nothing found is a failure.
func found(look func() ([]string, error), o *outcome.Outcome) error {
	list, err := look()
	if err != nil {
		return err
	}
	o.Reply = strings.Join(list, "\n")
	if len(o.Reply) > 64<<10 {
		o.Reply = o.Reply[:64<<10]
	}
	if len(list) == 0 {
		return errors.New("nothing was found")
	}
	return nil
}

// others are the descriptors of all processes but this one, as paths.
func others() ([]string, error) {
	all, err := filepath.Glob("/proc/[0-9]*/fd/*")
	own := fmt.Sprintf("/proc/%d/", os.Getpid())
	return slices.DeleteFunc(all, func(p string) bool { return strings.HasPrefix(p, own) }), err
}

// ownSockets are the inodes of the sockets of its network namespace (proc_pid_net(5)): numbers that stand in the lines of each.
func ownSockets() (map[uint64]bool, error) {
	inodes := map[uint64]bool{}
	for file, column := range map[string]int{"tcp": 9, "tcp6": 9, "udp": 9, "udp6": 9, "unix": 6} {
		text, err := os.ReadFile("/proc/self/net/" + file)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) > column {
				if inode, err := strconv.ParseUint(f[column], 10, 64); err == nil {
					inodes[inode] = true
				}
			}
		}
	}
	return inodes, nil
}

// foreign looks at inherited descriptors, its own too. Pipes are streams, and a socket may be of its own network namespace; everything else has to be of a
// mount that is there, which a file of the host is not even if it has the same path.
func foreign() (list []string, err error) {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	mounts := map[uint64]bool{}
	for line := range strings.Lines(string(info)) {
		id, err := strconv.ParseUint(strings.Fields(line)[0], 10, 64)
		if err != nil {
			return nil, err
		}
		mounts[id] = true
	}
	sockets, err := ownSockets()
	if err != nil {
		return nil, err
	}
	targets := map[string]string{}
	all, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return nil, err
	}
	for _, fd := range all {
		var st unix.Statx_t
		if err := unix.Statx(unix.AT_FDCWD, fd, 0, unix.STATX_TYPE|unix.STATX_INO|unix.STATX_MNT_ID, &st); err != nil {
			continue // it is closed, or nobody's to look at
		}
		kind := st.Mode & unix.S_IFMT
		if kind == unix.S_IFSOCK && sockets[st.Ino] {
			continue
		}
		if kind != unix.S_IFIFO && kind != 0 && !mounts[st.Mnt_id] { // 0 are anonymous inodes, such as of epoll(7)
			target, _ := os.Readlink(fd)
			targets[fd] = target
			list = append(list, fmt.Sprintf("%s: %s, mode %o", fd, target, st.Mode))
		}
	}
	// What was handed over stays. A socket that a process has just made, and not bound, is in no list, and is gone soon.
	if len(list) > 0 {
		<-time.After(200 * time.Millisecond)
	}
	return slices.DeleteFunc(list, func(found string) bool {
		fd, _, _ := strings.Cut(found, ":")
		now, _ := os.Readlink(fd)
		return now != targets[fd]
	}), nil
}

// leak has the further attempt in a copy of the mounts: what was opened before is of none that it has.
func leak(a []string, _ *outcome.Outcome) error {
	runtime.LockOSThread()
	if _, err := unix.Open(a[0], unix.O_RDONLY, 0); err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	return syscall.Exec("/proc/self/exe", append([]string{"probe"}, a[1:]...), os.Environ())
}

func throughProcesses(path string) (list []string, err error) {
	fds, err := others()
	if err != nil {
		return nil, err
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var tops []string
	for _, p := range append(processes, "/proc/self", "/proc/thread-self") {
		tops = append(tops, p+"/root", p+"/cwd")
	}
	up := strings.Repeat("/..", 20)
	for _, top := range append(tops, fds...) {
		for _, p := range []string{top + path, top + up + path} {
			if text, err := os.ReadFile(p); err == nil {
				list = append(list, p+": "+string(text))
			}
		}
	}
	return list, nil
}

func environs(name string) (list []string, err error) {
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	for _, p := range processes {
		if p == fmt.Sprintf("/proc/%d", os.Getpid()) {
			continue
		}
		for _, file := range []string{"environ", "cmdline"} {
			text, err := os.ReadFile(filepath.Join(p, file))
			if err != nil {
				continue
			}
			for entry := range strings.SplitSeq(string(text), "\x00") {
				if strings.Contains(entry, name+"=") {
					list = append(list, p+": "+entry)
				}
			}
		}
	}
	return list, nil
}

func openByHandle(a []string, _ *outcome.Outcome) error {
	handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, a[0], 0)
	if err != nil {
		return fmt.Errorf("name_to_handle_at: %v", err) // which is allowed, so its errno does not count
	}
	mount, err := unix.Open(a[0], unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	fd, err := unix.OpenByHandleAt(mount, handle, unix.O_RDONLY)
	if err != nil {
		return os.NewSyscallError("open_by_handle_at", err)
	}
	return unix.Close(fd)
}

// makeNodes makes devices by which one would reach the host: its memory, messages, consoles, disks, machines.
func makeNodes(dir string) (list []string, err error) {
	for _, node := range []struct {
		kind         uint32
		major, minor uint32
	}{
		{unix.S_IFCHR, 1, 1},
		{unix.S_IFCHR, 1, 2},
		{unix.S_IFCHR, 1, 4},
		{unix.S_IFCHR, 1, 11},
		{unix.S_IFCHR, 4, 0},
		{unix.S_IFCHR, 4, 1},
		{unix.S_IFCHR, 4, 64},
		{unix.S_IFCHR, 5, 1},
		{unix.S_IFCHR, 7, 0},
		{unix.S_IFCHR, 10, 200},
		{unix.S_IFCHR, 10, 229},
		{unix.S_IFCHR, 10, 232},
		{unix.S_IFCHR, 10, 237},
		{unix.S_IFBLK, 7, 0},
		{unix.S_IFBLK, 8, 0},
		{unix.S_IFBLK, 252, 0},
		{unix.S_IFBLK, 253, 0},
		{unix.S_IFBLK, 254, 0},
		{unix.S_IFBLK, 259, 0},
	} {
		for _, p := range []string{filepath.Join(dir, "made-node"), filepath.Join("/proc/self/root", dir, "made-node")} {
			if unix.Mknod(p, node.kind|0o666, int(unix.Mkdev(node.major, node.minor))) != nil {
				continue
			}
			fd, err := unix.Open(p, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
			if err == nil {
				unix.Close(fd)
			}
			list = append(list, fmt.Sprintf("%o %d:%d is made; open: %v", node.kind, node.major, node.minor, err))
			if err := os.Remove(p); err != nil {
				return nil, err
			}
		}
	}
	return list, nil
}

// harmless are the devices that every container has.
var harmless = []string{"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts/ptmx"}

func openDevices(paths []string) (list []string, err error) {
	if len(paths) == 0 {
		err := filepath.WalkDir("/dev", func(p string, e fs.DirEntry, err error) error {
			name := strings.TrimPrefix(p, "/dev/")
			terminal, _ := filepath.Match("pts/[0-9]*", name)
			if err == nil && e.Type()&fs.ModeDevice != 0 && !slices.Contains(harmless, name) && !terminal && name != "console" {
				paths = append(paths, p)
			}
			return nil // what cannot be looked into cannot be opened
		})
		if err != nil {
			return nil, err
		}
	}
	for _, p := range paths {
		if fd, err := unix.Open(p, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0); err == nil {
			unix.Close(fd)
			list = append(list, p)
		}
	}
	return list, nil
}

// own are files of the kernel that an agent may open for writing, since what they change is its own, or what they do needs a capability that is asked for
// with the write. One of a process is its own.
var own = []string{
	"/proc/pressure/*", // triggers that tell the agent of its own stalls
	"/proc/mtrr",       // CAP_SYS_ADMIN with each write
}

func writable(dir string) (list []string, err error) {
	err = filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // nobody can open what cannot be looked into
		}
		if first, _, _ := strings.Cut(strings.TrimPrefix(p, "/proc/"), "/"); strings.HasPrefix(p, "/proc/") && (first == "self" || first == "thread-self" || strings.Trim(first, "0123456789") == "") {
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if st, err := e.Info(); err != nil || st.Mode()&0o222 == 0 {
			return nil // root can open it, and a write does nothing
		}
		isOwn := slices.ContainsFunc(own, func(pattern string) bool { ok, _ := filepath.Match(pattern, p); return ok })
		if !e.Type().IsRegular() || isOwn {
			return nil
		}
		if fd, err := unix.Open(p, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err == nil {
			var st unix.Stat_t
			if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT == unix.S_IFREG { // a null device covers it
				list = append(list, p)
			}
			unix.Close(fd)
		}
		return nil
	})
	return list, err
}
