package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupRoot is where all hierarchies are mounted, cgroups(7).
const cgroupRoot = "/sys/fs/cgroup"

// removeCgroup kills what is left in a cgroup that nobody owns any more, and removes it in every hierarchy: the unified one, or each of
// version 1. It knows the path alone, as in linux.cgroupsPath; empty: there is none.
func removeCgroup(path string) error {
	if path == "" {
		return nil
	}
	if !strings.HasPrefix(path, "/cofferdam/") || filepath.Clean(path) != path {
		return fmt.Errorf("cgroup %q: not one of ours", path)
	}
	var errs []error
	for _, dir := range cgroupDirs(path) {
		errs = append(errs, emptyAndRemove(dir, cgroupTries, killAll))
	}
	return errors.Join(errs...)
}

// cgroupDirs are the folders of a cgroup.
func cgroupDirs(path string) []string {
	dirs := []string{filepath.Join(cgroupRoot, path)}
	if found, err := filepath.Glob(filepath.Join(cgroupRoot, "*", path)); err == nil {
		dirs = append(dirs, found...)
	}
	return dirs
}

// removeEmptyCgroup removes a cgroup that an engine has named, which is the OCI runtime's to remove, but which a runtime that was killed
// right after it had made it does not know of. It kills nothing: a container that lives on keeps its cgroup. That of a systemd slice is
// systemd's.
func removeEmptyCgroup(path string) error {
	if !strings.HasPrefix(path, "/") || filepath.Clean(path) != path || path == "/" {
		return nil
	}
	var errs []error
	for _, dir := range cgroupDirs(path) {
		procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil || len(procs) > 0 {
			continue // there is none, or it is in use
		}
		// For a moment: what keeps it for longer is a cgroup below it, which is somebody else's.
		if err := emptyAndRemove(dir, cgroupTries/10, func(string) {}); !errors.Is(err, unix.EBUSY) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// The kernel empties a cgroup some time after it has killed its processes.
const (
	cgroupTries = 100
	cgroupPause = 10 * time.Millisecond
)

func emptyAndRemove(dir string, tries int, empty func(dir string)) (err error) {
	for range tries {
		if err = os.Remove(dir); err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		empty(dir)
		<-time.After(cgroupPause)
	}
	return err
}

// killAll kills the processes of a cgroup. One that forks meanwhile is met again where the kernel cannot do it at once.
func killAll(dir string) {
	if err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0); err == nil { // version 2, from Linux 5.14 on
		return
	}
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return
	}
	for field := range strings.FieldsSeq(string(b)) {
		var pid int
		if _, err := fmt.Sscan(field, &pid); err == nil && pid > 1 {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// HurryCgroups has the kernel do early what the first move of a process to another cgroup waits for: a grace period of RCU, some 10 ms, after
// which moves are quick for about as long. It moves this process to the cgroup that it is in, which changes nothing. It needs root, and where
// that fails nothing is lost.
func HurryCgroups() {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return
	}
	// The lock that is waited for is one of all hierarchies, so any will do; cgroups(7) says how they are called here and where they are.
	for line := range strings.Lines(string(own)) {
		field := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(field) != 3 || strings.HasPrefix(field[2], "/..") { // outside of what is seen here: the path would be another one's
			continue
		}
		dirs := []string{strings.TrimPrefix(field[1], "name=")}
		if field[1] == "" { // version 2, alone or beside version 1
			dirs = []string{"", "unified"}
		}
		for _, dir := range dirs {
			f, err := os.OpenFile(filepath.Join(cgroupRoot, dir, field[2], "cgroup.procs"), os.O_WRONLY, 0)
			if err != nil {
				continue
			}
			_, err = f.WriteString("0") // the writer
			f.Close()
			if err == nil {
				return
			}
		}
	}
}
