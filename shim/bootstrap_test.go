package shim

import (
	"bytes"
	"context"
	"os"
	"testing"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	cshim "github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

func marshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func anyOf(t *testing.T, v any) *anypb.Any {
	t.Helper()
	a, err := typeurl.MarshalAnyToProto(v)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestModern(t *testing.T) {
	flags := startFlags{namespace: "default", id: "web-1"}
	tests := []struct {
		name string
		in   []byte
		want bool
	}{
		{
			"containerd 2.3 and later: parameters that agree with the command line",
			marshal(t, &bootapi.BootstrapParams{InstanceID: "web-1", Namespace: "default"}), true,
		},
		{"containerd up to 2.2 without options: nothing", nil, false},
		{"containerd up to 2.2 with options, which parse as parameters", marshal(t, anyOf(t, &runcoptions.Options{BinaryName: "crun"})), false},
		{"parameters of another container", marshal(t, &bootapi.BootstrapParams{InstanceID: "web-2", Namespace: "default"}), false},
		{"parameters of another namespace", marshal(t, &bootapi.BootstrapParams{InstanceID: "web-1", Namespace: "k8s.io"}), false},
		{"garbage", []byte("\xff\xff\xff"), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := modern(tt.in, flags); got != tt.want {
				t.Errorf("modern is %v, want %v", got, tt.want)
			}
		})
	}
	if modern(marshal(t, &bootapi.BootstrapParams{}), startFlags{}) {
		t.Error("empty parameters and an empty command line must not agree")
	}
}

// startOnly is a shim that records how it was started.
type startOnly struct {
	cshim.Shim
	got *bootapi.BootstrapParams
}

func (s *startOnly) Start(_ context.Context, p *bootapi.BootstrapParams) (*bootapi.BootstrapResult, error) {
	s.got = p
	return &bootapi.BootstrapResult{Version: 3, Protocol: "ttrpc", Address: "unix:///run/s"}, nil
}

func TestStartLegacyAnswersWithTheBareAddressAndKeepsIt(t *testing.T) {
	t.Chdir(t.TempDir())
	f, err := parseStartFlags([]string{"-namespace", "default", "-address", "/run/c.sock", "-publish-binary", "/usr/bin/containerd", "-id", "web-1", "-debug", "start"})
	if err != nil || f.action != "start" {
		t.Fatalf("flags %+v, %v", f, err)
	}
	var (
		s      startOnly
		stdout bytes.Buffer
	)
	in := marshal(t, anyOf(t, &runcoptions.Options{ShimCgroup: "/shims"}))
	if err := startLegacy(t.Context(), &s, f, in, "/run/c.sock.ttrpc", &stdout); err != nil {
		t.Fatal(err)
	}
	if got := stdout.String(); got != "unix:///run/s" {
		t.Errorf("stdout %q, want the bare address: containerd 1.6 takes every byte of it", got)
	}
	if b, err := os.ReadFile("address"); err != nil || string(b) != "unix:///run/s" {
		t.Errorf("address file %q, %v", b, err)
	}
	want := &bootapi.BootstrapParams{
		InstanceID: "web-1", Namespace: "default", LogLevel: bootapi.LogLevel_LOG_LEVEL_DEBUG,
		ContainerdGrpcAddress: "/run/c.sock", ContainerdTtrpcAddress: "/run/c.sock.ttrpc", ContainerdBinary: "/usr/bin/containerd",
	}
	if err := want.AddExtension(&runcoptions.Options{ShimCgroup: "/shims"}); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(s.got, want) {
		t.Errorf("started with %v, want %v", s.got, want)
	}
	if err := startLegacy(t.Context(), &s, startFlags{id: "web-1"}, nil, "", &stdout); err == nil {
		t.Error("a start without a namespace must fail")
	}
}

func TestReadOptions(t *testing.T) {
	tests := []struct {
		name           string
		in             *anypb.Any
		binary, config string
		refused        bool
	}{
		{"none", nil, "", "", false},
		{"an empty any", &anypb.Any{}, "", "", false},
		{"runc's own", anyOf(t, &runcoptions.Options{BinaryName: "crun"}), "crun", "", false},
		{"a configuration file", anyOf(t, &runtimeoptions.Options{TypeUrl: "x", ConfigPath: "/etc/cofferdam/k8s.yaml"}), "", "/etc/cofferdam/k8s.yaml", false},
		{"a relative configuration file", anyOf(t, &runtimeoptions.Options{ConfigPath: "k8s.yaml"}), "", "", true},
		{"an inline configuration", anyOf(t, &runtimeoptions.Options{ConfigBody: []byte("BinaryName='crun'")}), "", "", true},
		{"no pivot_root", anyOf(t, &runcoptions.Options{NoPivotRoot: true}), "", "", true},
		{"no new keyring", anyOf(t, &runcoptions.Options{NoNewKeyring: true}), "", "", true},
		{"containerd 1.6's, for a user namespace: io_uid 100000", &anypb.Any{TypeUrl: legacyOptions, Value: []byte{0x50, 0xa0, 0x8d, 0x06}}, "", "", false},
		{"containerd 1.6's with no_pivot_root", &anypb.Any{TypeUrl: legacyOptions, Value: []byte{0x08, 1}}, "", "", true},
		{"containerd 1.6's with a field that nobody knows", &anypb.Any{TypeUrl: legacyOptions, Value: []byte{0x78, 1}}, "", "", true},
		{"containerd 1.6's, torn", &anypb.Any{TypeUrl: legacyOptions, Value: []byte{0x50}}, "", "", true},
		{"another known type", anyOf(t, &bootapi.BootstrapParams{InstanceID: "x"}), "", "", true},
		{"an unknown type", &anypb.Any{TypeUrl: "nobody.knows.This", Value: []byte{8, 1}}, "", "", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o, err := readOptions(tt.in)
			if (err != nil) != tt.refused {
				t.Fatalf("error %v, want one: %v", err, tt.refused)
			}
			if err == nil && (o.runc.BinaryName != tt.binary || o.config != tt.config) {
				t.Errorf("got binary %q and config %q, want %q and %q", o.runc.BinaryName, o.config, tt.binary, tt.config)
			}
		})
	}
}

func TestOnlyFifosAreStreams(t *testing.T) {
	if err := checkStdio("", "/run/containerd/fifo/1/a-stdout", "fifo:///run/containerd/fifo/1/a-stderr"); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"file:///workspace/agent.log", "binary:///workspace/logger?x=y", "npipe://x", "FILE:///x", "http://[::1"} {
		if err := checkStdio("", bad); err == nil {
			t.Errorf("%s: accepted", bad)
		}
	}
}

func TestSystemdCgroup(t *testing.T) {
	for path, want := range map[string]bool{
		"":                            false,
		"/default/web-1":              false,
		"system.slice:cofferdam:web1": true,
		":docker:abc":                 true,
		"kubepods-burstable-pod1.slice:cri-containerd:abc": true,
		"/a:b:c": false,
		"a:b":    false,
	} {
		if got := systemdCgroup(path); got != want {
			t.Errorf("systemdCgroup(%q) is %v, want %v", path, got, want)
		}
	}
}
