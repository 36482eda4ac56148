package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"time"

	"github.com/containerd/log"
	"github.com/fsnotify/fsnotify"

	"cofferdam.dev/cofferdam/proxy/policy"
	"cofferdam.dev/cofferdam/proxy/record"
)

// settleTime is how long a policy file must be left alone before it is read: editors and configuration management write in steps.
const settleTime = 100 * time.Millisecond

const resolvConf = "/etc/resolv.conf" // the host's, resolv.conf(5)

// watchFiles reloads the policy when a file of its layers changes, and tells the proxy of a new resolv.conf, until the sandbox is closed. It
// watches folders, since files are usually replaced. The built-in policy does not change.
func (s *Sandbox) watchFiles() error {
	reload := map[string]func(){}
	for _, name := range s.policyFiles() {
		reload[name] = s.Reload
	}
	// A link leads to where a resolver service keeps its own, which the proxy may read whatever is put there.
	if real, err := filepath.EvalSymlinks(resolvConf); err == nil && real == resolvConf {
		reload[resolvConf] = s.resolvConfChanged
	}
	if len(reload) == 0 {
		return nil // a person has few watchers (inotify(7), max_user_instances)
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch files: %w", err)
	}
	for name := range reload {
		if err := w.Add(filepath.Dir(name)); err != nil {
			w.Close()
			return fmt.Errorf("watch %s: %w", name, err)
		}
	}
	if err := s.undo.add("file watcher", w.Close); err != nil {
		return err
	}
	go func() { // ends when the watcher is closed
		changed := map[string]bool{}
		settled := time.NewTimer(0)
		defer settled.Stop()
		all := func() {
			for name := range reload {
				changed[name] = true
			}
		}
		all() // at once too: they may have changed before they were watched
		for {
			select {
			case e, ok := <-w.Events:
				if !ok {
					return
				}
				if reload[e.Name] != nil {
					changed[e.Name] = true
					settled.Reset(settleTime)
				}
			case <-settled.C:
				for name := range changed {
					reload[name]()
				}
				clear(changed)
			case err, ok := <-w.Errors:
				if !ok {
					return
				}
				log.L.WithError(err).WithField("sandbox", s.ID).Error("watch files")
				all() // events may be lost
				settled.Reset(settleTime)
			}
		}
	}()
	return nil
}

// resolvConfChanged tells the proxy what the host's resolv.conf has now: a new file in the place of the old one it may not read.
func (s *Sandbox) resolvConfChanged() {
	release, err := s.use()
	if err != nil {
		return // it is being removed
	}
	defer release()
	text, err := os.ReadFile(resolvConf)
	if err == nil {
		err = s.proxy.setResolvConf(text)
	}
	if err != nil {
		log.L.WithError(err).WithField("sandbox", s.ID).Error("the proxy keeps to the old resolv.conf")
	}
}

func (s *Sandbox) policyFiles() (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.state.Policy.Layers {
		if l.Followed {
			names = append(names, l.Path)
		}
	}
	return names
}

// Reload reads the policy again and puts it into force if it has changed. A policy that cannot be read or is wrong changes nothing; the
// decision log says so, and what is wrong with it. What a policy says beside the network is as it was at the start.
func (s *Sandbox) Reload() {
	if err := s.reload(); err != nil {
		log.L.WithError(err).WithField("sandbox", s.ID).Error("reload policy")
		s.note("the policy was not reloaded: " + err.Error())
	}
}

func (s *Sandbox) reload() error {
	release, err := s.use()
	if err != nil {
		return nil // it is being removed
	}
	defer release()
	now, err := s.policy.again(s.paths, s.Spec.Files, s.rootless)
	if err != nil {
		return err
	}
	if reflect.DeepEqual(now, s.policy) {
		return nil
	}
	parsed, err := now.Parse()
	if err != nil {
		return err
	}
	layers, err := policy.MarshalLayers(now.Sources())
	if err != nil {
		return err
	}
	s.policy = now
	err = s.proxy.setPolicy(layers)
	s.update(func(st *State) { st.Policy = now.state(parsed, s.Spec.Files) })
	if err != nil {
		return err
	}
	s.note("the policy was reloaded")
	if parsed.Sections() != s.beside {
		s.note("workspace, files and limits of the policy hold from the next start on")
	}
	return nil
}

// note adds a line of our own to the decision log.
func (s *Sandbox) note(reason string) {
	s.mu.Lock()
	name := s.state.Policy.Name
	s.mu.Unlock()
	if err := s.records.Note(record.Record{Kind: record.Proxy, Policy: name, Reason: reason}); err != nil {
		log.L.WithError(err).WithField("sandbox", s.ID).Error("decision log")
	}
}

// Watch begins to follow what changes while the agent runs: the policy's file, the host's resolv.conf, and the packets that are refused. From here on
// the proxy and the broker have their share of the processors, and no more.
func (s *Sandbox) Watch(ctx context.Context) {
	release, err := s.use()
	if err != nil {
		return // it is being removed
	}
	defer release()
	s.weigh()
	if err := errors.Join(s.watchUnseen(ctx), s.watchFiles()); err != nil {
		log.G(ctx).WithError(err).WithField("sandbox", s.ID).Error("changes are not followed")
	}
}
