//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
)

const module = "cofferdam.dev/cofferdam/"

// edges are the dependency directions of the design, section 7: no package below one of from may depend, however indirectly, on one of to.
var edges = []struct{ from, to, why string }{
	{"spec", module + "netns", "the leaves do not know each other: a description names no mechanism"},
	{"spec", module + "proxy", "the leaves do not know each other: a policy is a name to spec"},
	{"spec", module + "shim", "a leaf does not know who uses it"},
	{"netns", module + "spec", "the leaves do not know each other: a network does not depend on what runs in it"},
	{"netns", module + "proxy", "the leaves do not know each other: the proxy gets its listeners as files"},
	{"netns", module + "shim", "a leaf does not know who uses it"},
	{"proxy", module + "spec", "the leaves do not know each other: the proxy serves macOS too, where there is no container"},
	{"proxy", module + "netns", "the leaves do not know each other: the proxy has no privileges to make a network with"},
	{"proxy", module + "shim", "a leaf does not know who uses it"},

	{"spec", "github.com/containerd", "only the shim talks to containerd"},
	{"netns", "github.com/containerd", "only the shim talks to containerd"},
	{"proxy", "github.com/containerd", "only the shim talks to containerd"},
	{"shim/sandbox", "github.com/containerd/containerd", "sandboxes are made without a daemon too"},
	{"cmd/cofferdam", "github.com/containerd/containerd", "the command line needs no daemon, and starts at once"},
	{"cmd/cofferdam-init", "fmt", "it is started with every agent and stays as long: what it imports is their start time and memory"},
	{"cmd/cofferdam-init", "os", "it is started with every agent and stays as long: what it imports is their start time and memory"},
	{"cmd/cofferdam-init", module + "spec", "it is told what to do, and decides nothing"},
	{"shim/runner/seccomp", "github.com/landlock-lsm", "filters are for agents too, who have walls of other kinds"},
	{"cmd/cofferdam-proxy", "github.com/containerd", "the proxy is started for every sandbox: its import graph is its start time"},

	{"spec", "github.com/vishvananda", "only netns configures links"},
	{"proxy", "github.com/vishvananda", "only netns configures links"},
	{"spec", "github.com/google/nftables", "only netns configures packet filters"},
	{"proxy", "github.com/google/nftables", "only netns configures packet filters"},

	{"spec", "os/exec", "spec imports nothing that runs"},
	{"spec", "net/http", "spec imports nothing that runs"},
	{"spec", "github.com/sirupsen/logrus", "spec returns its reasons"},
	{"proxy/policy", "github.com/sirupsen/logrus", "a policy returns its reasons"},
	{"proxy/process", "net/http", "the shim imports it to start proxies, and should stay small"},
	{"proxy/process", module + "proxy/confine", "the shim imports it to start proxies, and has no use for walls around itself"},
}

func TestDependencyDirections(t *testing.T) {
	var out, stderr bytes.Buffer
	list := exec.Command("go", "list", "-json=ImportPath,Deps", module+"...")
	list.Stdout, list.Stderr = &out, &stderr
	if err := list.Run(); err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	deps := map[string][]string{}
	for d := json.NewDecoder(&out); d.More(); {
		var p struct {
			ImportPath string
			Deps       []string
		}
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		deps[p.ImportPath] = p.Deps
	}
	for _, e := range edges {
		checked := 0
		for pkg, list := range deps {
			// A command is one package; below the others count their subpackages too.
			if pkg != module+e.from && (strings.HasPrefix(e.from, "cmd/") || !strings.HasPrefix(pkg, module+e.from+"/")) {
				continue
			}
			checked++
			for _, dep := range list {
				if dep == e.to || strings.HasPrefix(dep, strings.TrimSuffix(e.to, "/")+"/") {
					t.Errorf("%s depends on %s: %s", strings.TrimPrefix(pkg, module), dep, e.why)
				}
			}
		}
		if checked == 0 {
			t.Errorf("no package is named %s: the rule about it checks nothing", e.from)
		}
	}
}
