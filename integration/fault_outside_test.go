//go:build linux

package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/integration/ctrd"
	"cofferdam.dev/cofferdam/integration/lab"
	"cofferdam.dev/cofferdam/shim/sandbox"
)

// A role is what a process is to a sandbox.
type role string

const (
	theOwner  role = "owner" // the shim, or cofferdam run
	theProxy  role = "proxy"
	theBroker role = "broker"
	theFirst  role = "first process"
	theAgent  role = "agent"
)

// pid is the process that has the role; 0 if there is none.
func (f *stage) pid(r role) int {
	st, err := sandbox.Load(f.paths, f.id)
	if err != nil {
		return 0
	}
	switch r {
	case theOwner:
		return st.Shim.PID
	case theProxy:
		return st.Proxy.PID
	case theBroker:
		return find(func(_ int, cmdline string) bool {
			return strings.HasPrefix(cmdline, "cofferdam-broker\x00"+f.id+"\x00")
		})
	case theAgent:
		if f.alone { // else the engine's first process is the agent
			return find(func(pid int, _ string) bool { return parentOf(pid) == st.Agent.PID })
		}
	}
	return st.Agent.PID
}

// find returns a process.
func find(is func(pid int, cmdline string) bool) int {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		cmd, err := os.ReadFile(file)
		pid := 0
		if _, serr := fmt.Sscanf(file, "/proc/%d/", &pid); err == nil && serr == nil && is(pid, string(cmd)) {
			return pid
		}
	}
	return 0
}

func parentOf(pid int) (ppid int) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // the name has none here
	_, _ = fmt.Sscanf(rest[1:], "%d", &ppid)
	return ppid
}

// signal sends to the process that has the role.
func (f *stage) signal(t testing.TB, r role, sig unix.Signal) {
	t.Helper()
	pid := f.pid(r)
	if pid == 0 {
		t.Fatalf("%s: there is no %s", f.name, r)
	}
	signal(t, pid, sig)
}

// stages are all of them, as they are released.
func stages(t *testing.T) []*stage {
	Require(t, needShim, needImage)
	lab.Get(t)
	a, _ := lab.Inside()
	bin := a.Paths[needShim]
	all := []*stage{shimFront(t, Engine(t, "deb"), bin), shimFront(t, Engine(t, "v2"), bin)}
	for _, one := range people {
		all = append(all, runFront(t, newPerson(t, one.name, one.id), bin))
	}
	return append(all, runFront(t, newRanged(t), bin))
}

// onSome runs test on all stages, or, by default, on an engine's and a person's, by turns.
func onSome(t *testing.T, turn int, test func(t *testing.T, f *stage)) {
	all := stages(t)
	if *faults == 0 {
		all = []*stage{all[turn%2], all[2+turn%3]}
	}
	for _, f := range all {
		t.Run(f.name, func(t *testing.T) { test(t, f) })
	}
}

// under runs test while an agent is besieged, and then looks at what is left, and at the next start.
func (f *stage) under(t *testing.T, test func(s *siege)) {
	t.Helper()
	l := lab.Get(t)
	before, mark := lab.Take(), l.Mark(t)
	s := f.begin(t)
	defer func() { // also if the test has given up
		s.end(t)
		unheard(t, l, mark)
		f.ends(t, before)
		f.tidies(t, before)
		f.works(t)
		unheard(t, l, mark)
		lab.NoLeftovers(t, before, keptBetween...)
	}()
	if s.first != "reached" {
		t.Fatalf("before the fault: %q: %s", s.first, s.stderr())
	}
	test(s)
}

// a while is time for the agent to use a fault.
func aWhile() { time.Sleep(300 * time.Millisecond) }

// TestASignalToEachProcess kills and stops each process of a sandbox. Invariants I1 and I8.
func TestASignalToEachProcess(t *testing.T) {
	for i, row := range []struct {
		role role
		sig  unix.Signal
		// what the agent's attempts at what is allowed come to then: reached, refused, or none, if it has ended
		then string
	}{
		{theProxy, unix.SIGKILL, "reached"},
		{theBroker, unix.SIGKILL, "reached"},
		{theOwner, unix.SIGKILL, ""},
		{theFirst, unix.SIGKILL, ""},
		{theAgent, unix.SIGKILL, ""},
		{theProxy, unix.SIGSTOP, "refused"},
		{theBroker, unix.SIGSTOP, "reached"},
		{theOwner, unix.SIGSTOP, "refused"},
		{theFirst, unix.SIGSTOP, "reached"},
		{theAgent, unix.SIGSTOP, "stands"},
	} {
		t.Run(fmt.Sprintf("%s/%s", unix.SignalName(row.sig), strings.ReplaceAll(string(row.role), " ", "-")), func(t *testing.T) {
			onSome(t, i, func(t *testing.T, f *stage) {
				f.under(t, func(s *siege) {
					then := row.then
					if row.role == theFirst && !f.alone && row.sig == unix.SIGSTOP {
						then = "stands" // there it is the agent
					}
					pid := f.pid(row.role)
					f.signal(t, row.role, row.sig)
					aWhile()
					switch then {
					case "reached":
						s.reaches(t)
					case "refused":
						if row.role == theOwner && !f.alone { // the agent's output comes by way of the shim
							if got := ProbeIn(t, fmt.Sprintf("/proc/%d/ns/net", f.pid(theAgent)), "-patience", "500ms", "https", lab.Evil+":443", "good.test"); got.OK {
								t.Errorf("while it stands still: %s", got)
							}
						} else if said := s.asks("again"); said != "refused" {
							t.Errorf("while it stands still the agent %s what is allowed", said)
						}
					case "":
						s.wait(t)
					}
					if row.sig == unix.SIGSTOP {
						signal(t, pid, unix.SIGCONT)
						if row.role == theAgent && f.alone { // which has stopped with the agent, as a job does
							f.signal(t, theOwner, unix.SIGCONT)
						}
						s.reaches(t)
					}
				})
			})
		})
	}
}

// TestTheEngineStandsStill stops containerd. (That it is killed, other tests have.)
func TestTheEngineStandsStill(t *testing.T) {
	Require(t, needShim)
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		a, _ := lab.Inside()
		f := shimFront(t, d, a.Paths[needShim])
		f.under(t, func(s *siege) {
			if err := d.Signal(unix.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			aWhile()
			s.reaches(t)
			if err := d.Signal(unix.SIGCONT); err != nil {
				t.Fatal(err)
			}
			s.reaches(t)
		})
	})
}

// gateOf runs do in GATE: the namespace that the owner holds and that is not its own, and, of those, the one with the interface.
func (f *stage) inGate(t testing.TB, do func() error) {
	t.Helper()
	pid := f.pid(theOwner)
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(fds) == 0 {
		t.Fatal("the owner has no files", err)
	}
	for _, fd := range fds {
		to, _ := os.Readlink(fd)
		// A pin is a mount of its own: it is shown by its path.
		if !strings.HasPrefix(to, "net:[") && to != filepath.Join(f.paths.Pins, f.id) {
			continue
		}
		found := false
		err := lab.DoIn(fd, func() error {
			dev, err := os.ReadFile("/proc/thread-self/net/dev")
			if found = strings.Contains(string(dev), "gate:"); !found {
				return err
			}
			return do()
		})
		if err != nil {
			t.Fatal(err)
		}
		if found {
			return
		}
	}
	t.Fatal("GATE is not found")
}

// TestEachRuleOfAGateMayGo deletes GATE's rules one after the other, from the first on and from the last on, and turns forwarding on.
// Invariant I1.
func TestEachRuleOfAGateMayGo(t *testing.T) {
	for i, order := range []string{"from the first on", "from the last on", "all at once"} {
		t.Run(strings.ReplaceAll(order, " ", "-"), func(t *testing.T) {
			onSome(t, i, func(t *testing.T, f *stage) {
				f.under(t, func(s *siege) {
					l := lab.Get(t)
					ns := fmt.Sprintf("/proc/%d/ns/net", f.pid(theAgent))
					deleted := 0
					for left := true; left; {
						f.inGate(t, func() (err error) {
							if deleted == 0 {
								for _, key := range []string{"ip_forward", "conf/all/forwarding", "conf/gate/forwarding"} {
									err = errors.Join(err, os.WriteFile("/proc/sys/net/ipv4/"+key, []byte("1"), 0))
								}
							}
							if err == nil {
								left, err = deleteRule(order)
							}
							return err
						})
						deleted++
						mark := l.Mark(t)
						var wg sync.WaitGroup
						for _, a := range []string{"tcp 45.67.89.66:5432", "udp 45.67.89.66:51820 tunnel", "raw 47 45.67.89.66", "icmp 45.67.89.66"} {
							wg.Go(func() { _ = ProbeIn(t, ns, append([]string{"-patience", "100ms"}, strings.Split(a, " ")...)...) })
						}
						wg.Wait()
						l.Silent(t, mark)
					}
					if deleted < 5 && order != "all at once" {
						t.Errorf("there were %d rules: nothing is shown", deleted)
					}
					if said := s.asks("again"); said != "refused" {
						t.Errorf("the damage is none: the agent %s what is allowed", said)
					}
				})
			})
		})
	}
}

// deleteRule deletes a rule of the caller's network namespace, or all. It reports whether there was one.
func deleteRule(order string) (bool, error) {
	c, err := nftables.New()
	if err != nil {
		return false, err
	}
	if order == "all at once" {
		c.FlushRuleset()
		return false, c.Flush()
	}
	chains, err := c.ListChains()
	if err != nil {
		return false, err
	}
	if order == "from the last on" {
		slices.Reverse(chains)
	}
	for _, chain := range chains {
		rules, err := c.GetRules(chain.Table, chain)
		if err != nil {
			return false, err
		}
		if len(rules) == 0 {
			continue
		}
		rule := rules[0]
		if order == "from the last on" {
			rule = rules[len(rules)-1]
		}
		return true, errors.Join(c.DelRule(rule), c.Flush())
	}
	return false, nil
}

// small mounts a small file system over a folder for the time of the test, and returns how to fill it, and to empty it again.
func small(t testing.TB, dir string, owner uint32) (fill, empty func()) {
	t.Helper()
	var below string // what did not exist
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(d); err == nil {
			break
		}
		below = d
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if below != "" {
		if out, err := exec.Command("chown", "-R", fmt.Sprint(owner), below).CombinedOutput(); err != nil {
			t.Fatal(string(out))
		}
	}
	if err := unix.Mount("small", dir, "tmpfs", 0, fmt.Sprintf("size=1m,mode=700,uid=%d,gid=%[1]d", owner)); err != nil {
		t.Fatal("mount:", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error("unmount:", err)
		}
	})
	ballast := filepath.Join(dir, "ballast")
	return func() {
			f, err := os.OpenFile(ballast, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			for {
				if _, err := f.Write(make([]byte, 4096)); errors.Is(err, unix.ENOSPC) {
					return
				} else if err != nil {
					t.Fatal(err)
				}
			}
		}, func() {
			if err := os.RemoveAll(ballast); err != nil {
				t.Fatal(err)
			}
		}
}

// TestAFullDisk fills the file systems of the state and of the log, before a start and under an agent. What cannot be recorded does not
// happen (I7).
func TestAFullDisk(t *testing.T) {
	t.Run("state", func(t *testing.T) {
		onSome(t, 0, func(t *testing.T, f *stage) {
			fill, empty := small(t, filepath.Dir(f.paths.State), f.user)
			f.works(t)
			before, l := lab.Take(), lab.Get(t)
			mark := l.Mark(t)
			fill()
			s := f.begin(t)
			s.end(t)
			if s.first == "reached" || s.cmd.ProcessState.ExitCode() == 0 {
				t.Errorf("a sandbox without a state: it %s what is allowed", s.first)
			} else {
				contains(t, "the error", s.stderr(), "no space left on device")
			}
			empty()
			f.tidies(t, before)
			unheard(t, l, mark)
			f.under(t, func(s *siege) {
				fill()
				f.signal(t, theProxy, unix.SIGKILL)
				s.reaches(t) // the next proxy cannot be noted
				s.end(t)
				empty()
			})
		})
	})
	t.Run("log", func(t *testing.T) {
		onSome(t, 1, func(t *testing.T, f *stage) {
			fill, empty := small(t, f.paths.Logs, f.user)
			fill()
			l := lab.Get(t)
			mark := l.Mark(t)
			s := f.begin(t)
			s.end(t)
			if s.first == "reached" {
				t.Error("what cannot be recorded happened at the start")
			}
			l.Silent(t, mark)
			empty()
			f.under(t, func(s *siege) {
				fill()
				for f.fills(s) { // until what is left of the last page is full too
				}
				mark := l.Mark(t)
				if said := s.asks("again"); said != "refused" {
					t.Errorf("what cannot be recorded happens: the agent %s what is allowed", said)
				}
				l.Silent(t, mark)
				empty()
				s.reaches(t)
			})
		})
	})
}

// fills reports whether the agent still reaches what is allowed.
func (f *stage) fills(s *siege) bool { return s.asks("again") == "reached" }

// TestMemoryRunsOut: an agent that takes too much is ended, and nothing else of its sandbox; where there is too little for the rest, that ends,
// and the wall stands.
func TestMemoryRunsOut(t *testing.T) {
	t.Run("of the agent", func(t *testing.T) {
		for _, f := range stages(t) {
			if f.user != 0 || *faults == 0 && f.name == "deb" {
				continue // no cgroup, which SECURITY.md says
			}
			t.Run(f.name, func(t *testing.T) {
				limited := strings.TrimSpace(onlyGood) + "\nlimits: {memory: 96MiB}\n"
				if err := os.WriteFile(f.policy, []byte(limited), 0o644); err != nil {
					t.Fatal(err)
				}
				f.under(t, func(s *siege) {
					was := [2]int{f.pid(theOwner), f.pid(theProxy)}
					if said := s.asks("hog"); said != "killed" {
						t.Errorf("400 MB in 96 MiB: %s", said)
					}
					s.reaches(t)
					if is := [2]int{f.pid(theOwner), f.pid(theProxy)}; is != was {
						t.Errorf("owner and proxy were %v and are %v", was, is)
					}
				})
			})
		}
	})
	t.Run("of the owner", func(t *testing.T) {
		onSome(t, 0, func(t *testing.T, f *stage) {
			a, _ := lab.Inside()
			dir := filepath.Join("/sys/fs/cgroup/memory", filepath.Base(a.Dir)+"-short")
			limit := "memory.limit_in_bytes"
			if _, err := os.Stat("/sys/fs/cgroup/memory"); err != nil { // version 2
				dir, limit = filepath.Join("/sys/fs/cgroup", filepath.Base(a.Dir)+"-short"), "memory.max"
			}
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				eventually(t, "the cgroup is empty", func() bool { err := os.Remove(dir); return err == nil || errors.Is(err, os.ErrNotExist) })
			})
			f.under(t, func(s *siege) {
				for _, r := range []role{theOwner, theProxy} {
					if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, f.pid(r)), 0); err != nil {
						t.Fatal(err)
					}
				}
				if err := os.WriteFile(filepath.Join(dir, limit), []byte("1048576"), 0); err != nil {
					t.Fatal(err)
				}
				for range 10 {
					if strings.HasPrefix(s.asks("again"), "nothing") {
						break
					}
				}
			})
		})
	})
}

// TestDescriptorsRunOut gives cofferdam run few descriptors from its start on, and a running sandbox no further one.
func TestDescriptorsRunOut(t *testing.T) {
	t.Run("at the start", func(t *testing.T) {
		l := lab.Get(t)
		for i, f := range stages(t)[2:] {
			if *faults == 0 && i != 1 {
				continue
			}
			t.Run(f.name, func(t *testing.T) {
				before, mark := lab.Take(), l.Mark(t)
				ran, failed := 0, 0
				for n := 8; n < 64; n += 2 {
					cmd := f.command(t, "true")
					cmd.Args = append([]string{"sh", "-c", fmt.Sprintf(`ulimit -n %d; exec "$0" "$@"`, n), cmd.Path}, cmd.Args[1:]...)
					cmd.Path = "/bin/sh"
					if got := finish(t, cmd); got.Code == 0 {
						ran++
					} else {
						failed++
					}
				}
				if ran == 0 || failed == 0 {
					t.Errorf("%d starts worked and %d did not: the limits show nothing", ran, failed)
				}
				unheard(t, l, mark)
				f.ends(t, before)
				f.tidies(t, before)
				f.works(t)
			})
		}
	})
	for i, r := range []role{theOwner, theProxy, theBroker} {
		t.Run("of the "+string(r), func(t *testing.T) {
			onSome(t, i, func(t *testing.T, f *stage) {
				f.under(t, func(s *siege) {
					pid := f.pid(r)
					if pid == 0 {
						t.Fatal("there is none")
					}
					fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
					if err != nil {
						t.Fatal(err)
					}
					limitFiles(t, pid, fmt.Sprint(len(fds)))
					s.asks("again") // whatever it comes to
					if r == theOwner {
						f.signal(t, theProxy, unix.SIGKILL) // it cannot start the next one
						if said := s.asks("again"); said != "refused" {
							t.Errorf("the agent %s what is allowed", said)
						}
					}
					aWhile()
					limitFiles(t, pid, "1024")
					s.reaches(t)
				})
			})
		})
	}
}

// limitFiles sets how many descriptors a process may have, as the user that it is: that needs no capability, which a container may lack.
func limitFiles(t testing.TB, pid int, most string) {
	t.Helper()
	uid, gid := uint32(0), uint32(0)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		_, _ = fmt.Sscanf(line, "Uid: %d", &uid)
		_, _ = fmt.Sscanf(line, "Gid: %d", &gid)
	}
	cmd := exec.Command("prlimit", "--pid", fmt.Sprint(pid), "--nofile="+most+":") // the soft one
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("prlimit: %v: %s", err, out)
	}
}

// TestABadPolicyChangesNothing replaces the policy that a sandbox follows by what is none.
func TestABadPolicyChangesNothing(t *testing.T) {
	bad := []struct {
		name string
		put  func(path string) error
	}{
		{"garbage", func(p string) error { return os.WriteFile(p, []byte("\x00\xff{"), 0o644) }},
		{"nothing in it", func(p string) error { return os.WriteFile(p, nil, 0o644) }},
		{"a folder", func(p string) error { return os.Mkdir(p, 0o755) }},
		{"a FIFO", func(p string) error { return unix.Mkfifo(p, 0o644) }},
		{"a link that leads nowhere", func(p string) error { return os.Symlink(p+".none", p) }},
		{"a device", func(p string) error { return os.Symlink("/dev/zero", p) }},
		{"1 GiB", func(p string) error {
			return errors.Join(os.WriteFile(p, []byte(onlyGood), 0o644), os.Truncate(p, 1<<30))
		}},
		{"everybody's", func(p string) error { return errors.Join(os.WriteFile(p, []byte(onlyGood), 0o644), os.Chmod(p, 0o666)) }},
		{"somebody else's", func(p string) error {
			return errors.Join(os.WriteFile(p, []byte(onlyGood), 0o644), os.Chown(p, 4242, 4242))
		}},
	}
	onSome(t, 1, func(t *testing.T, f *stage) {
		f.under(t, func(s *siege) {
			logs := func() int { return strings.Count(f.log(t), "the policy was not reloaded: ") }
			for _, b := range bad {
				was, next := logs(), f.policy+".next"
				if err := b.put(next); err != nil {
					t.Fatal(err)
				}
				if err := os.RemoveAll(f.policy); err != nil { // a folder cannot be renamed over
					t.Fatal(err)
				}
				if err := os.Rename(next, f.policy); err != nil {
					t.Fatal(err)
				}
				eventually(t, b.name+" is recorded", func() bool { return logs() > was })
				s.reaches(t)
			}
			was := logs()
			if err := os.RemoveAll(f.policy); err != nil {
				t.Fatal(err)
			}
			eventually(t, "that there is none is recorded", func() bool { return logs() > was })
			s.reaches(t)
			// A good one counts again.
			next := f.policy + ".next"
			if err := errors.Join(os.WriteFile(next, []byte("version: 1\nnetwork: {rules: [{allow: other.test}]}\n"), 0o644), os.Chown(next, int(f.user), int(f.user)), os.Rename(next, f.policy)); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the next policy is in force", func() bool { return s.asks("again") == "refused" })
			if err := errors.Join(os.WriteFile(next, []byte(onlyGood), 0o644), os.Chown(next, int(f.user), int(f.user)), os.Rename(next, f.policy)); err != nil {
				t.Fatal(err)
			}
			s.reaches(t)
		})
	})
}

// log is the decision log.
func (f *stage) log(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile(f.paths.Log(f.id))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
