package spec

import (
	"maps"
	"slices"
	"strings"
)

// The annotations that Cofferdam reads. Whoever writes the spec sets them, so they can choose among what the host's
// administrator allows and never widen it. A key below cofferdam.dev/ that is not listed here is an error: it may be a
// restriction that was misspelt.
const (
	// AnnotationWorkspace names the workspace by its path in the container; the spec must have a bind there.
	AnnotationWorkspace = "cofferdam.dev/workspace"
	// AnnotationPolicy names the network policy.
	AnnotationPolicy = "cofferdam.dev/policy"
)

const annotationPrefix = "cofferdam.dev/"

// checkAnnotations refuses unknown keys below cofferdam.dev/.
func checkAnnotations(annotations map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		if !strings.HasPrefix(key, annotationPrefix) {
			continue
		}
		switch key {
		case AnnotationWorkspace, AnnotationPolicy:
		default:
			return refused("annotations["+key+"]", "not a Cofferdam annotation; known are %s and %s", AnnotationWorkspace, AnnotationPolicy)
		}
	}
	return nil
}
