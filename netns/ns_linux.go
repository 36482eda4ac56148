package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/netns/fault"
)

// ownNet is the network namespace of the thread that opens it.
const ownNet = "/proc/thread-self/ns/net"

var errGoexit = errors.New("namespace work ended its goroutine")

// Do runs f in the network namespace ns, on an OS thread of its own choosing
// that runs nothing else meanwhile, and returns f's error. f must not start
// goroutines or resolve names: those run on other threads. Sockets that f
// opens stay in ns for life. Do may be called from many goroutines.
func Do(ns *os.File, f func() error) error {
	return onThread(func() error {
		if err := Enter(ns); err != nil {
			return err
		}
		return f()
	})
}

// Enter moves the calling thread into ns, for good: it must be locked, and end
// with its goroutine. Where the caller's own namespace belongs to a user
// namespace above there is no way back (setns(2)).
func Enter(ns *os.File) error {
	defer runtime.KeepAlive(ns)
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", ns.Name(), err)
	}
	return nil
}

// onThread runs f on a locked thread, which f may move to another network
// namespace, and brings the thread home afterwards. A thread that cannot be
// brought home is given up: the runtime ends it with its goroutine.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := unix.Open(ownNet, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("open %s: %w", ownNet, err)
			return
		}
		err = errGoexit // until f has returned: testing's FailNow ends the goroutine instead
		defer func() {
			if unix.Setns(home, unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
			_ = unix.Close(home)
			done <- err
		}()
		err = f()
	}()
	return <-done
}

// errNotNS says that a pin is a plain file: what is left when its maker died
// before the mount, or when someone unmounted it.
var errNotNS = errors.New("not a network namespace")

// openPin opens a pinned namespace.
func openPin(path string) (*os.File, error) {
	// O_NONBLOCK and O_NOFOLLOW: whatever lies there, it is neither waited for nor followed.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open gate", Path: path, Err: err}
	}
	if kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE); err != nil || kind != unix.CLONE_NEWNET {
		_ = unix.Close(fd)
		return nil, &os.PathError{Op: "open gate", Path: path, Err: errNotNS}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// dropPin unmounts and removes a pin. It succeeds if there is none.
func dropPin(path string) error {
	// Once for the pin, and again until nothing is mounted there any more.
	for {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break
		}
		if err != nil {
			return fmt.Errorf("unmount gate %s: %w", path, err)
		}
	}
	if err := fault.Point("teardown", "file to pin the gate at"); err != nil {
		return err
	}
	if err := unix.Unlink(path); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove gate %s: %w", path, err)
	}
	return nil
}

// apply writes the settings into the network namespace of the calling thread:
// /proc/sys/net shows that of the thread which opens a file in it.
func (s Sysctls) apply() error {
	for _, c := range s {
		err := c.write()
		if c.Optional && errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return fmt.Errorf("set sysctl %s=%s: %w", c.Key, c.Value, err)
		}
	}
	return nil
}

func (c Sysctl) write() error {
	fd, err := unix.Open(c.path(), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte(c.Value))
	_ = unix.Close(fd)
	return err
}
