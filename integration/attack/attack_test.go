package attack

import "testing"

func TestEveryAttackSaysWhatItIs(t *testing.T) {
	seen := map[string]bool{}
	for _, a := range All() {
		if err := a.check(); err != nil {
			t.Error(err)
		}
		if seen[a.ID] {
			t.Errorf("attack %s: there are two", a.ID)
		}
		seen[a.ID] = true
	}
}
