package ctrd

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// An Engine is a containerd that can be started.
type Engine struct {
	Name string // short: it is part of socket paths
	Dir  string // holds containerd, ctr and containerd-shim-runc-v2
}

// V2 is the version of the current engine.
const V2 = "v2.4.2"

// Installed returns the engine of the distribution.
func Installed() (Engine, error) {
	for _, bin := range []string{"containerd", "ctr", "containerd-shim-runc-v2"} {
		p, err := exec.LookPath(bin)
		if err != nil {
			return Engine{}, err
		}
		if filepath.Dir(p) != "/usr/bin" {
			return Engine{}, fmt.Errorf("%s is not the distribution's", p)
		}
	}
	return Engine{Name: "deb", Dir: "/usr/bin"}, nil
}

// Build returns the engine of a version of the module github.com/containerd/containerd/v2, and builds it below cache unless it is there.
// Runs that build at the same time wait for each other. It takes about 90 seconds and the network once.
func Build(cache, version string) (Engine, error) {
	e := Engine{Name: "v2", Dir: filepath.Join(cache, "containerd-"+version)}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return e, err
	}
	lock, err := os.OpenFile(e.Dir+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return e, err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return e, fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if _, err := os.Stat(filepath.Join(e.Dir, "containerd")); !errors.Is(err, os.ErrNotExist) {
		return e, err
	}
	unfinished, err := os.MkdirTemp(cache, "building-")
	if err != nil {
		return e, err
	}
	defer os.RemoveAll(unfinished)
	const module = "github.com/containerd/containerd/v2/cmd/"
	cmd := exec.Command("go", "install", "-trimpath", "-ldflags=-s -w", "-tags=no_btrfs no_devmapper no_zfs no_aufs",
		module+"containerd@"+version, module+"ctr@"+version, module+"containerd-shim-runc-v2@"+version)
	cmd.Env = append(os.Environ(), "GOBIN="+unfinished, "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return e, fmt.Errorf("build containerd %s: %w: %s", version, err, lines[len(lines)-1])
	}
	if err := os.Chmod(unfinished, 0o755); err != nil {
		return e, err
	}
	return e, os.Rename(unfinished, e.Dir)
}
