package spec

import (
	"maps"
	"slices"
	"strings"
)

// inertAnnotations are prefixes of keys that engines use to find their containers again. Other keys can be orders to a
// runtime: run.oci.* and module.wasm.* to crun (handlers, hooks), org.systemd.property.* (any property of the unit) and
// org.criu.config to runc.
var inertAnnotations = []string{annotationPrefix, "io.kubernetes.cri.", "io.containerd.", "nerdctl/", "org.opencontainers.image."}

// ruleAnnotations keeps the inert ones.
func ruleAnnotations(p *pass) error {
	if err := checkAnnotations(p.in.Annotations); err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(p.in.Annotations)) {
		if !slices.ContainsFunc(inertAnnotations, func(prefix string) bool { return strings.HasPrefix(key, prefix) }) {
			p.dropped("annotations["+key+"]", "", "may be an order to the runtime")
			continue
		}
		if p.out.Annotations == nil {
			p.out.Annotations = map[string]string{}
		}
		p.out.Annotations[key] = p.in.Annotations[key]
	}
	return nil
}
