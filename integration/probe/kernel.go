//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/integration/outcome"
)

func init() {
	attempts["route"] = attempt{"GATEWAY [LINK]: replaces the default route", 1, func(a []string, o *outcome.Outcome) error {
		link, err := outward(a[1:])
		if err != nil {
			return err
		}
		return netlink.RouteReplace(&netlink.Route{LinkIndex: link.Index, Gw: net.ParseIP(a[0]), Flags: int(netlink.FLAG_ONLINK)})
	}}
	attempts["link-down"] = attempt{"LINK", 1, func(a []string, o *outcome.Outcome) error { return setLink(a[0], netlink.LinkSetDown) }}
	attempts["link-up"] = attempt{"LINK", 1, func(a []string, o *outcome.Outcome) error { return setLink(a[0], netlink.LinkSetUp) }}
	attempts["addr-add"] = attempt{"LINK ADDR/BITS", 2, func(a []string, o *outcome.Outcome) error {
		addr, err := netlink.ParseAddr(a[1])
		if err != nil {
			return err
		}
		return setLink(a[0], func(l netlink.Link) error { return netlink.AddrReplace(l, addr) })
	}}
	attempts["link-add"] = attempt{"NAME: one end of a veth", 1, func(a []string, o *outcome.Outcome) error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: a[0]}, PeerName: a[0] + "-peer"})
	}}
	attempts["in-userns"] = attempt{"ATTEMPT...: makes it in a new user namespace, as its root", 1, func(a []string, o *outcome.Outcome) error {
		return nested(unix.CLONE_NEWUSER, a, o)
	}}
	attempts["in-userns-net"] = attempt{"ATTEMPT...: makes it in new user and network namespaces", 1, func(a []string, o *outcome.Outcome) error {
		return nested(unix.CLONE_NEWUSER|unix.CLONE_NEWNET, a, o)
	}}
	attempts["unshare"] = attempt{"FLAGS: a number for unshare(2), on a thread", 1, func(a []string, o *outcome.Outcome) error {
		var flags int
		if _, err := fmt.Sscan(a[0], &flags); err != nil {
			return err
		}
		runtime.LockOSThread()
		return os.NewSyscallError("unshare", unix.Unshare(flags))
	}}
	attempts["clone3-userns"] = attempt{": clone3 with CLONE_NEWUSER", 0, func(_ []string, o *outcome.Outcome) error {
		args := struct{ flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls uint64 }{flags: unix.CLONE_NEWUSER, exitSignal: uint64(unix.SIGCHLD)}
		pid, _, errno := unix.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args), 0)
		if errno == 0 && pid == 0 {
			unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
		return did(errno)
	}}
	attempts["io-uring"] = attempt{": io_uring_setup", 0, func(_ []string, o *outcome.Outcome) error {
		var params [120]byte // struct io_uring_params
		_, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&params)), 0)
		return did(errno)
	}}
	attempts["keyctl"] = attempt{": the user's keyring", 0, func(_ []string, o *outcome.Outcome) error {
		_, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_USER_KEYRING, true)
		return err
	}}
	attempts["bpf"] = attempt{": creates a map", 0, func(_ []string, o *outcome.Outcome) error {
		attr := [32]uint32{2, 4, 4, 1} // BPF_MAP_TYPE_ARRAY, key, value, entries
		_, _, errno := unix.Syscall(unix.SYS_BPF, 0, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
		return did(errno)
	}}
	attempts["userfaultfd"] = attempt{"", 0, func(_ []string, o *outcome.Outcome) error {
		_, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, 0, 0, 0)
		return did(errno)
	}}
	attempts["perf"] = attempt{": perf_event_open", 0, func(_ []string, o *outcome.Outcome) error {
		_, err := unix.PerfEventOpen(&unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Size: unix.PERF_ATTR_SIZE_VER0}, -1, 0, -1, 0)
		return err
	}}
	attempts["type-ahead"] = attempt{"BITS: puts a byte into the input of a terminal of its own; the request has these bits above the lower 32", 1, func(a []string, o *outcome.Outcome) error {
		var bits uint64
		if _, err := fmt.Sscan(a[0], &bits); err != nil {
			return err
		}
		terminal, err := ownTerminal()
		if err != nil {
			return fmt.Errorf("make a terminal: %v", err) // which is allowed, so its errno does not count
		}
		input := byte('x')
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(terminal), uintptr(bits<<32|unix.TIOCSTI), uintptr(unsafe.Pointer(&input)))
		return did(errno)
	}}
	attempts["mount"] = attempt{"TYPE SOURCE DIR", 3, func(a []string, o *outcome.Outcome) error {
		return os.NewSyscallError("mount", unix.Mount(a[1], a[2], a[0], 0, ""))
	}}
	attempts["remount"] = attempt{"DIR: read-write", 1, func(a []string, o *outcome.Outcome) error {
		return os.NewSyscallError("mount", unix.Mount("", a[0], "", unix.MS_REMOUNT|unix.MS_BIND, ""))
	}}
	attempts["umount"] = attempt{"DIR", 1, func(a []string, o *outcome.Outcome) error {
		return os.NewSyscallError("umount2", unix.Unmount(a[0], unix.MNT_DETACH))
	}}
	attempts["mknod"] = attempt{"PATH b|c MAJOR MINOR: makes a device and opens it", 4, func(a []string, o *outcome.Outcome) error {
		var major, minor uint32
		if _, err := fmt.Sscan(a[2]+" "+a[3], &major, &minor); err != nil {
			return err
		}
		kind := map[string]uint32{"b": unix.S_IFBLK, "c": unix.S_IFCHR}[a[1]]
		if err := unix.Mknod(a[0], kind|0o600, int(unix.Mkdev(major, minor))); err != nil {
			return os.NewSyscallError("mknod", err)
		}
		f, err := os.Open(a[0])
		if err != nil {
			return err
		}
		return f.Close()
	}}
	attempts["read"] = attempt{"PATH: a file or a folder", 1, func(a []string, o *outcome.Outcome) error {
		info, err := os.Stat(a[0])
		if err != nil {
			return err
		}
		if info.IsDir() {
			list, err := os.ReadDir(a[0])
			for _, e := range list {
				o.Reply += e.Name() + " "
			}
			return err
		}
		f, err := os.Open(a[0])
		if err != nil {
			return err
		}
		defer f.Close()
		buf := make([]byte, 64<<10)
		n, err := f.Read(buf)
		o.Reply = string(buf[:n])
		if n == 0 {
			return err
		}
		return nil
	}}
	attempts["write"] = attempt{"PATH VALUE: also a sysctl", 2, func(a []string, o *outcome.Outcome) error {
		f, err := os.OpenFile(a[0], os.O_WRONLY|os.O_CREATE, 0o644)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteString(a[1])
		return err
	}}
	attempts["remove"] = attempt{"PATH", 1, func(a []string, o *outcome.Outcome) error { return os.Remove(a[0]) }}
	attempts["rename"] = attempt{"FROM TO", 2, func(a []string, o *outcome.Outcome) error { return os.Rename(a[0], a[1]) }}
	attempts["processes"] = attempt{": Reply has their command lines", 0, func(_ []string, o *outcome.Outcome) error {
		files, err := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, f := range files {
			cmd, _ := os.ReadFile(f) // it may have ended
			o.Reply += strings.Split(f, "/")[2] + " " + strings.TrimSpace(string(bytes.ReplaceAll(cmd, []byte{0}, []byte{' '}))) + "\n"
		}
		return err
	}}
	attempts["mounts"] = attempt{": Reply is mountinfo", 0, func(_ []string, o *outcome.Outcome) error {
		data, err := os.ReadFile("/proc/self/mountinfo")
		o.Reply = string(data)
		return err
	}}
	attempts["status"] = attempt{": Reply is the process's status, with capabilities and seccomp", 0, func(_ []string, o *outcome.Outcome) error {
		data, err := os.ReadFile("/proc/self/status")
		o.Reply = string(data)
		return err
	}}
	attempts["environ"] = attempt{": Reply is the environment", 0, func(_ []string, o *outcome.Outcome) error {
		o.Reply = strings.Join(os.Environ(), "\n")
		return nil
	}}
	attempts["setns"] = attempt{"PATH: of a network namespace", 1, func(a []string, o *outcome.Outcome) error {
		f, err := os.Open(a[0])
		if err != nil {
			return err
		}
		defer f.Close()
		before, _ := os.Readlink("/proc/thread-self/ns/net")
		to, _ := os.Readlink(a[0])
		runtime.LockOSThread()
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("setns", err)
		}
		o.Detail = before + " to " + to
		return nil
	}}
	attempts["setuid-exec"] = attempt{"PATH: of a setuid copy of the probe; OK if it is root although the caller is not", 1, func(a []string, o *outcome.Outcome) error {
		cmd := exec.Command(a[0], "euid")
		if os.Geteuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000, NoSetGroups: true}}
		}
		return child(cmd, o)
	}}
	attempts["euid"] = attempt{": OK if it is 0", 0, func(_ []string, o *outcome.Outcome) error {
		o.Detail = fmt.Sprintf("euid %d, uid %d", os.Geteuid(), os.Getuid())
		if os.Geteuid() != 0 {
			return unix.EPERM
		}
		return nil
	}}
	attempts["ptrace"] = attempt{"PID: attaches", 1, func(a []string, o *outcome.Outcome) error {
		var pid int
		if _, err := fmt.Sscan(a[0], &pid); err != nil {
			return err
		}
		runtime.LockOSThread()
		if err := unix.PtraceAttach(pid); err != nil {
			return os.NewSyscallError("ptrace", err)
		}
		return unix.PtraceDetach(pid)
	}}
}

func setLink(name string, do func(netlink.Link) error) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return do(link)
}

// nested makes another attempt in new namespaces. Its outcome is this one's.
func nested(flags uintptr, a []string, o *outcome.Outcome) error {
	cmd := exec.Command("/proc/self/exe", a...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  flags,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	return child(cmd, o)
}

// child runs the probe anew and takes over what it says.
func child(cmd *exec.Cmd, o *outcome.Outcome) error {
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return err
	}
	inner, err := outcome.Parse(out)
	if err != nil {
		return err
	}
	o.Connected, o.Errno, o.Detail, o.Reply = inner.Connected, inner.Errno, inner.Detail, inner.Reply
	if !inner.OK {
		return errors.New("the nested attempt was refused")
	}
	return nil
}

// ownTerminal makes a pseudoterminal, which becomes the controlling one of this process, and returns the side of the programs.
func ownTerminal() (fd int, err error) {
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return -1, err
	}
	number, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err != nil {
		return -1, err
	}
	unix.Setsid() // fails where the process leads a session already, which is just as good
	return unix.Open(fmt.Sprintf("/dev/pts/%d", number), unix.O_RDWR|unix.O_CLOEXEC, 0)
}
