package sandbox

import (
	"errors"
	"fmt"
	"slices"

	"cofferdam.dev/cofferdam/netns/fault"
)

// undo is a stack of what takes back what was done so far. The zero value is ready for use; it is not for concurrent use.
type undo struct{ steps []undoStep }

type undoStep struct {
	what   string
	do     func() error
	record bool // what is above it can be found again by this
}

// add puts on the stack what takes back the step that was just done. That is the step's fault point: an error comes from there, and the
// caller fails with it.
func (u *undo) add(what string, do func() error) error {
	u.steps = append(u.steps, undoStep{what: what, do: do})
	return fault.Point("made", what)
}

// addRecord is add for that by which all that is above it can be found again. It is taken back only if nothing of that is left.
func (u *undo) addRecord(what string, do func() error) error {
	u.steps = append(u.steps, undoStep{what, do, true})
	return fault.Point("made", what)
}

// run takes everything back in reverse order, going on after an error. What failed stays on the stack for another run. Each step has a fault
// point before it, of the given kind.
func (u *undo) run(kind string) error {
	var errs []error
	var failed []undoStep
	for _, s := range slices.Backward(u.steps) {
		if s.record && len(failed) > 0 {
			failed = append(failed, s)
			continue
		}
		err := fault.Point(kind, s.what)
		if err == nil {
			err = s.do()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("undo %s: %w", s.what, err))
			failed = append(failed, s)
		}
	}
	slices.Reverse(failed)
	u.steps = failed
	return errors.Join(errs...)
}
