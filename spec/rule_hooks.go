package spec

import "github.com/opencontainers/runtime-spec/specs-go"

// ruleHooks keeps hooks that run after the container has gone: engines clean up in them. The others run against the
// container's namespaces, and the engine's network hooks would plug an interface into its network namespace.
func ruleHooks(p *pass) error {
	h := p.in.Hooks
	if h == nil {
		return nil
	}
	for _, kind := range []struct {
		name  string
		hooks []specs.Hook
	}{
		{"prestart", h.Prestart}, //nolint:staticcheck // deprecated, and still what Docker uses
		{"createRuntime", h.CreateRuntime},
		{"createContainer", h.CreateContainer},
		{"startContainer", h.StartContainer},
		{"poststart", h.Poststart},
	} {
		for _, hook := range kind.hooks {
			p.dropped("hooks."+kind.name, hook.Path, "nothing is run against the container's namespaces")
		}
	}
	if len(h.Poststop) > 0 {
		p.out.Hooks = &specs.Hooks{Poststop: h.Poststop}
	}
	return nil
}
