package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/netns/fault"
	"cofferdam.dev/cofferdam/proxy/policy"
	"cofferdam.dev/cofferdam/spec"
)

// State is what is known about one sandbox: enough for Teardown to remove all of it in a fresh process, and for people to
// see what was made of their container. It is saved before each side effect that it describes.
type State struct {
	ID        string        `json:"id"`
	Namespace string        `json:"namespace"`
	Container string        `json:"container"`
	Bundle    string        `json:"bundle"`
	Created   time.Time     `json:"created"`
	Phase     Phase         `json:"phase"`
	Shim      Process       `json:"shim"`
	Agent     Process       `json:"agent,omitzero"`
	Runtime   Runtime       `json:"runtime"`
	Sandbox   spec.Sandbox  `json:"sandbox"`
	Changes   []spec.Change `json:"changes"`
	Policy    PolicyState   `json:"policy"`
	Proxy     ProxyState    `json:"proxy"`
	Weaker    []string      `json:"weaker,omitempty"`    // layers that this host does not have
	Own       bool          `json:"own,omitempty"`       // there is no engine that ends the agent and removes its cgroup
	Cgroup    string        `json:"cgroup,omitempty"`    // the agent's, as in linux.cgroupsPath
	CPUGroup  string        `json:"cpu_group,omitempty"` // likewise that of proxy and broker
	Uplink    []string      `json:"uplink,omitempty"`    // interfaces of the engine's network, in which the proxy dials; none: it dials in the host's
}

// Phase is how far a sandbox has come.
type Phase string

// The phases of a sandbox, in order.
const (
	Creating Phase = "creating"
	Created  Phase = "created"
	Running  Phase = "running"
	Removing Phase = "removing"
)

// PolicyState is the policy in force: where it came from and its canonical text.
type PolicyState struct {
	Name   string       `json:"name"` // those of its layers; empty: the built-in policy that denies everything
	Layers []LayerState `json:"layers,omitempty"`
	Text   string       `json:"text"`
}

// LayerState is a layer of the policy in force.
type LayerState struct {
	Layer    policy.Layer `json:"layer"`
	Name     string       `json:"name"`
	Path     string       `json:"path,omitempty"` // empty: it is no file
	Followed bool         `json:"followed"`       // it changes with its file
}

// ProxyState is the proxy process as its parent sees it.
type ProxyState struct {
	Process
	UID      uint32    `json:"uid"`
	Started  time.Time `json:"started,omitzero"`
	Restarts int       `json:"restarts"`
	LastExit string    `json:"last_exit,omitempty"` // why the last one ended
}

// Process names one process for good: a PID alone may be another process by now.
type Process struct {
	PID       int    `json:"pid"`
	StartTime uint64 `json:"start_time,omitempty"` // clock ticks since boot, field 22 of /proc/PID/stat, proc_pid_stat(5)
}

// Alive reports whether the process still exists and is not a zombie.
func (p Process) Alive() bool {
	if p.PID <= 0 {
		return false
	}
	st, err := readStat(p.PID)
	return err == nil && st.startTime == p.StartTime && st.state != 'Z' && st.state != 'X'
}

// Kill sends SIGKILL to the process if it still is the one that was recorded. A process that is gone is not an error.
func (p Process) Kill() error {
	if p.PID <= 0 {
		return nil
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("pidfd of process %d: %w", p.PID, err)
	}
	defer unix.Close(fd)
	if !p.Alive() { // the pidfd pins the process: from here on it is this one or none
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", p.PID, err)
	}
	return nil
}

// processOf looks a running process up by its PID.
func processOf(pid int) Process {
	st, err := readStat(pid)
	if err != nil {
		return Process{PID: pid}
	}
	return Process{PID: pid, StartTime: st.startTime}
}

// save replaces the state file atomically.
func (s *State) save(p Paths) error {
	b, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	if err := writeFile(p.stateFile(s.ID), append(b, '\n'), 0o600); err != nil {
		return err
	}
	return fault.Point("saved", string(s.Phase))
}

// writeFile replaces path atomically: readers see the old text or the new one.
func writeFile(path string, b []byte, mode fs.FileMode) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, mode); err != nil {
		return err
	}
	if err := fault.Point("written", filepath.Base(path)); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// Load reads the state of one sandbox; fs.ErrNotExist if there is none.
func Load(p Paths, id string) (*State, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(p.stateFile(id))
	if err != nil {
		return nil, err
	}
	var s State
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("%s: %w", p.stateFile(id), err)
	}
	if s.ID != id {
		return nil, fmt.Errorf("%s: holds the state of %q", p.stateFile(id), s.ID)
	}
	return &s, nil
}

// List returns the sandboxes that have a state folder, sorted by ID.
func List(p Paths) ([]string, error) {
	entries, err := os.ReadDir(p.State)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() && checkID(e.Name()) == nil {
			ids = append(ids, e.Name())
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// registry takes the lock under which sandboxes appear and are collected, so that garbage collection never sees one that exists but is
// not owned yet. It is held for moments only.
func registry(p Paths) (release func(), err error) {
	f, err := lockFile(filepath.Join(p.State, ".lock"), unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	return func() { f.Close() }, nil
}

// lockFile opens a lock file and takes the lock, flock(2). The kernel drops it with the process, however that ends, so that nobody has
// to guess from PIDs whether an owner still lives.
func lockFile(path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), how); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// Owned reports whether a living process owns the sandbox.
func Owned(p Paths, id string) bool {
	f, err := os.Open(p.lock(id))
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}
