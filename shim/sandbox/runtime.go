package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Runtime is the OCI runtime that carries a sandbox out.
type Runtime struct {
	Path    string `json:"path"`
	Name    string `json:"name"` // runc, crun, …
	Version string `json:"version"`
	Warning string `json:"warning,omitempty"` // what is known to be wrong with this version; empty: nothing
}

// Starter starts a command and returns a channel that yields how it ended, once. In a containerd shim every child is reaped by one
// wait4(-1), so os/exec's own Wait would miss it: the caller says how children are started.
type Starter func(*exec.Cmd) (exited <-chan error, err error)

// FindRuntime says which OCI runtime binary name (a name in PATH or an absolute path) is and whether it has the fixes that
// Cofferdam knows of. Asking costs a process, so the answer is cached by the binary's inode, size and time.
func FindRuntime(ctx context.Context, cache, name string, start Starter) (Runtime, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return Runtime{}, fmt.Errorf("oci runtime %q: %w", name, err)
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return Runtime{}, fmt.Errorf("oci runtime %q: %w", name, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return Runtime{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	key := fmt.Sprintf("%s %d:%d %d %d.%d", path, st.Dev, st.Ino, st.Size, st.Mtim.Sec, st.Mtim.Nsec)
	known := map[string]Runtime{}
	if b, err := os.ReadFile(cache); err == nil {
		_ = json.Unmarshal(b, &known) // a cache that does not parse is an empty cache
	}
	if r, ok := known[key]; ok {
		r.Warning = runtimeWarning(r.Name, r.Version)
		return r, nil
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.Stdout = &out
	exited, err := start(cmd)
	if err == nil {
		err = <-exited
	}
	if err != nil {
		return Runtime{}, fmt.Errorf("%s --version: %w", path, err)
	}
	r := Runtime{Path: path}
	if r.Name, r.Version, err = parseRuntimeVersion(out.String()); err != nil {
		return Runtime{}, fmt.Errorf("%s --version: %w", path, err)
	}
	if b, err := json.Marshal(map[string]Runtime{key: r}); err == nil {
		_ = writeFile(cache, b, 0o600) // not cached: asked again next time
	}
	r.Warning = runtimeWarning(r.Name, r.Version)
	return r, nil
}

// parseRuntimeVersion reads the first line of `runc --version` ("runc version 1.1.5+ds1") or `crun --version` ("crun version 1.8.1").
func parseRuntimeVersion(out string) (name, version string, err error) {
	line, _, _ := strings.Cut(out, "\n")
	f := strings.Fields(line)
	if len(f) != 3 || f[1] != "version" {
		return "", "", fmt.Errorf("unexpected first line %q", line)
	}
	return f[0], f[2], nil
}

// runtimeWarning says what is known to be wrong with an OCI runtime. A distribution may have patched an old version; that cannot be
// seen from outside, so the warning names the version and lets the administrator judge. crun is not affected by these holes
// (containers/crun#1906), and its own of 2026 need a container without a mount on /dev, which the rewriting always makes.
func runtimeWarning(name, version string) string {
	const holes = "CVE-2025-31133, CVE-2025-52565 and CVE-2025-52881 (1.2.8, 1.3.3, 1.4.0-rc.3)"
	if name != "runc" {
		return ""
	}
	v, ok := parseVersion(version)
	switch {
	case !ok:
		return fmt.Sprintf("runc %s: unknown version, cannot tell whether it has the fixes for %s", version, holes)
	case !v.fixed():
		return fmt.Sprintf("runc %s is older than the fixes for %s", version, holes)
	default:
		return ""
	}
}

// runcVersion is a release of runc. candidate is the N of "-rc.N", 0 for a final release.
type runcVersion struct{ major, minor, patch, candidate int }

func parseVersion(s string) (v runcVersion, ok bool) {
	m := regexp.MustCompile(`^(\d+)\.(\d+)\.(\d+)(?:-rc\.(\d+))?(?:[+~-].*)?$`).FindStringSubmatch(s)
	if m == nil {
		return v, false
	}
	for i, p := range []*int{&v.major, &v.minor, &v.patch, &v.candidate} {
		if m[i+1] == "" {
			continue
		}
		n, err := strconv.Atoi(m[i+1])
		if err != nil {
			return v, false
		}
		*p = n
	}
	return v, true
}

// fixed reports whether the release has the fixes: each line got them in a release of its own.
func (v runcVersion) fixed() bool {
	if v.major != 1 {
		return v.major > 1
	}
	switch v.minor {
	case 0, 1:
		return false
	case 2:
		return v.patch >= 8
	case 3:
		return v.patch >= 3
	case 4:
		return v.patch > 0 || v.candidate == 0 || v.candidate >= 3
	default:
		return true
	}
}
