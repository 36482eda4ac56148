package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/log"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/netns"
	"cofferdam.dev/cofferdam/netns/fault"
	"cofferdam.dev/cofferdam/proxy/policy"
	"cofferdam.dev/cofferdam/proxy/process"
	"cofferdam.dev/cofferdam/proxy/record"
	"cofferdam.dev/cofferdam/shim/workspace"
	"cofferdam.dev/cofferdam/shim/workspace/broker"
	"cofferdam.dev/cofferdam/spec"
)

// Request says which container is to become a sandbox.
type Request struct {
	Namespace string // of the engine
	Container string // unique within Namespace
	Bundle    string // absolute path of the OCI bundle; its config.json is rewritten in place
	Runtime   Runtime
	Limits    spec.Limits
	Upstream  Upstream
	Pool      netip.Prefix // of synthetic addresses; zero: process.DefaultPool
	Start     Starter
	// Program is what to run where there is no engine; nil: what the bundle says.
	Program *Program
}

// Program is a container that no engine asks for. What the walls are is the same; what an engine needs is left out: there is no bundle to
// rewrite (see Sandbox.Rewritten), no namespace that an engine may fill, and nothing is pinned, so that GATE ends with this process.
type Program struct {
	Spec   *specs.Spec  // what to start with
	Grants spec.Sandbox // what it may touch; its ID and limits are set here
	Policy Policy
	Home   string // the caller's, which no workspace may be or hold
	// Rootless says that this process is root of a user namespace of an ordinary user's, see spec.Host.
	Rootless bool
	// OneID says that all processes of the agent have this process's id, there.
	OneID bool
	// ProxyID is the user and the group that the proxy becomes, if Rootless; 0: it stays what this process is.
	ProxyID uint32
	// Proxy is the proxy's binary, which the caller trusts; empty: the one beside this executable. In a user namespace it cannot be told
	// any more whose a file is.
	Proxy string
	// Broker is likewise the broker's.
	Broker string
	// Outside are files that this or the next sandbox uses out here: programs, the policy. No grant may let an agent write to them.
	Outside []string
	// Weaker says which layers of the walls this host does not have, for those who look at the sandbox.
	Weaker []string
	// Removed, if not nil, waits until the container is removed, which may happen while Close is at work, and says how that went: the state, by
	// which others would remove it, has to be there until then. It may be called again.
	Removed func() error
}

// Sandbox is one container between its walls. Its methods are called in the order Prepare, Attach, ChooseUplink, Verify, Started, Close; Close may come at
// any time. Methods of one Sandbox may be called from several goroutines.
type Sandbox struct {
	ID   string
	Spec spec.Sandbox
	// Rewritten is the container's spec between its walls.
	Rewritten *specs.Spec

	paths   Paths
	sources *sources

	networked  chan struct{} // closed when what makeNetwork sets is final: the next five, and the steps that it adds to undo
	networkErr error
	gate       *netns.Gate
	box        *os.File // made for the container to join; nil: the engine makes one
	uplink     *netns.Uplink
	records    *record.Log
	proxy      *supervisor
	door       *doorkeeper
	cpus       *cpuGroup // nil: an ordinary user has none

	life    sync.Mutex        // held by what uses the sandbox's parts, and by Close, which takes them down
	undo    undo              // guarded by life once networked is closed
	refused map[string]uint64 // packets that are recorded, by counter of GATE; guarded by life
	// what of workspaces is recorded; guarded by life
	workspaces broker.Report
	policy     Policy // in force; guarded by life
	beside     string // what the policy said beside the network at the start
	rootless   bool

	mu    sync.Mutex
	state State // guarded by mu
}

// Prepare does what must be done before the OCI runtime creates the container: it rewrites the bundle. It begins to make GATE with its
// listeners and to start the proxy, which goes on while the container is being created; Attach waits for it. Everything that can refuse
// the container is decided before the first side effect, the state is on disk before that, and on error nothing is left. No side effect are the
// network namespaces of a Program, which nobody else can find or has to remove: they are made meanwhile.
func Prepare(ctx context.Context, p Paths, r Request) (_ *Sandbox, err error) {
	binary, err := r.proxyBinary()
	if err != nil {
		return nil, err
	}
	var laid <-chan cable
	if r.Program != nil {
		laid = layCable(ctx)
		defer func() {
			if err != nil {
				(<-laid).close()
			}
		}()
	}
	plan, err := describe(p, r, binary)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			plan.sources.Close()
		}
	}()
	layers, err := policy.MarshalLayers(plan.policy.Sources())
	if err != nil {
		return nil, err
	}
	s := &Sandbox{
		ID: plan.state.ID, Spec: plan.state.Sandbox, Rewritten: plan.spec, paths: p, sources: plan.sources,
		networked: make(chan struct{}), state: plan.state, policy: plan.policy, beside: plan.parsed.Sections(), rootless: r.rootless(),
		door: &doorkeeper{shared: p.shared(), config: broker.Config{Sandbox: plan.state.ID, Rules: workspace.Rules(plan.state.Sandbox.Workspace), OneID: r.Program != nil && r.Program.OneID}},
	}
	if s.door.binary, err = r.brokerBinary(); err != nil {
		return nil, err
	}
	if !r.rootless() {
		s.cpus = &cpuGroup{path: plan.state.CPUGroup}
		r.Start = s.cpus.start(r.Start)
	}
	s.door.start = r.Start
	if err := s.claim(r.removed()); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			close(s.networked) // nothing has begun
			err = errors.Join(err, s.Close())
		}
	}()
	if s.cpus != nil {
		if err := s.undo.add("cgroup of proxy and broker", s.cpus.remove); err != nil {
			return nil, err
		}
	}
	if err := s.undo.add("broker", s.door.close); err != nil {
		return nil, err
	}
	if err := os.WriteFile(p.resolvConf(s.ID), []byte(ResolvConf), 0o644); err != nil {
		return nil, fmt.Errorf("make resolv.conf: %w", err)
	}
	if err := fault.Point("made", "resolv.conf"); err != nil {
		return nil, err
	}
	if r.Program == nil {
		if err := spec.WriteBundle(r.Bundle, plan.spec); err != nil {
			return nil, err
		}
	}
	if plan.spec.Linux.Seccomp.ListenerPath != "" {
		if err := s.receiveListeners(ctx, plan.spec.Linux.Seccomp.ListenerPath); err != nil {
			return nil, err
		}
	}
	config := process.Config{
		Sandbox: s.ID, Policy: plan.state.Policy.Name, Layers: layers, AllowRoot: r.rootless() && r.Program.ProxyID == 0, Pool: r.Pool,
		Resolver: r.Upstream.Resolver, Proxy: r.Upstream.Proxy, // not in the state, which is on disk
		Processors: int(math.Ceil(s.Spec.Limits.OrDefault().CPUs)),
	}
	go func() { // ends on its own, with the network or an error
		defer close(s.networked)
		s.networkErr = s.makeNetwork(context.WithoutCancel(ctx), r, binary, config, laid)
	}()
	return s, nil
}

// Plan returns what Prepare would make of the request, and why, and changes nothing.
func Plan(p Paths, r Request) (*specs.Spec, []spec.Change, error) {
	binary, err := r.proxyBinary()
	if err != nil {
		return nil, nil, err
	}
	plan, err := describe(p, r, binary)
	if err != nil {
		return nil, nil, err
	}
	plan.sources.Close()
	return plan.spec, plan.state.Changes, nil
}

// ResolvConf is the resolver configuration of every sandbox, resolv.conf(5): only the gate answers, and no search domain is tried.
var ResolvConf = "nameserver " + netns.GateIP.String() + "\noptions ndots:1 timeout:2 attempts:2\n"

func (r Request) rootless() bool { return r.Program != nil && r.Program.Rootless }

func (r Request) removed() func() error {
	if r.Program == nil {
		return nil
	}
	return r.Program.Removed
}

func (r Request) proxyBinary() (string, error) {
	if r.Program != nil && r.Program.Proxy != "" {
		return r.Program.Proxy, nil
	}
	return FindBinary(ProxyBinary)
}

func (r Request) brokerBinary() (string, error) {
	if r.Program != nil && r.Program.Broker != "" {
		return r.Program.Broker, nil
	}
	return FindBinary(BrokerBinary)
}

// plan is what a bundle becomes; making it changes nothing on the host.
type plan struct {
	state   State
	spec    *specs.Spec
	policy  Policy
	parsed  *policy.Policy
	sources *sources
}

// describe plans the sandbox. outside is a file that is used out here, as those of Program.Outside are.
func describe(p Paths, r Request, outside string) (_ plan, err error) {
	if _, err := CheckKernel(); err != nil {
		return plan{}, err
	}
	id, err := ID(r.Namespace, r.Container)
	if err != nil {
		return plan{}, err
	}
	host, err := hostFacts(p, r.Bundle, p.resolvConf(id))
	if err != nil {
		return plan{}, err
	}
	if r.Program == nil {
		host.Listener = p.listener(id)
	} else {
		host.Rootless = r.Program.Rootless
		host.Protected = append(host.Protected, withTargets([]string{r.Program.Home}, map[string]bool{"/": true})...)
	}
	original, sb, err := r.asked(id)
	if err != nil {
		return plan{}, err
	}
	layers, err := r.policy(p, sb.Network.Policy)
	if err != nil {
		return plan{}, err
	}
	parsed, err := layers.Parse()
	if err != nil {
		return plan{}, err
	}
	if err := r.grant(&sb, parsed); err != nil {
		return plan{}, err
	}
	sources, err := openSources(sb.Files, host)
	if err != nil {
		return plan{}, err
	}
	defer func() {
		if err != nil {
			sources.Close()
		}
	}()
	if err := sources.openRoot(original, host); err != nil {
		return plan{}, err
	}
	sb.Files = sources.rules
	written := slices.Clone(sb.Files)
	if sources.root != nil { // a root file system elsewhere
		written = append(written, spec.FileRule{Source: sources.root.Name(), Access: spec.Write})
	}
	if err := r.keepOutside(written, outside); err != nil {
		return plan{}, err
	}
	if len(sb.Workspace.Hidden) > 0 {
		if host.Hidden, err = sources.hide(workspace.Rules(sb.Workspace)); err != nil {
			return plan{}, err
		}
	}
	rewritten, changes, err := spec.Rewrite(original, sb, host)
	if err != nil {
		return plan{}, err
	}
	state := State{
		ID: id, Namespace: r.Namespace, Container: r.Container, Bundle: r.Bundle, Created: time.Now(), Phase: Creating,
		Shim: processOf(os.Getpid()), Runtime: r.Runtime, Sandbox: sb, Changes: changes, Policy: layers.state(parsed, sb.Files),
	}
	state.Cgroup = rewritten.Linux.CgroupsPath
	if !r.rootless() {
		state.CPUGroup = cpuGroupPath(id)
	}
	if r.Program != nil {
		state.Own, state.Weaker = true, r.Program.Weaker
	}
	return plan{spec: rewritten, policy: layers, parsed: parsed, sources: sources, state: state}, nil
}

// keepOutside refuses grants by which an agent could change what is run or believed out here: a proxy that is started anew, the policy that
// is followed (I5).
func (r Request) keepOutside(files []spec.FileRule, outside ...string) error {
	if r.Program != nil {
		outside = append(outside, r.Program.Outside...)
	}
	for _, path := range outside {
		real, err := filepath.EvalSymlinks(path)
		if err != nil {
			return err
		}
		for _, f := range files {
			if f.Access == spec.Write && (real == f.Source || strings.HasPrefix(real, f.Source+"/")) {
				return &spec.RefusedError{Path: "workspace[" + f.Source + "]", Reason: "it holds " + path + ", which is used outside, and which the agent could change"}
			}
		}
	}
	return nil
}

// asked returns the spec to begin with, and what it asks for.
func (r Request) asked(id string) (*specs.Spec, spec.Sandbox, error) {
	if r.Program != nil {
		sb := r.Program.Grants
		sb.ID = id
		return r.Program.Spec, sb, nil
	}
	original, err := spec.ReadBundle(r.Bundle)
	if err != nil {
		return nil, spec.Sandbox{}, err
	}
	sb, err := spec.Describe(original, id)
	return original, sb, err
}

// claim makes the state folder and takes its lock. What a dead owner left under the same ID is removed first. removed, if not nil, is waited for
// before the state goes.
func (s *Sandbox) claim(removed func() error) error {
	p := s.paths
	for _, dir := range []string{p.State, p.Pins, p.Logs} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	release, err := registry(p)
	if err != nil {
		return err
	}
	defer release()
	if err := fault.Point("made", "folders of all sandboxes"); err != nil {
		return err
	}
	if err := os.Mkdir(p.dir(s.ID), 0o700); errors.Is(err, fs.ErrExist) {
		if Owned(p, s.ID) {
			return fmt.Errorf("sandbox %s: %w", s.ID, fs.ErrExist)
		}
		if err := Teardown(p, s.ID); err != nil {
			return err
		}
		if err := os.Mkdir(p.dir(s.ID), 0o700); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	lock, err := lockFile(p.lock(s.ID), unix.LOCK_EX|unix.LOCK_NB)
	if err != nil {
		return errors.Join(err, os.RemoveAll(p.dir(s.ID)))
	}
	// The lock goes last: a folder without an owner is anybody's to remove, and the next sandbox may have the same ID.
	if err = s.undo.add("lock", lock.Close); err == nil {
		err = s.undo.addRecord("state", func() error { return os.RemoveAll(p.dir(s.ID)) })
	}
	if err == nil && removed != nil {
		err = s.undo.add("removal of the container", removed)
	}
	if err == nil {
		err = s.state.save(p)
	}
	if err != nil {
		return errors.Join(err, s.undo.run("undo"))
	}
	return nil
}

// cable is a GATE and a BOX that is plugged into it, both pinned nowhere.
type cable struct {
	gate *netns.Gate
	box  *os.File
	err  error // there is neither
}

// layCable makes one while other things are done. It sends once.
func layCable(ctx context.Context) <-chan cable {
	laid := make(chan cable, 1)
	go func() { // ends with the cable
		var c cable
		if c.gate, c.err = netns.New(ctx); c.err == nil {
			if c.box, c.err = c.gate.MakeBox(); c.err != nil {
				c.gate.Close()
			}
		}
		laid <- c
	}()
	return laid
}

func (c cable) close() {
	if c.err == nil {
		c.box.Close()
		c.gate.Close()
	}
}

// makeNetwork makes GATE, unless a cable is laid to one, its listeners and the proxy that serves them.
func (s *Sandbox) makeNetwork(ctx context.Context, r Request, binary string, config process.Config, laid <-chan cable) (err error) {
	p := s.paths
	if laid != nil {
		c := <-laid
		if s.gate, s.box, err = c.gate, c.box, c.err; err != nil {
			return err
		}
		if err := s.undo.add("box", s.box.Close); err != nil {
			return err
		}
	} else {
		if err := s.undo.add("gate", func() error { return netns.Teardown(p.Pins, s.ID) }); err != nil {
			return err
		}
		if s.gate, err = netns.Setup(ctx, p.Pins, s.ID); err != nil {
			return err
		}
	}
	if err := s.undo.add("gate descriptor", s.gate.Close); err != nil {
		return err
	}
	l, err := s.gate.Listen()
	if err != nil {
		return err
	}
	if err := s.undo.add("listeners", l.Close); err != nil {
		return err
	}
	// The log outlives the sandbox, and the proxy only hands records to it. Names live as long as the sandbox; their file is opened here,
	// since the proxy has no rights on any folder.
	if s.records, err = record.OpenLog(p.Log(s.ID), s.ID, record.Limits{}); err != nil {
		return err
	}
	if err := s.undo.add("decision log", s.records.Close); err != nil {
		return err
	}
	if err := s.undo.add("what no proxy sees", func() error { s.recordUnseen(ctx); return nil }); err != nil {
		return err
	}
	names, err := os.OpenFile(p.names(s.ID), os.O_CREATE|os.O_EXCL|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("names: %w", err)
	}
	if err := s.undo.add("names", names.Close); err != nil {
		return err
	}
	complaints, err := os.OpenFile(p.complaints(s.ID), os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("proxy's stderr: %w", err)
	}
	if err := s.undo.add("proxy's stderr", complaints.Close); err != nil {
		return err
	}
	s.door.complain(complaints)
	s.proxy = &supervisor{
		binary: binary,
		config: config,
		files:  process.Files{TCP: l.TCP, DNS: l.DNS, Names: names},
		log:    s.records,
		uid:    r.proxyUID(s.ID),
		start:  r.Start,
		stderr: complaints,
		notify: s.proxyChanged,
	}
	s.proxy.run(log.WithLogger(ctx, log.G(ctx).WithField("sandbox", s.ID)))
	if err := s.undo.add("proxy", func() error { s.proxy.stop(); return nil }); err != nil {
		return err
	}
	if r.Program != nil {
		return nil // nobody fills a namespace for it
	}
	if s.uplink, err = netns.NewUplink(); err != nil {
		return err
	}
	return s.undo.add("uplink", s.uplink.Close)
}

// proxyChanged records a proxy that became ready.
func (s *Sandbox) proxyChanged(st ProxyState) {
	s.update(func(state *State) { state.Proxy = st })
}

// update changes the state and saves it. What cannot be saved is told: Teardown does not depend on it.
func (s *Sandbox) update(f func(*State)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.Phase == Removing {
		return
	}
	f(&s.state)
	if err := s.state.save(s.paths); err != nil {
		log.L.WithError(err).WithField("sandbox", s.ID).Error("save state")
	}
}

// EnterBox moves the calling thread into the network namespace in which the container of a Program is to be, which is plugged into GATE already; what
// the thread starts is in there too. It waits until that is there. The thread must be locked and end with its goroutine: there may be no way back.
func (s *Sandbox) EnterBox() error {
	<-s.networked
	if s.networkErr != nil {
		return s.networkErr
	}
	return netns.Enter(s.box)
}

// Attach joins the network namespace of the container's first process, which exists but has not been started, to GATE, if it was not made for that,
// compares what was mounted with what was checked, and waits until the proxy serves.
func (s *Sandbox) Attach(ctx context.Context, pid int) error {
	box, err := openBox(pid)
	if err != nil {
		return err
	}
	defer box.Close()
	release, err := s.use()
	if err != nil {
		return err
	}
	defer release()
	s.update(func(st *State) { st.Agent = processOf(pid) })
	if err := s.attach(box, pid); err != nil {
		return err
	}
	written, err := s.sources.verify(pid)
	if err != nil {
		return err
	}
	err = errors.Join(s.keepHidden(ctx, pid), s.keepDoor(pid, written))
	s.sources.Close()
	if err != nil {
		return err
	}
	if err := fault.Point("made", "door"); err != nil {
		return err
	}
	if err := s.proxy.wait(ctx); err != nil {
		return err
	}
	if s.box == nil { // an engine may leave it like that for a while
		s.update(func(st *State) { st.Phase = Created })
	}
	return fault.Point("made", "attached sandbox")
}

// attach joins a container's network namespace to GATE, or finds it to be the one that was.
func (s *Sandbox) attach(box *os.File, pid int) error {
	if s.box == nil {
		return s.gate.Attach(box)
	}
	same, err := sameFile(box, s.box)
	if err == nil && !same {
		err = fmt.Errorf("process %d is not in the network namespace that was made for it", pid)
	}
	return err
}

// keepDoor makes ready what answers an agent that wants to write to a workspace.
func (s *Sandbox) keepDoor(pid int, written []broker.Tree) error {
	if len(written) == 0 {
		return nil
	}
	mounts, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err != nil {
		for _, f := range written {
			f.Close()
		}
		return err
	}
	s.door.place(broker.Files{Mounts: mounts, Trees: written})
	return nil
}

// Listen takes over the listener of a filter that asks, of one process of the sandbox and what it starts.
func (s *Sandbox) Listen(ctx context.Context, l *os.File) error {
	return s.door.add(log.WithLogger(ctx, log.G(ctx).WithField("sandbox", s.ID)), l)
}

// use keeps Close away from the sandbox's parts until release is called. It fails if they could not be made or are gone.
func (s *Sandbox) use() (release func(), err error) {
	<-s.networked
	if s.networkErr != nil {
		return nil, s.networkErr
	}
	s.life.Lock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.Phase == Removing {
		s.life.Unlock()
		return nil, fmt.Errorf("sandbox %s: is being removed", s.ID)
	}
	return s.life.Unlock, nil
}

// Holder is the number of the process, in truth a thread, that an engine is to take for the container's first one until the container
// starts: engines give the network namespace that they find by it an interface (ctr --cni, Docker from 28 on). It is the namespace in
// which the proxy then dials, not the agent's.
func (s *Sandbox) Holder() int {
	<-s.networked
	if s.networkErr != nil {
		return 0
	}
	return s.uplink.Thread()
}

// ChooseUplink moves the proxy into the holder's network namespace if the engine has put an interface there, and waits until it serves.
// Otherwise the proxy stays in the caller's.
func (s *Sandbox) ChooseUplink(ctx context.Context) error {
	release, err := s.use()
	if err != nil {
		return err
	}
	defer release()
	links, err := s.uplink.Links()
	if err != nil || len(links) == 0 {
		return err
	}
	if err := s.proxy.moveTo(ctx, s.uplink.NS()); err != nil {
		return err
	}
	s.update(func(st *State) { st.Uplink = links })
	return fault.Point("made", "way through the engine's network")
}

// Verify looks, right before the container starts, whether its network namespace still holds nothing but lo and the veth: an engine may
// have plugged an interface of its own in after Attach. From here on it is the agent who asks to write to a workspace.
func (s *Sandbox) Verify(pid int) error {
	box, err := openBox(pid)
	if err != nil {
		return err
	}
	defer box.Close()
	release, err := s.use()
	if err != nil {
		return err
	}
	defer release()
	if err := s.gate.Verify(box); err != nil {
		return err
	}
	s.door.open()
	return fault.Point("made", "verified sandbox")
}

// Started records that the agent runs. There is no holder from here on.
func (s *Sandbox) Started() {
	if s.uplink != nil {
		s.uplink.Leave()
	}
	s.update(func(st *State) { st.Phase = Running })
}

// openBox opens the network namespace of a process, which must not be our own: a container without one would get our veth, addresses
// and routes into the host's namespace.
func openBox(pid int) (*os.File, error) {
	box, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return nil, err
	}
	own, err := os.Open("/proc/thread-self/ns/net")
	if err == nil {
		defer own.Close()
		var same bool
		if same, err = sameFile(box, own); err == nil && same {
			err = fmt.Errorf("process %d has no network namespace of its own", pid)
		}
	}
	if err != nil {
		box.Close()
		return nil, err
	}
	return box, nil
}

// Close takes the sandbox down: proxy, listeners, GATE, state. What it could not take down is left to Teardown, and the state with it. It may
// be called again, and does nothing then: the ID may be another sandbox's.
func (s *Sandbox) Close() error {
	s.mu.Lock()
	s.state.Phase = Removing
	s.mu.Unlock()
	<-s.networked
	s.life.Lock()
	defer s.life.Unlock()
	s.sources.Close()
	err := s.undo.run("undo")
	s.undo = undo{}
	if err != nil {
		return fmt.Errorf("sandbox %s: %w", s.ID, err)
	}
	return nil
}

// Teardown removes everything that may be left of a sandbox, knowing its ID alone. It works after a SIGKILL of anything, may be called
// twice, and must not be called while a living process owns the sandbox (see Owned). The decision log stays.
func Teardown(p Paths, id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	var st State // zero: nothing is known
	switch known, err := Load(p, id); {
	case err == nil:
		st = *known
	case errors.As(err, new(*fs.PathError)) && !errors.Is(err, fs.ErrNotExist): // it may be read another time
		return fmt.Errorf("tear down sandbox %s: %w", id, err)
	}
	agent := func() error {
		if !st.Own {
			return removeEmptyCgroup(st.Cgroup)
		}
		return errors.Join(st.Agent.Kill(), removeCgroup(st.Cgroup))
	}
	// From the last to the first, as if they had been made here.
	left := undo{[]undoStep{
		{"state", func() error { return os.RemoveAll(p.dir(id)) }, true},
		{"what brokers share", func() error { return sweepShared(p.shared()) }, false},
		{"listener socket", func() error { return os.RemoveAll(p.listener(id)) }, false},
		{"gate", func() error { return netns.Teardown(p.Pins, id) }, false},
		{"agent", agent, false},
		{"cgroup of proxy and broker", func() error { return removeCgroup(st.CPUGroup) }, false},
		{"proxy", st.Proxy.Kill, false},
	}}
	if err := left.run("teardown"); err != nil {
		return fmt.Errorf("tear down sandbox %s: %w", id, err)
	}
	return nil
}

// Collect tears down every sandbox that nobody owns any more and returns their IDs. It removes the oldest logs, too, where there are too many.
func Collect(p Paths) ([]string, error) {
	return collect(p, func() error { return pruneLogs(p, maxLogs) })
}

// CollectSandboxes leaves the logs as they are: how long it takes does not grow with the number of sandboxes that have been.
func CollectSandboxes(p Paths) ([]string, error) { return collect(p, func() error { return nil }) }

// collect tears down what nobody owns, and goes on with more under the registry's lock.
func collect(p Paths, more func() error) ([]string, error) {
	if _, err := os.Stat(p.State); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	release, err := registry(p)
	if err != nil {
		return nil, err
	}
	defer release()
	states, err := List(p)
	if err != nil {
		return nil, err
	}
	pins, err := netns.List(p.Pins)
	if err != nil {
		return nil, err
	}
	var (
		gone []string
		errs []error
		seen = map[string]bool{}
	)
	for _, id := range append(states, pins...) {
		if seen[id] || Owned(p, id) {
			continue
		}
		seen[id] = true
		if err := Teardown(p, id); err != nil {
			errs = append(errs, err)
			continue
		}
		gone = append(gone, id)
	}
	return gone, errors.Join(append(errs, more())...)
}

// maxLogs is how many bytes of decision logs are kept of sandboxes that are gone.
const maxLogs = 1 << 30

// pruneLogs removes the oldest log files of sandboxes that are gone, until at most limit bytes of such files are left. It needs the
// registry's lock: without an owner a sandbox then is none.
func pruneLogs(p Paths, limit int64) error {
	entries, err := os.ReadDir(p.Logs)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	var files []fs.FileInfo
	for _, e := range entries {
		id, ok := LogID(e.Name())
		if !ok || Owned(p, id) {
			continue
		}
		if info, err := e.Info(); err == nil { // else it is gone
			files = append(files, info)
		}
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return b.ModTime().Compare(a.ModTime()) })
	var errs []error
	for _, info := range files {
		if limit -= info.Size(); limit < 0 {
			errs = append(errs, os.Remove(filepath.Join(p.Logs, info.Name())))
		}
	}
	return errors.Join(errs...)
}
