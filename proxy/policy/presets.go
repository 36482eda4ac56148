package policy

import (
	"slices"
	"strings"
)

// Preset is a named set of allow rules that a policy takes in with
// "presets: [NAME]".
type Preset struct {
	Name    string
	Purpose string // what works with it
	Risk    string // what else gets out through it

	hosts []presetHost
}

// presetHost is an organisation's domain.
type presetHost struct {
	domain   string // a canonical wildcard
	bare     bool   // the domain itself too
	shared   bool
	protocol Protocol
}

// presets in the order of the alphabet. They name organisations' domains and no
// single servers, which come and go.
var presets = []Preset{
	{
		Name: "cargo", Purpose: "fetch crates",
		Risk:  "little: index and files are read only, and publishing goes to the bare domain, which it leaves out",
		hosts: []presetHost{{domain: "*.crates.io", protocol: TLS}},
	},
	{
		Name: "debian", Purpose: "install Debian packages",
		Risk: "the domain has services that people can post to, such as the bug tracker; http is not encrypted, but apt checks signatures",
		hosts: []presetHost{
			{domain: "*.debian.org", protocol: TLS},
			{domain: "*.debian.org", protocol: HTTP},
		},
	},
	{
		Name: "github", Purpose: "clone, fetch and push over TLS, the API, releases",
		Risk: "the widest way out of all presets: with a token of its own an agent can push, open issues and write gists anywhere on GitHub",
		hosts: []presetHost{
			{domain: "*.github.com", bare: true, protocol: TLS},
			{domain: "*.githubusercontent.com", shared: true, protocol: TLS},
		},
	},
	{
		Name: "go", Purpose: "fetch Go modules through the module mirror, with their checksums",
		Risk:  "the mirror fetches any public module from its origin, so the path of a request reaches a server of the attacker's choice",
		hosts: []presetHost{{domain: "*.golang.org", protocol: TLS}},
	},
	{
		Name: "npm", Purpose: "install npm packages",
		Risk:  "with a token of the agent's own, packages can be published there",
		hosts: []presetHost{{domain: "*.npmjs.org", protocol: TLS}},
	},
	{
		Name: "pip", Purpose: "install Python packages",
		Risk: "with a token of the agent's own, packages can be published there",
		hosts: []presetHost{
			{domain: "*.pypi.org", bare: true, protocol: TLS},
			{domain: "*.pythonhosted.org", protocol: TLS},
		},
	},
}

// Presets returns the presets that a policy can name, in the order of their
// names.
func Presets() []Preset { return slices.Clone(presets) }

// Rules returns the preset's rules, each made anew.
func (s *Preset) Rules() []*Rule {
	var rules []*Rule
	add := func(pattern Pattern, h presetHost) {
		r := &Rule{
			Verdict: Allow, Pattern: pattern, Ports: defaultPorts[h.protocol], Protocol: h.protocol,
			Shared: h.shared && pattern.Wildcard, Preset: s.Name,
		}
		r.text = r.describe()
		rules = append(rules, r)
	}
	for _, h := range s.hosts {
		base := Name{strings.TrimPrefix(h.domain, "*.")}
		add(Pattern{Base: base, Wildcard: true}, h)
		if h.bare {
			add(Pattern{Base: base}, h)
		}
	}
	return rules
}

// Domains describes what the preset allows, a line for each domain.
func (s *Preset) Domains() []string {
	var lines []string
	for _, h := range s.hosts {
		line := h.domain + ", " + h.protocol.String()
		if h.bare {
			line += ", and the domain itself"
		}
		lines = append(lines, line)
	}
	return lines
}
