//go:build linux

package integration

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/integration/lab"
	"cofferdam.dev/cofferdam/netns/fault"
)

// By default a choice of faults is tried; see make test-long.
var (
	faults = flag.Int("faults", 0, "try so many random faults, and each fault at each point of each stage")
	seed   = flag.Uint64("seed", 0, "of the random faults; 0: any")
)

// A course is how a sandbox goes from its start to its end, past fault points.
type course struct {
	name string
	// crash kills the owners while the agent runs: what is left is others' to remove.
	crash bool
}

var courses = []course{{"to its end", false}, {"until its owner is killed", true}}

// phases of a course, in which its points are passed.
type phase int

const (
	starting phase = iota
	watching       // a moment after the start
	ending
)

// settled is longer than a sandbox waits after its start until it begins to follow what changes.
const settled = 700 * time.Millisecond

// follow takes a sandbox through the course with the plan, and returns the points that were passed in each phase and what the agent said first.
func (c course) follow(t testing.TB, f *stage, plan fault.Plan, patient bool) (passed [3][]string, first string) {
	t.Helper()
	if err := plan.Write(fault.Folder); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(f.paths.Cache); err != nil && !errors.Is(err, fs.ErrNotExist) { // filling it is a step
		t.Fatal(err)
	}
	before := lab.Take()
	ctx, cancel := context.WithCancel(t.Context())
	stopped := continueStopped(ctx)
	defer func() { cancel(); <-stopped }()
	seen := 0
	points := func() (names []string) {
		all, err := fault.Passed(fault.Folder)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range all[seen:] {
			names = append(names, p.Point)
		}
		seen = len(all)
		return names
	}
	s := f.begin(t)
	passed[starting] = points()
	if patient {
		select {
		case <-s.ended:
		case <-time.After(settled):
		}
	}
	passed[watching] = points()
	if c.crash {
		for _, pid := range f.owners(t, s.cmd) {
			_ = unix.Kill(pid, unix.SIGKILL) // it may have ended
		}
	}
	s.end(t)
	f.ends(t, before)
	f.forget(t)
	f.gc(t)
	passed[ending] = points()
	return passed, s.first
}

// did returns what was done at a point.
func didFault(t testing.TB) fault.Action {
	t.Helper()
	all, err := fault.Passed(fault.Folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if p.Done != "" {
			return p.Done
		}
	}
	return ""
}

// injected is one fault at one point of one course.
type injected struct {
	course course
	phase  phase
	late   bool // it is not passed before a moment after the start
	plan   fault.Plan
}

// points are the points that a stage passes, in each course, as faults to be injected there with no action yet.
func points(t testing.TB, f *stage) (all []injected) {
	t.Helper()
	for _, c := range courses {
		passed, first := c.follow(t, f, fault.Plan{}, true)
		if first != "reached" {
			t.Fatalf("%s: without a fault the agent %q what is allowed", f.name, first)
		}
		hits := map[string]int{}
		late := map[string]bool{} // the steps that come a moment after the start
		for _, name := range passed[watching] {
			late[strings.TrimPrefix(name, "made: ")] = true
		}
		for at, names := range passed {
			if len(names) == 0 && phase(at) != watching {
				t.Fatalf("%s %s: no point was passed in phase %d: there is nothing to test", f.name, c.name, at)
			}
			for _, name := range names {
				hits[name]++
				if !c.crash || phase(at) == ending { // until it is killed the course is the same
					patient := phase(at) == watching || late[strings.TrimPrefix(name, "undo: ")]
					all = append(all, injected{c, phase(at), patient, fault.Plan{Point: name, Hit: hits[name]}})
				}
			}
		}
	}
	return all
}

// inject checks what the sandbox is during and after one fault, and that the next one is not touched by it.
func (i injected) inject(t testing.TB, f *stage) {
	t.Helper()
	l := lab.Get(t)
	before, mark := lab.Take(), l.Mark(t)
	_, first := i.course.follow(t, f, i.plan, i.late)
	unheard(t, l, mark)
	if done := didFault(t); done != i.plan.Action && i.plan.Hit == 1 { // how often a state is saved depends on what else happens
		t.Errorf("the point was not passed")
	}
	if i.phase == ending && first != "reached" {
		t.Errorf("before the fault the agent %q what is allowed", first)
	}
	if err := (fault.Plan{}).Write(fault.Folder); err != nil {
		t.Fatal(err)
	}
	f.tidies(t, before)
	f.works(t)
	unheard(t, l, mark)
	lab.NoLeftovers(t, before, keptBetween...)
}

// faultyFronts are the stages, with fault points.
func faultyFronts(t *testing.T) []*stage {
	Require(t, needFaults, needImage)
	lab.Get(t)
	a, _ := lab.Inside()
	bin := a.Paths[needFaults]
	stages := []*stage{shimFront(t, engineWith(t, "faulty", "v2", needFaults), bin)}
	for _, one := range people {
		stages = append(stages, runFront(t, newPerson(t, one.name, one.id), bin))
	}
	return stages
}

// TestAFaultAtEachStep has each step of setting up and of taking down fail, and kills whoever does it right there. Invariants I1 and I8.
func TestAFaultAtEachStep(t *testing.T) {
	l := lab.Get(t)
	mark := l.Mark(t)
	ProbeIn(t, "/proc/self/ns/net", "-patience", "200ms", "tcp", "45.67.89.66:5432", "x")
	if len(l.Since(t, mark)) == 0 {
		t.Fatal("control: what the agent does all the time is not seen")
	}
	for _, f := range faultyFronts(t) {
		t.Run(f.name, func(t *testing.T) {
			defer os.RemoveAll(fault.Folder)
			all := points(t, f)
			began := time.Now()
			injections := 0
			for _, i := range all {
				for _, action := range []fault.Action{fault.Kill, fault.Fail} {
					i.plan.Action = action
					// By default what is the same for every stage is tried on one, and each point once: a state that is saved again is so at
					// other points too.
					if *faults == 0 && (i.plan.Hit > 1 || action == fault.Fail && f.name != "root") {
						continue
					}
					injections++
					t.Run(strings.ReplaceAll(fmt.Sprintf("%s/%s/%d", action, i.plan.Point, i.plan.Hit), " ", "-"), func(t *testing.T) { i.inject(t, f) })
				}
			}
			t.Logf("%d points, %d faults, %v", len(all), injections, time.Since(began))
		})
	}
}

// TestReleasesHaveNoFaultPoints looks into the binaries that people get.
func TestReleasesHaveNoFaultPoints(t *testing.T) {
	Require(t, needShim, needFaults)
	a, _ := lab.Inside()
	released, err := filepath.Glob(filepath.Join(a.Paths[needShim], "*"))
	if err != nil || len(released) < 5 {
		t.Fatalf("%v, %v", released, err)
	}
	traces := func(binary string) (found []string) {
		data, err := os.ReadFile(binary)
		if err != nil {
			t.Fatal(err)
		}
		// The folder of plans, and any function of the package: names of functions stay in a stripped binary.
		for _, trace := range []string{fault.Folder, "cofferdam/netns/fault"} {
			if bytes.Contains(data, []byte(trace)) {
				found = append(found, trace)
			}
		}
		info, err := exec.Command("go", "version", "-m", binary).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, info)
		}
		for line := range strings.Lines(string(info)) {
			if tags, ok := strings.CutPrefix(strings.TrimSpace(line), "build\t-tags="); ok && slices.Contains(strings.Split(tags, ","), "faults") {
				found = append(found, "tag")
			}
		}
		return found
	}
	for _, binary := range released {
		if found := traces(binary); len(found) > 0 {
			t.Errorf("%s has %q", filepath.Base(binary), found)
		}
	}
	for _, name := range []string{"cofferdam", "containerd-shim-cofferdam-v1"} {
		if found := traces(filepath.Join(a.Paths[needFaults], name)); len(found) != 3 {
			t.Errorf("control: with fault points %s has only %q", name, found)
		}
	}
}
