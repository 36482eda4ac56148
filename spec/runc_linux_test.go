//go:build linux && cgo

package spec_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/cgroups"
	_ "github.com/opencontainers/cgroups/devices" // libcontainer refuses device rules without it
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/configs/validate"
	"github.com/opencontainers/runc/libcontainer/specconv"

	"cofferdam.dev/cofferdam/spec"
)

// runc accepts every rewritten spec and understands it as meant.
//
// SetupSeccomp, which converts the profile, is pure in a build without the seccomp tag, which libseccomp's headers would be
// needed for; nothing is loaded into the kernel here.
func TestRuncUnderstandsRewrittenSpecs(t *testing.T) {
	for _, g := range goldens(t) {
		s, sb, err := g.input(t)
		if err != nil {
			continue
		}
		out, _, err := spec.Rewrite(s, sb, testHost())
		if err != nil {
			continue
		}
		t.Run(filepath.Base(g.path), func(t *testing.T) {
			if _, err := os.Stat("/sys/fs/selinux/enforce"); err != nil {
				out.Process.SelinuxLabel, out.Linux.MountLabel = "", "" // which runc refuses without SELinux
			}
			if !cgroups.IsCgroup2UnifiedMode() {
				out.Linux.Resources.Unified = nil // which runc refuses on cgroup v1
			}
			root := t.TempDir()
			out.Root.Path = root
			conf, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{
				CgroupName: "web-1", Spec: out, UseSystemdCgroup: strings.Contains(out.Linux.CgroupsPath, ":"),
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := validate.Validate(conf); err != nil {
				t.Fatal(err)
			}
			if !conf.Namespaces.IsPrivate(configs.NEWNET) {
				t.Error("network namespace is not private")
			}
			if len(conf.NetDevices) > 0 || len(conf.Networks) != 1 || conf.Networks[0].Type != "loopback" {
				t.Errorf("networks %v, devices %v: want lo alone", conf.Networks, conf.NetDevices)
			}
			if !slices.Contains(conf.MaskPaths, "/proc/kcore") || !slices.Contains(conf.ReadonlyPaths, "/proc/sys") {
				t.Errorf("masked %v, read-only %v", conf.MaskPaths, conf.ReadonlyPaths)
			}
			if !conf.NoNewPrivileges || conf.Seccomp == nil || conf.Seccomp.DefaultAction != configs.Errno {
				t.Errorf("no_new_privs %v, seccomp %v", conf.NoNewPrivileges, conf.Seccomp)
			}
			for _, m := range conf.Mounts {
				if m.IsBind() && !slices.ContainsFunc(sb.Files, func(f spec.FileRule) bool { return f.Source == m.Source }) &&
					!slices.Contains([]string{"/etc/resolv.conf", "/etc/hosts", "/etc/hostname"}, m.Destination) {
					t.Errorf("bind of %s at %s", m.Source, m.Destination)
				}
				if m.IsBind() && m.Data != "" {
					t.Errorf("mount %s: data %q", m.Destination, m.Data)
				}
			}
			for _, d := range conf.Cgroups.Resources.Devices {
				// runc appends its own: mknod of anything (CAP_MKNOD is missing), and /dev/net/tun (CAP_NET_ADMIN is).
				if d.Allow && d.Major == -1 && d.Permissions != "m" {
					t.Errorf("device rule %+v", d)
				}
			}
		})
	}
}
