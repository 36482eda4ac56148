package spec

import (
	"path"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// defaultWorkspace is where a bind is taken for the workspace without being named by an annotation.
const defaultWorkspace = "/workspace"

// imageAnnotations hold an image's name, in the order in which Describe asks for it.
var imageAnnotations = []string{"io.kubernetes.cri.image-name", "org.opencontainers.image.ref.name"}

// Describe says what the spec of container id asks for: its workspace, if it has one, and its policy. It grants nothing
// by itself. The workspace's Source is the text in the spec; the caller resolves symbolic links in it, and calls
// [CheckWorkspace] if it wants to know early what [Rewrite] will say. Limits stay zero, which means the defaults.
// Describe is pure; its errors are of type *[RefusedError] where the spec is at fault.
func Describe(s *specs.Spec, id string) (Sandbox, error) {
	if err := CheckID(id); err != nil {
		return Sandbox{}, err
	}
	if s == nil || s.Process == nil {
		return Sandbox{}, refused("process", "missing")
	}
	if err := checkAnnotations(s.Annotations); err != nil {
		return Sandbox{}, err
	}
	sb := Sandbox{ID: id, Agent: agent(s), Network: Network{Mode: Proxied, Policy: s.Annotations[AnnotationPolicy]}}
	if err := CheckPolicyName(sb.Network.Policy); err != nil {
		return Sandbox{}, refused("annotations["+AnnotationPolicy+"]", "%v", err)
	}
	m, err := findWorkspace(s)
	if err != nil || m == nil {
		return sb, err
	}
	if !path.IsAbs(m.Source) {
		return Sandbox{}, refused(mountPath(m.Destination), "source %q is not absolute", m.Source)
	}
	access := Write
	if slices.Contains(m.Options, "ro") || slices.Contains(m.Options, "rro") {
		access = Read
	}
	sb.Files = []FileRule{{Path: m.Destination, Source: m.Source, Access: access}}
	return sb, nil
}

func agent(s *specs.Spec) string {
	for _, key := range imageAnnotations {
		if image := s.Annotations[key]; image != "" {
			return image
		}
	}
	if len(s.Process.Args) > 0 {
		return s.Process.Args[0]
	}
	return ""
}

// findWorkspace returns the bind that is the workspace, or nil. Of several binds at one place the last counts: it is
// the one that would be seen.
func findWorkspace(s *specs.Spec) (*specs.Mount, error) {
	last := map[string]*specs.Mount{}
	for i := range s.Mounts {
		m := &s.Mounts[i]
		if reason := checkPath(m.Destination); reason != "" {
			return nil, refused(mountPath(m.Destination), "destination %s", reason)
		}
		if isBind(*m) {
			last[m.Destination] = m
		}
	}
	if named, ok := s.Annotations[AnnotationWorkspace]; ok {
		m := last[named]
		if m == nil {
			return nil, refused("annotations["+AnnotationWorkspace+"]", "no bind mount at %q", named)
		}
		return m, nil
	}
	if m := last[defaultWorkspace]; m != nil {
		return m, nil
	}
	// Else the bind in which the process starts. Engines put binds of their own at the reserved places (Kubernetes has
	// /dev/shm, all have /etc/hosts), and those are never the workspace.
	cwd := s.Process.Cwd
	if checkPath(cwd) != "" {
		return nil, nil
	}
	var found *specs.Mount
	for dest, m := range last {
		if dest != "/" && within(cwd, dest) && reservedFor(dest) == "" && (found == nil || below(dest, found.Destination)) {
			found = m
		}
	}
	return found, nil
}
