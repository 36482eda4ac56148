package spec_test

import (
	"errors"
	"testing"

	"cofferdam.dev/cofferdam/spec"
)

func TestCheckWorkspace(t *testing.T) {
	h := testHost()
	for _, tt := range []struct {
		name, source string
		ok           bool
	}{
		{"a project in a home is fine", "/home/u/project", true},
		{"a folder whose name begins like a protected one is fine", "/home/u2x", true},
		{"a Docker volume is fine", "/var/lib/docker/volumes/v/_data", true},
		{"a nerdctl volume is fine", "/var/lib/nerdctl/1935db59/volumes/default/v/_data", true},
		{"a part of a pod's volume is fine", "/var/lib/kubelet/pods/1/volume-subpaths/v/agent/0", true},
		{"an emptyDir of a pod is fine", "/var/lib/kubelet/pods/1/volumes/kubernetes.io~empty-dir/ws", true},
		{"a temporary folder is fine", "/tmp/x", true},
		{"the whole host is refused", "/", false},
		{"a home is refused", "/home/u", false},
		{"a folder of homes is refused", "/home", false},
		{"all temporary files are refused", "/tmp", false},
		{"a protected tree is refused", "/etc", false},
		{"a file in a protected tree is refused", "/etc/ssl/certs", false},
		{"keys are refused", "/home/u/.ssh/id_ed25519", false},
		{"a control socket is refused", "/run/docker.sock", false},
		{"the programs of the host are refused", "/usr/bin", false},
		{"what holds a protected folder is refused", "/var", false},
		{"an engine's folder for a container is refused", "/var/lib/docker/containers/0a1b", false},
		{"a pod's folder is refused", "/var/lib/kubelet/pods/1", false},
		{"all volumes of a pod are refused", "/var/lib/kubelet/pods/1/volumes", false},
		{"what holds an engine's folder is refused", "/var/lib/containerd/io.containerd.grpc.v1.cri", false},
		{"the bundle is refused", "/run/containerd/io.containerd.runtime.v2.task/default/web-1/rootfs", false},
		{"nothing is refused", "", false},
		{"a relative path is refused", "project", false},
		{"a path that leads upwards is refused", "/home/u/project/../.ssh", false},
		{"a trailing slash is refused", "/home/u/project/", false},
		{"a path with a NUL is refused", "/home/u/project\x00", false},
		{"a path that JSON cannot carry is refused", "/home/u/\xff", false},
	} {
		err := spec.CheckWorkspace(tt.source, h)
		var r *spec.RefusedError
		if tt.ok != (err == nil) || err != nil && !errors.As(err, &r) {
			t.Errorf("%s: CheckWorkspace(%q) = %v", tt.name, tt.source, err)
		}
	}
}

func TestIncompleteHostIsAnError(t *testing.T) {
	for name, spoil := range map[string]func(*spec.Host){
		"without a bundle":           func(h *spec.Host) { h.Bundle = "" },
		"without a resolv.conf":      func(h *spec.Host) { h.ResolvConf = "" },
		"with a relative bundle":     func(h *spec.Host) { h.Bundle = "x" },
		"with a relative protected":  func(h *spec.Host) { h.Protected = []string{"home"} },
		"with an empty tree":         func(h *spec.Host) { h.Trees = []string{""} },
		"with an unclean engine dir": func(h *spec.Host) { h.EngineDirs = []string{"/var/lib/../etc"} },
	} {
		h := testHost()
		spoil(&h)
		_, _, err := spec.Rewrite(base(t), spec.Sandbox{ID: "x"}, h)
		var r *spec.RefusedError
		if err == nil || errors.As(err, &r) {
			t.Errorf("host %s: %v, want an error that does not blame the spec", name, err)
		}
	}
}
