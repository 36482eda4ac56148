package broker

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/proxy/confine/syscalls/load"
	"cofferdam.dev/cofferdam/shim/workspace"
)

// serving is the argument by which the second step knows that it is one.
const serving = "serving"

// Main is the process, described by [Command]. It returns an error or ends with the Control.
//
// It takes two steps, since a Go process has several threads, and namespaces and capabilities are a thread's. In the first the calling
// thread enters a copy of the sandbox's mounts, makes the workspaces writable in it, and gives up what is not needed any more; then
// it executes itself once more, and all threads of the second step are as that one thread was. The caller calls it from main on the first
// thread, which an init function has locked.
func Main(args []string) error {
	if len(args) == 4 && args[2] == serving {
		trees, err := strconv.Atoi(args[3])
		if err != nil {
			return err
		}
		return serveSandbox(trees)
	}
	if len(args) != 4 {
		return errors.New("it is started by cofferdam, never by hand")
	}
	keep, err := strconv.ParseUint(args[2], 16, 64)
	if err != nil {
		return err
	}
	trees, err := strconv.Atoi(args[3])
	if err != nil || trees < 1 || trees > maxTrees {
		return errors.New("malformed arguments")
	}
	return enter(args[1], keep, trees)
}

// enter is the first step.
func enter(sandbox string, keep uint64, trees int) error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("set not dumpable: %w", err)
	}
	config, err := readConfig()
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	if len(config.Below) != trees {
		return errors.New("read configuration: it is about other workspaces")
	}
	self, err := unix.Open("/proc/self/exe", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open own program: %w", err)
	}
	proc, err := openProc()
	if err != nil {
		return fmt.Errorf("open /proc: %w", err)
	}
	var clones []clone
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"leave the common root folder", func() error { return unix.Unshare(unix.CLONE_FS) }},
		{"enter the sandbox's mounts", func() error { return unix.Setns(fdMounts, unix.CLONE_NEWNS) }},
		{"make the workspaces writable", func() (err error) { clones, err = cloneTrees(proc, trees); return err }},
		{"copy the sandbox's mounts", func() error { return unix.Unshare(unix.CLONE_NEWNS) }},
		{"keep the mounts private", func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") }},
		{"put the workspaces in their places", func() error { return placeTrees(clones) }},
		{"make what is mounted in the workspaces writable", func() error { return openBelow(config.Below) }},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	if err := unix.Dup3(proc, fdMounts, 0); err != nil {
		return fmt.Errorf("keep /proc: %w", err)
	}
	for fd := fdControl; fd < fdTrees+2*trees; fd++ {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return fmt.Errorf("keep descriptor %d: %w", fd, err)
		}
	}
	if err := bound(keep); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	// The Go runtime's watcher of threads, which sleeps for 20 microseconds at a time while threads are in system calls for that long, as those
	// here always are, is to sleep for longer: it would wake and wait for other threads at each of them.
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, timerSlack, 0, 0, 0); err != nil {
		return fmt.Errorf("set timer slack: %w", err)
	}
	return fmt.Errorf("execute itself: %w", execveat(self, []string{"cofferdam-broker", sandbox, serving, strconv.Itoa(trees)}, os.Environ()))
}

// timerSlack is in nanoseconds (PR_SET_TIMERSLACK); it holds for all threads after execve(2).
const timerSlack = 5e6

// openProc opens /proc as this process's PID namespace has it, without all that is about the host and not about processes, where the
// kernel lets us make one of our own.
func openProc() (int, error) {
	fs, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err == nil {
		defer unix.Close(fs)
		if err = unix.FsconfigSetString(fs, "subset", "pid"); err == nil {
			if err = unix.FsconfigCreate(fs); err == nil {
				var fd int
				if fd, err = unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC); err == nil {
					return fd, nil
				}
			}
		}
	}
	if !errors.Is(err, unix.EPERM) {
		return -1, err
	}
	// In a user namespace: this process has no right over the host then.
	return unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

var writable = unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}

// A clone is a writable copy of a workspace's mount, and where the original is.
type clone struct {
	fd int
	at string
}

// cloneTrees comes before the copy of all mounts: in one for another user namespace than the sandbox's, read-only mounts stay so
// (mount_namespaces(7)).
func cloneTrees(proc, trees int) (all []clone, err error) {
	for fd := fdTrees; fd < fdTrees+trees; fd++ {
		var c clone
		if c.at, err = pathOf(proc, fd); err != nil {
			return nil, err
		}
		if c.fd, err = unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE); err != nil {
			return nil, err
		}
		if err := unix.MountSetattr(c.fd, "", unix.AT_EMPTY_PATH, &writable); err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

// placeTrees mounts the clones over their originals, and gives them the originals' descriptors. Should the agent have renamed a folder above one
// meanwhile, it lies elsewhere in this copy, and is the same folder still.
func placeTrees(all []clone) error {
	for i, c := range all {
		if err := unix.MoveMount(c.fd, "", unix.AT_FDCWD, c.at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return err
		}
		if err := unix.Dup3(c.fd, fdTrees+i, 0); err != nil {
			return err
		}
	}
	return nil
}

// openBelow makes mounts in the workspaces writable. They are mounts of this copy now, or there is no right over them. What is not there any more, or what the
// kernel keeps read-only in this user namespace, stays as it is.
func openBelow(all [][]string) error {
	for i, names := range all {
		for _, name := range names {
			fd, err := unix.Openat2(fdTrees+i, name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: resolve})
			if err != nil {
				continue
			}
			err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &writable)
			unix.Close(fd)
			if err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EINVAL) {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}

// bound takes capabilities out of the set that execve(2) gives to root.
func bound(keep uint64) error {
	for n := range uintptr(64) {
		if keep&(1<<n) != 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, n, 0, 0, 0); errors.Is(err, unix.EINVAL) {
			return nil // there are no more
		} else if err != nil {
			return err
		}
	}
	return nil
}

func execveat(fd int, args, env []string) error {
	argv, err := pointers(args)
	if err != nil {
		return err
	}
	envv, err := pointers(env)
	if err != nil {
		return err
	}
	empty, err := unix.BytePtrFromString("")
	if err != nil {
		return err
	}
	_, _, errno := unix.RawSyscall6(unix.SYS_EXECVEAT, uintptr(fd), uintptr(unsafe.Pointer(empty)), uintptr(unsafe.Pointer(&argv[0])),
		uintptr(unsafe.Pointer(&envv[0])), unix.AT_EMPTY_PATH, 0)
	return errno
}

func pointers(list []string) ([]*byte, error) {
	var out []*byte
	for _, s := range list {
		p, err := unix.BytePtrFromString(s)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return append(out, nil), nil
}

// serveSandbox is the second step.
func serveSandbox(trees int) error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("set not dumpable: %w", err)
	}
	if err := unix.CloseRange(3, 1<<32-1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close files on exec: %w", err)
	}
	unix.Umask(0) // modes are masked with the caller's
	config, err := readConfig()
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	unix.Close(fdConfig)
	b := &broker{proc: fdMounts, oneID: config.OneID, report: newRecorder()}
	if err := b.know(); err != nil {
		return fmt.Errorf("read /proc/self: %w", err)
	}
	for fd := fdTrees; fd < fdTrees+trees; fd++ {
		at, err := pathOf(b.proc, fd)
		if err != nil {
			return err
		}
		judge, err := workspace.NewJudge(config.Rules)
		if err != nil {
			return err
		}
		t := &tree{at: at, fd: fd, judge: judge}
		if err := t.learn(b.proc); err != nil {
			return fmt.Errorf("workspace %s: %w", at, err)
		}
		b.trees = append(b.trees, t)
		if err := b.names.share(fd + trees); err != nil {
			return fmt.Errorf("workspace %s: %w", at, err)
		}
	}
	b.aliases.trees = b.trees
	if b.mounts, err = b.writable(); err != nil {
		return fmt.Errorf("read mounts: %w", err)
	}
	opened := make(chan os.Signal, 1) // what there is a lease on
	signal.Notify(opened, unix.SIGIO)
	go b.yield(opened)
	program, err := filter(os.Getpid()).Program()
	if err == nil {
		err = load.Filter(program)
	}
	if err != nil {
		return fmt.Errorf("restrict system calls: %w", err)
	}
	return b.obey(fdControl)
}

// know reads this process's own credentials.
func (b *broker) know() error {
	self, err := unix.Openat(b.proc, "self", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(self)
	status, err := unix.Openat(self, "status", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(status)
	b.own, err = (&caller{status: status}).credentials(make([]byte, maxStatus))
	return err
}

func readConfig() (c Config, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(fdConfig, &st); err != nil {
		return c, err
	}
	text := make([]byte, st.Size)
	if _, err := unix.Pread(fdConfig, text, 0); err != nil {
		return c, err
	}
	return c, json.Unmarshal(text, &c)
}

// threads is how many calls of one process and what it starts are answered side by side.
func threads() int { return min(runtime.GOMAXPROCS(0), 4) }

// obey does what comes over the control socket, until its end.
func (b *broker) obey(socket int) error {
	for {
		message, oob := make([]byte, 1), make([]byte, 32)
		n, m, _, _, err := unix.Recvmsg(socket, message, oob, unix.MSG_CMSG_CLOEXEC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("receive: %w", err)
		case n == 0:
			b.settleAll(false)
			return nil
		}
		switch message[0] {
		case sayListener:
			f, err := received(oob[:m])
			if err != nil { // there is no room for it: calls of those processes fail, and of no others
				fmt.Fprintln(os.Stderr, "cofferdam-broker: a listener:", err)
				continue
			}
			go func() { // ends with the last process under that filter
				if err := b.serve(listener(f.Fd()), threads()); err != nil {
					fmt.Fprintln(os.Stderr, "cofferdam-broker: a listener:", err)
					os.Exit(1) // or calls would wait for good
				}
				f.Close()
			}()
		case sayReport:
			if err := b.reply(socket); err != nil {
				return err
			}
		default:
			return errors.New("receive: malformed message")
		}
	}
}

func (b *broker) reply(socket int) error {
	b.settleAll(false)
	f, err := memoryFile("broker-report", b.report.read())
	if err != nil {
		return err
	}
	defer f.Close()
	return os.NewSyscallError("reply", unix.Sendmsg(socket, []byte{sayReport}, unix.UnixRights(int(f.Fd())), nil, unix.MSG_NOSIGNAL))
}
