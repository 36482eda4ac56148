//go:build faults

package fault

// Point is passed by a step of the given kind: see the package. The error is to be treated as the step's own.
func Point(kind, step string) error { return Pass(Folder, kind+": "+step) }
