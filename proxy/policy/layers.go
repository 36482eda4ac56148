package policy

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Layer says whose a policy is. The zero Layer is the one that grants nothing.
type Layer uint8

// The layers, from the lowest to the highest.
const (
	Project   Layer = iota // lies with the files that an agent works on, and only narrows
	User                   // of who starts the sandbox
	Admin                  // of who runs the host: a ceiling
	allLayers              // how many there are
)

var layerNames = [allLayers]string{Project: "project", User: "user", Admin: "admin"}

func (l Layer) String() string {
	if l < allLayers {
		return layerNames[l]
	}
	return fmt.Sprintf("layer(%d)", uint8(l))
}

// MarshalText returns the layer's name.
func (l Layer) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText knows the names of the layers and nothing else.
func (l *Layer) UnmarshalText(text []byte) error {
	i := slices.Index(layerNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("policy layer %q: not known", text)
	}
	*l = Layer(i)
	return nil
}

// Source is the text of one layer.
type Source struct {
	Layer Layer
	Name  string // what error texts call it: a path, or a policy's name
	Text  []byte
}

// MarshalLayers writes layers for [UnmarshalLayers] in another process: as JSON.
func MarshalLayers(sources []Source) ([]byte, error) {
	data, err := json.Marshal(sources)
	if err != nil {
		return nil, fmt.Errorf("encode policy: %w", err)
	}
	return data, nil
}

// UnmarshalLayers reads what MarshalLayers wrote. Nothing at all is no layers.
func UnmarshalLayers(data []byte) (sources []Source, err error) {
	if len(data) == 0 {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&sources); err != nil {
		return nil, fmt.Errorf("decode policy: %w", err)
	}
	return sources, nil
}

// Size is how many bytes the texts of a policy have.
func Size(sources []Source) int {
	n := 0
	for _, s := range sources {
		n += len(s.Text)
	}
	return n
}

// ParseLayers reads the layers of a policy, the highest first, and no layer
// twice. What they allow together is what each of them allows; no layer at all
// allows nothing, and neither does a project alone. A layer that says nothing
// about the network allows nothing of it, unless it is the project's, which is
// then asked nothing. Otherwise
//
//   - what is read-only or hidden in one layer is so in all; what is writable must
//     be so by the same pattern in all layers that may say it;
//   - the files are those of the lowest layer that may grant any, or of the project
//     if it has a list; each must lie within one of the layer above, or it is an
//     error;
//   - the lowest limit counts.
//
// Every layer has budgets of its own, and all of them are charged. A name is
// looked up if each layer allows it on some port.
func ParseLayers(sources []Source) (*Policy, error) {
	if n := Size(sources); n > maxFile && len(sources) > 1 {
		return nil, fmt.Errorf("%s: with the layers above larger than %d bytes", sources[len(sources)-1].Name, maxFile)
	}
	var layers []*Policy
	var errs []error
	for i, s := range sources {
		if s.Layer >= allLayers || i > 0 && sources[i-1].Layer <= s.Layer {
			return nil, fmt.Errorf("%s: the %s policy is out of order", s.Name, s.Layer)
		}
		p, err := s.Parse()
		errs = append(errs, err)
		layers = append(layers, p)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if len(layers) == 0 {
		return Default(), nil
	}
	if layers[0].layer == Project {
		layers = append([]*Policy{Default()}, layers...)
	}
	return stack(layers)
}

// stack composes layers, of which the first may grant.
func stack(layers []*Policy) (*Policy, error) {
	top := layers[0]
	if len(layers) == 1 {
		return top, nil
	}
	p := &Policy{
		layers: layers, layer: layers[len(layers)-1].layer, ports: make(map[uint16]bool), budgets: make(map[string]*Budget),
		workspace: top.workspace, files: top.files, saysFiles: top.saysFiles, limits: top.limits,
	}
	var names []string
	var errs []error
	for i, l := range layers {
		names = append(names, l.name)
		l.reasons = l.layer.reasons()
		maps.Copy(p.budgets, l.budgets)
		if !l.silent {
			p.deciders = append(p.deciders, l)
		}
		if i == 0 {
			continue
		}
		p.limits = p.limits.narrow(l.limits)
		lifted := l.workspace.Writable
		if l.layer == Project {
			lifted = p.workspace.Writable // it has no say
		}
		p.workspace = p.workspace.narrow(Workspace{l.workspace.ReadOnly, l.workspace.Hidden, lifted})
		for _, f := range l.files {
			if !slices.ContainsFunc(p.files, func(above File) bool { return above.Holds(f.Path) }) {
				errs = append(errs, fmt.Errorf("%s:%d:%d: files.path: %s is not within the files of %s", f.from, f.at.line, f.at.column, printable(shorten(f.Path)), layers[i-1].whose()))
			}
		}
		if l.layer != Project || l.saysFiles {
			p.files, p.saysFiles = l.files, l.saysFiles
		}
	}
	p.name = strings.Join(names, ", ")
	for port := range top.ports {
		p.ports[port] = !slices.ContainsFunc(p.deciders, func(l *Policy) bool { return !l.ports[port] })
	}
	return p, errors.Join(errs...)
}

// whose names a layer for a person.
func (p *Policy) whose() string {
	if p.name == Default().name {
		return "a user policy: there is none"
	}
	return fmt.Sprintf("the %s policy, %s", p.layer, printable(p.name))
}

// Layers returns the layers of a policy, the highest first; of one that has no
// others, itself.
func (p *Policy) Layers() []*Policy {
	if p == nil || p.layers == nil {
		return []*Policy{p}
	}
	return slices.Clone(p.layers)
}

// Layer says whose the policy is, or the lowest one of its layers.
func (p *Policy) Layer() Layer {
	if p == nil {
		return Project
	}
	return p.layer
}

// decideLayers asks the layers from the highest to the lowest. The first that
// denies decides; its place is in the reason.
func (p *Policy) decideLayers(r Request) Decision {
	var all Decision
	for i, l := range p.deciders {
		d := l.Decide(r)
		if d.Verdict != Allow {
			d.Reason = l.says(d.Reason)
			return d
		}
		if i > 0 {
			if len(d.Addresses) == 0 { // each is decided about by all layers
				d.Addresses = all.Addresses
			}
			d.Pinned = d.Pinned && all.Pinned
			d.ECH = d.ECH && all.ECH
			for layer, budget := range all.Budgets {
				d.Budgets[layer] = cmp.Or(d.Budgets[layer], budget)
			}
		}
		d.Reason = l.says(d.Reason)
		all = d
	}
	return all
}

// constantReasons need no detail.
var constantReasons = append([]string{
	reasonAllowed, reasonDenied, reasonNoPolicy, reasonNoRule, reasonNoPort, reasonNoAddress, reasonDisputed, reasonNothing,
}, reasonsProtocol[:]...)

// reasons are the constant reasons of a layer's decisions, by what they are of a
// policy that is alone: a decision need not make them.
func (l Layer) reasons() map[string]string {
	of := make(map[string]string, len(constantReasons))
	for _, reason := range constantReasons {
		of[reason] = l.says(reason)
	}
	return of
}

func (l Layer) says(reason string) string {
	switch reason {
	case reasonAllowed:
		return "every layer allows it, the last is the " + l.String() + " policy"
	case reasonNoPolicy:
		return "the " + l.String() + " policy allows nothing"
	}
	return l.String() + " policy: " + reason
}

func (p *Policy) says(reason string) string {
	if s, ok := p.reasons[reason]; ok {
		return s
	}
	return p.layer.says(reason)
}

// layersText is the text of each layer below a line that says whose it is.
func (p *Policy) layersText() string {
	var b strings.Builder
	for i, l := range p.layers {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "# %s policy: %s\n%s", l.layer, printable(l.name), l)
	}
	return b.String()
}
