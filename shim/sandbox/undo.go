package sandbox

import (
	"errors"
	"fmt"
	"slices"
)

// undo is a stack of what takes back what was done so far. The zero value is ready for use; it is not for concurrent use.
type undo struct{ steps []undoStep }

type undoStep struct {
	what string
	do   func() error
}

func (u *undo) add(what string, do func() error) {
	u.steps = append(u.steps, undoStep{what, do})
}

// run takes everything back in reverse order, going on after an error. What failed stays on the stack for another run.
func (u *undo) run() error {
	var errs []error
	var failed []undoStep
	for _, s := range slices.Backward(u.steps) {
		if err := s.do(); err != nil {
			errs = append(errs, fmt.Errorf("undo %s: %w", s.what, err))
			failed = append(failed, s)
		}
	}
	slices.Reverse(failed)
	u.steps = failed
	return errors.Join(errs...)
}
