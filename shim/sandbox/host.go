package sandbox

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"cofferdam.dev/cofferdam/spec"
)

// controlSockets are sockets through which whoever can write to them is root, or acts as the user. A workspace must not contain
// them; a mount of one is dropped like any other host bind.
var controlSockets = []string{
	"/run/containerd/containerd.sock", "/run/containerd/containerd.sock.ttrpc", "/run/docker.sock", "/var/run/docker.sock",
	"/run/docker/containerd/containerd.sock", "/run/crio/crio.sock", "/run/podman/podman.sock", "/run/buildkit/buildkitd.sock",
	"/run/k3s/containerd/containerd.sock", "/run/dbus/system_bus_socket", "/run/systemd/private",
}

// engineDirs are where container engines keep the hosts and hostname files that they generate for one container. Snapshots and volumes,
// whose contents are containers' own, lie elsewhere or are told apart by package spec.
var engineDirs = []string{
	"/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes", "/run/containerd/io.containerd.grpc.v1.cri/sandboxes",
	"/var/lib/docker/containers", "/var/lib/nerdctl", "/var/lib/kubelet/pods", "/run/containers/storage/overlay-containers",
	"/var/lib/rancher/k3s/agent/containerd/io.containerd.grpc.v1.cri/sandboxes",
}

// credentialDirs are folders in a home that hold keys: no workspace may lie in one.
var credentialDirs = []string{
	".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".config/gcloud", ".config/gh", ".password-store", ".local/share/keyrings",
	".mozilla", ".config/google-chrome", ".config/chromium",
}

// hostFacts gathers what the rules need to know of this host. It reads /etc/passwd for the homes of people: uid 0 and those from
// 1000 up, login.defs(5).
func hostFacts(p Paths, bundle, resolvConf string) (spec.Host, error) {
	h := spec.Host{
		Bundle:     bundle,
		ResolvConf: resolvConf,
		Protected:  append(spec.DefaultProtected(), controlSockets...),
		Trees:      append(spec.DefaultTrees(), p.State, p.Pins, p.Logs, filepath.Dir(p.Config), filepath.Dir(p.Policies)),
		EngineDirs: engineDirs,
		Arch:       runtime.GOARCH,
	}
	if p.User != "" {
		h.Trees = append(h.Trees, filepath.Dir(p.User)) // an agent could write the next one's policy
	}
	homes, err := homes("/etc/passwd")
	if err != nil {
		return spec.Host{}, err
	}
	// People whom no passwd(5) lists (LDAP, systemd-homed) have their homes in the usual place.
	if more, err := filepath.Glob("/home/*"); err == nil {
		homes = append(homes, more...)
	}
	for _, home := range homes {
		h.Protected = append(h.Protected, home)
		for _, d := range credentialDirs {
			h.Trees = append(h.Trees, filepath.Join(home, d))
		}
	}
	plain := map[string]bool{"/": true}
	for _, list := range []*[]string{&h.Protected, &h.Trees, &h.EngineDirs} {
		*list = withTargets(*list, plain)
	}
	return h, nil
}

// withTargets adds to each path what it is a symbolic link to, or leads through: /var/lib/docker is often on another disk. plain remembers for the
// next call which folders are there, and are and lead through no link.
func withTargets(paths []string, plain map[string]bool) []string {
	out := slices.Clone(paths)
	for _, p := range paths {
		if isPlain(p, plain) {
			continue
		}
		if real, err := filepath.EvalSymlinks(p); err == nil && real != p {
			out = append(out, real)
		}
	}
	return out
}

// isPlain reports whether there is nothing to be found out about an absolute path: it, or what comes before the first part of it that is not there,
// leads through no symbolic link.
func isPlain(p string, plain map[string]bool) bool {
	if known, ok := plain[p]; ok {
		return known
	}
	if !filepath.IsAbs(p) || filepath.Clean(p) != p || !isPlain(filepath.Dir(p), plain) {
		return false
	}
	st, err := os.Lstat(p)
	plain[p] = errors.Is(err, fs.ErrNotExist) || err == nil && st.Mode()&fs.ModeSymlink == 0
	return plain[p]
}

// homes returns the home directories of people, as written.
func homes(passwd string) ([]string, error) {
	f, err := os.Open(passwd)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []string
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		field := strings.Split(sc.Text(), ":")
		if len(field) < 6 || !filepath.IsAbs(field[5]) {
			continue
		}
		uid, err := strconv.ParseUint(field[2], 10, 32)
		if err != nil || uid != 0 && uid < 1000 {
			continue
		}
		out = append(out, filepath.Clean(field[5]))
	}
	return out, sc.Err()
}
