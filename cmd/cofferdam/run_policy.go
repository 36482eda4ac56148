//go:build linux

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/proxy/policy"
	"cofferdam.dev/cofferdam/shim/sandbox"
	"cofferdam.dev/cofferdam/spec"
)

// findPolicy reads the policy that --policy names, and adds what --allow says. A policy that was added to is not followed when its file
// changes.
func (f runFlags) findPolicy(p sandbox.Paths) (sandbox.Policy, error) {
	var pol sandbox.Policy
	if f.policy != "" {
		name, path, err := policyFile(p, f.policy)
		if err != nil {
			return pol, err
		}
		text, err := policy.Read(path)
		if err != nil {
			return pol, err
		}
		pol = sandbox.Policy{Name: name, Path: path, Text: text}
	}
	if len(f.allow) == 0 {
		return pol, nil // a mistake in it is found where the sandbox is described
	}
	if pol.Path != "" {
		if _, err := policy.Parse(pol.Path, pol.Text); err != nil {
			return pol, err // by its own lines, before rules are added to it
		}
	}
	text, err := addRules(pol.Text, f.allow)
	if err != nil {
		return pol, err
	}
	pol = sandbox.Policy{Name: "command-line", Text: text}
	if _, err := policy.Parse("--allow", text); err != nil {
		return pol, err
	}
	return pol, nil
}

// policyFile finds the file of --policy: a path, or a name below the caller's folder of policies or the administrator's.
func policyFile(p sandbox.Paths, policy string) (name, path string, err error) {
	if strings.ContainsRune(policy, '/') || strings.HasSuffix(policy, ".yaml") {
		path, err := filepath.Abs(policy)
		return strings.TrimSuffix(filepath.Base(policy), ".yaml"), path, err
	}
	if err := spec.CheckPolicyName(policy); err != nil {
		return "", "", err
	}
	for _, dir := range []string{p.Policies, sandbox.DefaultPaths().Policies} {
		path := filepath.Join(dir, policy+".yaml")
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			return policy, path, err
		}
	}
	return "", "", fmt.Errorf("policy %q: there is no %s.yaml in %s or %s", policy, policy, p.Policies, sandbox.DefaultPaths().Policies)
}

// addRules adds a rule for each HOST[:PORT] to a policy's text, which is valid or empty.
func addRules(text []byte, allow []string) ([]byte, error) {
	doc := map[string]any{"version": 1}
	if len(text) > 0 {
		if err := yaml.Load(text, &doc); err != nil {
			return nil, err
		}
	}
	network, _ := doc["network"].(map[string]any)
	if network == nil {
		network = map[string]any{}
	}
	rules, _ := network["rules"].([]any)
	for _, a := range allow {
		rule, err := allowRule(a)
		if err != nil {
			return nil, err
		}
		rules = append(rules, rule)
	}
	network["rules"], doc["network"] = rules, network
	return yaml.Dump(doc)
}

// protocols by port, for those who write HOST:PORT.
var protocols = map[uint64]string{443: "tls", 80: "http", 22: "ssh"}

func allowRule(s string) (map[string]any, error) {
	host, port := s, uint64(443)
	if h, text, err := net.SplitHostPort(s); err == nil {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil || n == 0 {
			return nil, fmt.Errorf("--allow %q: %q is not a port", s, text)
		}
		host, port = h, n
	}
	protocol := protocols[port]
	if protocol == "" {
		protocol = "tcp"
	}
	return map[string]any{"allow": host, "ports": []uint64{port}, "protocol": protocol}, nil
}

// private refuses a folder that is not the caller's alone.
func private(dir string) error {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Mode&0o077 != 0 || int(st.Uid) != os.Getuid() {
		return fmt.Errorf("%s: is not a folder of yours alone (mode 0700): remove it", dir)
	}
	return nil
}
