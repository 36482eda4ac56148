package attack

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// A Result is what became of one attack on one front.
type Result struct {
	ID      string
	Front   string
	Outcome string // in a few words
	Control string // the same of its control
	Failed  bool   // the wall did not hold, or the control shows nothing
}

// Table writes results for people: a line each, sorted by attack in the order of All, and by front, and a last line that counts.
func Table(w io.Writer, results []Result) error {
	order := map[string]int{}
	for i, a := range All() {
		order[a.ID] = i
	}
	results = slices.Clone(results)
	slices.SortStableFunc(results, func(a, b Result) int { return cmp.Or(order[a.ID]-order[b.ID], cmp.Compare(a.Front, b.Front)) })
	tabs := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tabs, "ATTACK\tFRONT\tOUTCOME\tCONTROL")
	attacks, fronts, failed := map[string]bool{}, map[string]bool{}, 0
	for _, r := range results {
		attacks[r.ID], fronts[r.Front] = true, true
		if r.Failed {
			failed++
		}
		fmt.Fprintf(tabs, "%s\t%s\t%s\t%s\n", r.ID, r.Front, r.Outcome, r.Control)
	}
	if err := tabs.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%d attacks on %d fronts, %d results, %d failed\n", len(attacks), len(fronts), len(results), failed)
	return err
}
