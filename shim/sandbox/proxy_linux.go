package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/containerd/log"

	"cofferdam.dev/cofferdam/netns"
	"cofferdam.dev/cofferdam/netns/fault"
	"cofferdam.dev/cofferdam/proxy/process"
	"cofferdam.dev/cofferdam/proxy/record"
)

// ProxyBinary is the name of the proxy; it is installed beside the binary that starts it.
const ProxyBinary = "cofferdam-proxy"

// The proxies' users: one number per sandbox, so that a proxy that was taken over cannot even signal another one. The range is one
// that neither people nor the usual subordinate ranges use (systemd's UIDS-GIDS document leaves it unassigned), and needs no entry in
// passwd(5). Two sandboxes share a number only if their IDs collide in 24 bits of hash.
const (
	proxyUIDBase = 1_900_000_000
	proxyUIDs    = 1 << 24
)

// proxyUID is the number of that user. A user namespace has none of these.
func (r Request) proxyUID(id string) uint32 {
	if r.rootless() {
		return r.Program.ProxyID
	}
	h := fnv.New32a()
	h.Write([]byte(id))
	return proxyUIDBase + h.Sum32()%proxyUIDs
}

// FindBinary returns a binary that belongs to this build: the one of that name beside the running executable.
func FindBinary(name string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find %s: %w", name, err)
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		return "", fmt.Errorf("find %s: %w", name, err)
	}
	path := filepath.Join(filepath.Dir(self), name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("find %s: %w", name, err)
	}
	return path, trusted(path)
}

// Delays between a proxy's end and the start of the next one: from the first to the last, doubling; back to the first after a proxy
// that lived for steady.
const (
	restartFirst = 50 * time.Millisecond
	restartLast  = 5 * time.Second
	steady       = 10 * time.Second
)

// supervisor keeps one proxy running. It keeps the listeners too, so that connections wait in their queue while there is no proxy
// (I1: whatever dies, the result is refusal or waiting, never a route).
type supervisor struct {
	binary string
	config process.Config
	files  process.Files // without Log
	log    *record.Log
	uid    uint32
	start  Starter
	stderr *os.File
	notify func(ProxyState) // called from the supervisor's goroutine

	life    sync.Mutex // held while run, moveTo and stop replace what follows
	uplink  *os.File   // the network namespace in which the proxy dials; nil: this process's
	stopped bool
	cancel  context.CancelFunc
	ready   chan error // the first proxy's readiness, once
	done    chan struct{}

	mu      sync.Mutex
	current Process
	updates net.Conn // to the current process; nil if there is none
}

// setPolicy replaces the policy of the proxies to come, and of the current one. A proxy that does not take it is ended: the next one has
// it from its start.
func (s *supervisor) setPolicy(layers []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.config.Layers = layers
	return s.tell(process.NewPolicy, layers)
}

// setResolvConf says what the host's resolv.conf has now. The proxies to come read it themselves.
func (s *supervisor) setResolvConf(text []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tell(process.NewResolvConf, text)
}

// tell sends to the current proxy, if there is one, and ends it if it does not take what it is told. mu is held.
func (s *supervisor) tell(u process.Update, text []byte) error {
	if s.updates == nil {
		return nil
	}
	err := s.updates.SetDeadline(time.Now().Add(updateTimeout))
	if err == nil {
		err = u.Send(s.updates, text)
	}
	if err != nil {
		return errors.Join(err, s.current.Kill())
	}
	return nil
}

// updateTimeout bounds how long a proxy may take to parse a policy and to end what it denies.
const updateTimeout = 30 * time.Second

// run starts the first proxy and keeps it alive until stop. It does not wait for readiness: see wait.
func (s *supervisor) run(ctx context.Context) {
	s.life.Lock()
	defer s.life.Unlock()
	s.begin(ctx)
}

func (s *supervisor) begin(ctx context.Context) {
	ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	ready, done, uplink := make(chan error, 1), make(chan struct{}), s.uplink
	s.ready, s.done = ready, done
	go func() {
		defer close(done)
		// The kernel kills the proxy when the thread that started it ends (PR_SET_PDEATHSIG, prctl(2)): the thread of this goroutine
		// does nothing else and ends with the process or with the supervisor, when no proxy is left.
		if uplink == nil {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			s.loop(ctx, ready)
			return
		}
		err := netns.Do(uplink, func() error {
			s.loop(ctx, ready)
			return nil
		})
		if err != nil {
			ready <- err // nothing was started
		}
	}()
}

// moveTo ends the proxy, starts another one in the network namespace uplink, which stays the caller's, and waits until it serves.
// Connections wait meanwhile.
func (s *supervisor) moveTo(ctx context.Context, uplink *os.File) error {
	s.life.Lock()
	if s.stopped {
		s.life.Unlock()
		return errors.New("proxy: stopped")
	}
	s.cancel()
	<-s.done
	s.uplink = uplink
	s.begin(ctx)
	s.life.Unlock()
	return s.wait(ctx)
}

func (s *supervisor) loop(ctx context.Context, ready chan<- error) {
	var st ProxyState
	delay := restartFirst
	for first := true; ; first = false {
		began := time.Now()
		var report chan<- error
		if first {
			report = ready
		}
		err := s.once(ctx, &st, report)
		if ctx.Err() != nil {
			return
		}
		log.G(ctx).WithError(err).Warn("proxy ended")
		st.LastExit = fmt.Sprint(err)
		st.Restarts++
		if time.Since(began) > steady {
			delay = restartFirst
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(delay):
		}
		delay = min(2*delay, restartLast)
	}
}

// once runs one proxy to its end. Its error says why it ended; it is never nil. Whether the proxy became ready goes to first, unless
// that is nil.
func (s *supervisor) once(ctx context.Context, st *ProxyState, first chan<- error) (err error) {
	report := func(err error) {
		if first != nil {
			first <- err
			first = nil
		}
	}
	defer func() { report(err) }()
	files := s.files
	var records net.Conn
	if files.Log, records, err = process.Stream(); err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- errors.Join(s.log.Serve(records), records.Close()) }() // ends when the proxy is gone
	defer func() {
		if lerr := <-served; lerr != nil {
			log.G(ctx).WithError(lerr).Error("decision log")
		}
	}()
	var updates net.Conn
	if files.Updates, updates, err = process.Stream(); err != nil {
		files.Log.Close()
		return err
	}
	defer updates.Close()
	s.mu.Lock()
	config := s.config
	s.mu.Unlock()
	cmd, ready, err := process.Command(s.binary, config, files, s.uid)
	if err != nil {
		return err
	}
	cmd.Stderr = s.stderr
	exited, err := s.start(cmd)
	if err != nil {
		_ = ready(ctx) // releases what Command opened
		return fmt.Errorf("start proxy: %w", err)
	}
	p := processOf(cmd.Process.Pid)
	s.mu.Lock()
	s.current = p
	s.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { _ = p.Kill() })
	defer stop()
	if ctx.Err() != nil { // Stop came before there was a process to kill
		_ = p.Kill()
	}
	err = ready(ctx)
	if err == nil {
		err = fault.Point("made", "proxy process")
	}
	if err == nil {
		err = s.serving(updates, config.Layers)
	}
	if err == nil {
		defer s.notServing()
		st.Process, st.UID, st.Started = p, s.uid, time.Now()
		s.notify(*st)
		report(nil)
	} else {
		_ = p.Kill()
	}
	if end := <-exited; err == nil {
		err = end
	}
	if err == nil {
		err = errors.New("proxy exited")
	}
	return err
}

// serving makes updates the way to the current proxy, and gives it the policy that came while it started.
func (s *supervisor) serving(updates net.Conn, has []byte) error {
	s.mu.Lock()
	s.updates = updates
	wants := s.config.Layers
	s.mu.Unlock()
	if bytes.Equal(has, wants) {
		return nil
	}
	return s.setPolicy(wants)
}

func (s *supervisor) notServing() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.updates = nil
}

// wait waits until the first proxy accepts connections, or says why it does not.
func (s *supervisor) wait(ctx context.Context) error {
	s.life.Lock()
	first := s.ready
	s.life.Unlock()
	select {
	case err := <-first:
		first <- err // for the next caller
		if err != nil {
			return fmt.Errorf("proxy: %w", err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("proxy: not ready: %w", context.Cause(ctx))
	}
}

// stop ends the proxy and waits until it is gone. It may be called twice.
func (s *supervisor) stop() {
	s.life.Lock()
	defer s.life.Unlock()
	s.stopped = true
	s.cancel()
	<-s.done
}
