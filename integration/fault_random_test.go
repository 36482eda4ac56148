//go:build linux

package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/integration/lab"
	"cofferdam.dev/cofferdam/netns/fault"
)

// A blow is a signal to a process of a sandbox, at some time after its start.
type blow struct {
	role role
	sig  unix.Signal
	at   time.Duration
	hold time.Duration // how long what is stopped stands still
}

func (b blow) String() string {
	if b.sig == unix.SIGKILL {
		return fmt.Sprintf("%s to the %s after %v", unix.SignalName(b.sig), b.role, b.at)
	}
	return fmt.Sprintf("%s to the %s after %v, for %v", unix.SignalName(b.sig), b.role, b.at, b.hold)
}

// randomBlows are one to three.
func randomBlows(r *rand.Rand) (blows []blow) {
	roles := []role{theOwner, theOwner, theProxy, theBroker, theFirst, theAgent}
	for range 1 + r.IntN(3) {
		b := blow{roles[r.IntN(len(roles))], unix.SIGKILL, time.Duration(r.IntN(600)) * time.Millisecond, time.Duration(50+r.IntN(500)) * time.Millisecond}
		if r.IntN(3) == 0 {
			b.sig = unix.SIGSTOP
		}
		blows = append(blows, b)
	}
	return blows
}

// strike sends the signals, each at its time, unless there is no such process then. It returns when those who were stopped go on, and how many
// signals were sent.
func (s *siege) strike(t testing.TB, blows []blow) (sent int) {
	ends := make(chan int)
	for _, b := range blows {
		go func() {
			var pids []int
			defer func() { ends <- len(pids) }()
			<-time.After(b.at)
			if b.role == theOwner {
				pids = s.stage.owners(t, s.cmd)
			} else if pid := s.stage.pid(b.role); pid > 1 {
				pids = []int{pid}
			}
			send := func(pids []int, sig unix.Signal) {
				for _, pid := range pids {
					if pid == s.cmd.Process.Pid {
						_ = s.cmd.Process.Signal(sig) // not to another process of that number
					} else {
						_ = unix.Kill(pid, sig)
					}
				}
			}
			send(pids, b.sig)
			if b.sig == unix.SIGSTOP {
				<-time.After(b.hold)
				send(pids, unix.SIGCONT)
				if s.stage.alone { // it stops with the agent, as a job does
					send(s.stage.owners(t, s.cmd), unix.SIGCONT)
				}
			}
		}()
	}
	for range blows {
		sent += <-ends
	}
	return sent
}

// survive checks what a sandbox is under random blows, and after them.
func (f *stage) survive(t *testing.T, blows []blow) (sent int) {
	l := lab.Get(t)
	before, mark := lab.Take(), l.Mark(t)
	s := f.launch(t)
	sent = s.strike(t, blows)
	s.listen(t)
	s.end(t)
	unheard(t, l, mark)
	f.ends(t, before)
	f.tidies(t, before)
	f.works(t)
	unheard(t, l, mark)
	lab.NoLeftovers(t, before, keptBetween...)
	return sent
}

// TestRandomFaults injects faults at random points, and sends random signals at random times, on random stages.
func TestRandomFaults(t *testing.T) {
	n, from := *faults, *seed
	if n == 0 {
		n = 8
	}
	if from == 0 {
		from = rand.Uint64()
	}
	t.Logf("%d faults: -faults %d -seed %d", n, n, from)
	defer os.RemoveAll(fault.Folder)
	a, _ := lab.Inside()
	all := append(faultyFronts(t), runFront(t, newRanged(t), a.Paths[needFaults]))
	known := map[*stage][]injected{}
	sent, injections := 0, 0
	for i := range n {
		r := rand.New(rand.NewPCG(from, uint64(i))) // each its own: the same whatever came before
		f := all[r.IntN(len(all))]
		if r.IntN(2) == 0 {
			blows := randomBlows(r)
			t.Run(fmt.Sprintf("%d/%s", i, f.name), func(t *testing.T) {
				defer logIfFailed(t, blows)
				sent += f.survive(t, blows)
			})
			continue
		}
		if known[f] == nil {
			known[f] = points(t, f)
		}
		at := known[f][r.IntN(len(known[f]))]
		at.plan.Action = fault.Actions[r.IntN(len(fault.Actions))]
		t.Run(fmt.Sprintf("%d/%s", i, f.name), func(t *testing.T) {
			defer logIfFailed(t, at.plan)
			injections++
			at.inject(t, f)
		})
	}
	t.Logf("%d faults at points, %d signals", injections, sent)
}

func logIfFailed(t testing.TB, what any) {
	if t.Failed() {
		t.Logf("the fault was: %v", what)
	}
}
