package sandbox

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"cofferdam.dev/cofferdam/proxy/policy"
	"cofferdam.dev/cofferdam/spec"
)

// Policy is what a sandbox may do, in layers as policy.ParseLayers takes them. None: everything is denied.
type Policy []Layer

// Layer is the text of one layer of a policy and where it came from.
type Layer struct {
	Layer policy.Layer
	Name  string // for records: the policy's, or the layer's
	Path  string // empty: it is no file
	Text  []byte
}

// PolicyFile is the name of an administrator's or a person's policy in the folder of their configuration.
const PolicyFile = "policy.yaml"

// ProjectFile is the name of a project's policy at the top of the workspace.
const ProjectFile = ".cofferdam.yaml"

// overflowUID is what a user namespace calls the owners that it does not know, user_namespaces(7).
const overflowUID = 65534

// FileLayer reads the file of a layer; none if it is absent. What is there and cannot be read, a link that leads nowhere too, is an error: it
// may be a ceiling.
func FileLayer(layer policy.Layer, path string) (Policy, error) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	p, err := Layer{Layer: layer, Name: layer.String(), Path: path}.read()
	if err != nil {
		return nil, fmt.Errorf("%s policy: %w", layer, err)
	}
	return p, nil
}

// read returns the layer with the text that its file has. owners may have written it beside root and the caller.
func (l Layer) read(owners ...uint32) (Policy, error) {
	var err error
	if l.Layer == policy.Project {
		l.Text, err = policy.ReadProject(l.Path)
	} else {
		l.Text, err = policy.Read(l.Path, owners...)
	}
	if err != nil {
		return nil, err
	}
	return Policy{l}, nil
}

// again reads the files that are followed.
func (p Policy) again(paths Paths, files []spec.FileRule, rootless bool) (Policy, error) {
	var now Policy
	for _, l := range p {
		if !l.followed(files) {
			now = append(now, l)
			continue
		}
		var owners []uint32
		if rootless && strings.HasPrefix(l.Path, filepath.Dir(paths.Config)+"/") {
			owners = append(owners, overflowUID) // who can write there is the administrator
		}
		read, err := l.read(owners...)
		if err != nil {
			return nil, fmt.Errorf("%s policy: %w", l.Layer, err)
		}
		now = append(now, read...)
	}
	return now, nil
}

// followed reports whether the layer changes with its file. It does not if the agent can write to it: then it stays what it was at the
// start (I5).
func (l Layer) followed(files []spec.FileRule) bool {
	for _, f := range files {
		if f.Access == spec.Write && strings.HasPrefix(l.Path, f.Source+"/") {
			return false
		}
	}
	return l.Path != ""
}

// Sources are the layers as package policy takes them.
func (p Policy) Sources() []policy.Source {
	var sources []policy.Source
	for _, l := range p {
		sources = append(sources, policy.Source{Layer: l.Layer, Name: cmp.Or(l.Path, l.Name), Text: l.Text})
	}
	return sources
}

// Parse reads what the layers say together.
func (p Policy) Parse() (*policy.Policy, error) {
	parsed, err := policy.ParseLayers(p.Sources())
	if err != nil {
		return nil, fmt.Errorf("policy %q: %w", p.name(), err)
	}
	return parsed, nil
}

func (p Policy) name() string {
	var names []string
	for _, l := range p {
		names = append(names, l.Name)
	}
	return strings.Join(names, "+")
}

// state is what is told about a policy that was parsed.
func (p Policy) state(parsed *policy.Policy, files []spec.FileRule) PolicyState {
	st := PolicyState{Name: p.name(), Text: parsed.String()}
	for _, l := range p {
		st.Layers = append(st.Layers, LayerState{Layer: l.Layer, Name: l.Name, Path: l.Path, Followed: l.followed(files)})
	}
	return st
}

// policy finds the layers for the request: those that come with it, or the policy of the administrator's that the container names, below the
// administrator's ceiling. A container that names none gets nothing, ceiling or not.
func (r Request) policy(p Paths, name string) (Policy, error) {
	if r.Program != nil {
		return r.Program.Policy, nil
	}
	ceiling, err := FileLayer(policy.Admin, p.AdminPolicy())
	switch {
	case err != nil:
		return nil, err
	case name == "" && ceiling == nil:
		return nil, nil
	case name == "":
		return append(ceiling, Layer{Layer: policy.User, Name: "none", Text: []byte(policy.Default().String())}), nil
	}
	if err := spec.CheckPolicyName(name); err != nil {
		return nil, err
	}
	l := Layer{Layer: policy.User, Name: name, Path: filepath.Join(p.Policies, name+".yaml")}
	named, err := l.read()
	if err != nil {
		return nil, fmt.Errorf("policy %q: %w", name, err)
	}
	return append(ceiling, named...), nil
}

// grant adds to what is asked what a policy says beside the network.
func (r Request) grant(sb *spec.Sandbox, p *policy.Policy) (err error) {
	if sb.Limits, err = Narrow(r.Limits.OrDefault(), p.Limits()); err != nil {
		return err
	}
	sb.Workspace = spec.Workspace(p.Workspace())
	if r.Program != nil {
		return nil // its grants have the files already
	}
	for _, f := range p.Files() {
		sb.Files = append(sb.Files, spec.FileRule{Path: f.Path, Source: f.Path, Access: spec.Read})
	}
	return nil
}

// Narrow returns the lower of each of two limits; a zero field limits nothing.
func Narrow(l spec.Limits, by policy.Limits) (spec.Limits, error) {
	n := spec.Limits{MemoryBytes: by.MemoryBytes, Pids: by.Pids, CPUs: by.CPUs}
	if err := n.Validate(); err != nil {
		return l, fmt.Errorf("policy: limits: %w", err)
	}
	if n.MemoryBytes != 0 && (l.MemoryBytes == 0 || n.MemoryBytes < l.MemoryBytes) {
		l.MemoryBytes = n.MemoryBytes
	}
	if n.Pids != 0 && (l.Pids == 0 || n.Pids < l.Pids) {
		l.Pids = n.Pids
	}
	if n.CPUs != 0 && (l.CPUs == 0 || n.CPUs < l.CPUs) {
		l.CPUs = n.CPUs
	}
	return l, nil
}
