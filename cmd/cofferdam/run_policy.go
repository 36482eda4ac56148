//go:build linux

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/proxy/policy"
	"cofferdam.dev/cofferdam/shim/runner"
	"cofferdam.dev/cofferdam/shim/sandbox"
	"cofferdam.dev/cofferdam/spec"
)

// layers finds the policy of a sandbox: the administrator's, the caller's, which is that of the command line if that says any, and the
// project's, at the top of its workspace.
func (f runFlags) layers(p sandbox.Paths, workspace string) (sandbox.Policy, error) {
	layers, err := sandbox.FileLayer(policy.Admin, p.AdminPolicy())
	if err != nil {
		return nil, err
	}
	own, err := f.ownLayer(p)
	if err != nil {
		return nil, err
	}
	var project sandbox.Policy
	if workspace != "" {
		if project, err = sandbox.FileLayer(policy.Project, filepath.Join(workspace, sandbox.ProjectFile)); err != nil {
			return nil, err
		}
	}
	return slices.Concat(layers, own, project), nil
}

// ownLayer is the policy that --policy names with what --allow says added to it, or the caller's file. A policy that was added to is not
// followed when its file changes.
func (f runFlags) ownLayer(p sandbox.Paths) (sandbox.Policy, error) {
	l := sandbox.Layer{Layer: policy.User}
	switch {
	case f.policy != "":
		var err error
		if l.Name, l.Path, err = policyFile(p, f.policy); err != nil {
			return nil, err
		}
		if l.Text, err = policy.Read(l.Path); err != nil {
			return nil, err
		}
	case len(f.allow) > 0:
	case p.User == "":
		return nil, nil
	default:
		return sandbox.FileLayer(policy.User, p.User)
	}
	if len(f.allow) == 0 {
		return sandbox.Policy{l}, nil // a mistake in it is found with the other layers'
	}
	if l.Path != "" {
		if _, err := policy.Parse(l.Path, l.Text); err != nil {
			return nil, err // by its own lines, before rules are added to it
		}
	}
	text, err := addRules(l.Text, f.allow)
	if err != nil {
		return nil, err
	}
	if _, err := policy.Parse("--allow", text); err != nil {
		return nil, err
	}
	return sandbox.Policy{{Layer: policy.User, Name: "command-line", Text: text}}, nil
}

// addFiles adds the files that the policy grants, and holds them and those of --read to the layers that may grant: where a path leads, not
// only what it is called.
func (f runFlags) addFiles(r *runner.Request, p *policy.Policy) error {
	for _, at := range f.read {
		if err := withinCeiling(at, p); err != nil {
			return fmt.Errorf("--read: %w", err)
		}
	}
	for _, file := range p.Files() {
		for _, l := range p.Layers() {
			if l.Layer() == policy.Project {
				continue
			}
			if err := leadsInto(file.Path, l); err != nil {
				return fmt.Errorf("policy: files: %w", err)
			}
		}
		source, err := realPath(file.Path, "")
		if err != nil {
			return fmt.Errorf("policy: files: %w", err)
		}
		if !makeRoomFor(r, spec.FileRule{Path: file.Path, Source: source, Access: spec.Read}) {
			continue // a flag says the same, or more
		}
		if err := addReadable(r, file.Path); err != nil {
			return fmt.Errorf("policy: files: %w", err)
		}
	}
	return nil
}

// withinCeiling returns an error unless what a flag names leads to where the administrator's policy lets it.
func withinCeiling(at string, p *policy.Policy) error {
	for _, l := range p.Layers() {
		if l.Layer() != policy.Admin {
			continue
		}
		if err := leadsInto(at, l); err != nil {
			return err
		}
	}
	return nil
}

// makeRoomFor removes what the rule says as well, and reports whether there is need of it: grants do not nest.
func makeRoomFor(r *runner.Request, rule spec.FileRule) bool {
	within := func(a, b spec.FileRule) bool {
		return (policy.File{Path: b.Path}).Holds(a.Path) && (policy.File{Path: b.Source}).Holds(a.Source)
	}
	if slices.ContainsFunc(r.Files, func(f spec.FileRule) bool { return within(rule, f) }) {
		return false
	}
	r.Files = slices.DeleteFunc(r.Files, func(f spec.FileRule) bool { return f.Access == spec.Read && within(f, rule) })
	return true
}

// leadsInto returns an error unless path leads to where one of the layer's files does, or below it.
func leadsInto(path string, l *policy.Policy) error {
	real, err := realPath(path, "")
	if err != nil {
		return err
	}
	for _, granted := range l.Files() {
		if above, err := filepath.EvalSymlinks(granted.Path); err == nil && (policy.File{Path: above}).Holds(real) {
			return nil
		}
	}
	return fmt.Errorf("%s is not within the files of the %s policy, %s", real, l.Layer(), l.Name())
}

// unmet says what a project asks for and nobody has granted, and how to: empty if somebody has granted anything, or the project asks for
// nothing. In flags, if these can say it, and else in rules.
func unmet(layers sandbox.Policy, file string) (string, error) {
	if len(layers) != 1 || layers[0].Layer != policy.Project {
		return "", nil
	}
	asked, err := layers.Sources()[0].Parse()
	if err != nil {
		return "", err
	}
	var flags, rules, presets []string
	for _, r := range asked.Rules() {
		if r.Verdict != policy.Allow {
			continue
		}
		if r.Preset != "" {
			if !slices.Contains(presets, r.Preset) {
				presets = append(presets, r.Preset)
			}
			continue
		}
		for _, port := range r.Ports {
			if protocolOf(uint64(port)) != r.Protocol.String() || len(r.Addresses) > 0 || r.Shared || r.ECH {
				rules = append(rules, r.String())
				break
			}
		}
		if len(rules) > 0 && rules[len(rules)-1] == r.String() {
			continue
		}
		for _, port := range r.Ports {
			flag := "--allow '" + r.Pattern.String()
			if port != 443 {
				flag += ":" + strconv.Itoa(int(port))
			}
			flags = append(flags, flag+"'")
		}
	}
	if len(flags)+len(rules)+len(presets) == 0 {
		return "", nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s asks for hosts, but grants nothing by itself: everything is denied\n", layers[0].Path)
	if len(flags) > maxUnmet || len(rules) > maxUnmet {
		fmt.Fprintf(&b, "to allow what you trust of it, put rules of it into %s", file)
		return b.String(), nil
	}
	b.WriteString("to allow what it asks for, if you trust it with that:")
	if len(flags) > 0 {
		fmt.Fprintf(&b, "\n  %s", strings.Join(flags, " "))
	}
	if len(rules)+len(presets) > 0 {
		fmt.Fprintf(&b, "\n  in network of %s or of a file for --policy:", file)
	}
	if len(presets) > 0 {
		fmt.Fprintf(&b, "\n    presets: [%s]", strings.Join(presets, ", "))
	}
	if len(rules) > 0 {
		fmt.Fprintf(&b, "\n    rules:\n      - %s", strings.Join(rules, "\n      - "))
	}
	return b.String(), nil
}

// maxUnmet is how many flags or rules are suggested.
const maxUnmet = 32

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
	return map[string]any{"allow": host, "ports": []uint64{port}, "protocol": protocolOf(port)}, nil
}

func protocolOf(port uint64) string {
	if protocol := protocols[port]; protocol != "" {
		return protocol
	}
	return "tcp"
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
