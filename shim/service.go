package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/sys/reaper"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/log"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"cofferdam.dev/cofferdam/netns/fault"
	"cofferdam.dev/cofferdam/shim/sandbox"
	"cofferdam.dev/cofferdam/spec"
)

// service is the task service of one shim process. Engines group the containers of a pod in one shim, so it may hold several sandboxes.
type service struct {
	taskapi.TTRPCTaskService // the runc task service; a method that is not below is its own

	paths   sandbox.Paths
	collect sync.Once

	mu         sync.Mutex
	containers map[string]*container // by container ID; guarded by mu
}

type container struct {
	sandbox *sandbox.Sandbox
	pid     atomic.Int64 // of the first process; 0 until it exists
	started atomic.Bool  // Start has succeeded
}

// shownPid is the process that the engine is told of: until the container starts it is the one in whose network namespace the engine may
// put interfaces, which is not the agent's.
func (c *container) shownPid() uint32 {
	if c.started.Load() {
		return uint32(c.pid.Load())
	}
	return uint32(c.sandbox.Holder())
}

func newService(inner taskapi.TTRPCTaskService, p sandbox.Paths) *service {
	return &service{TTRPCTaskService: inner, paths: p, containers: map[string]*container{}}
}

func (s *service) get(id string) (*container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.containers[id]
	if !ok {
		return nil, fmt.Errorf("container %s: %w", id, errdefs.ErrNotFound)
	}
	return c, nil
}

// take removes a container from the service and returns it; nil if there is none.
func (s *service) take(id string) *container {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.containers[id]
	delete(s.containers, id)
	return c
}

// Create sets both walls up and creates the container between them. On an error nothing is left of it.
func (s *service) Create(ctx context.Context, r *taskapi.CreateTaskRequest) (*taskapi.CreateTaskResponse, error) {
	resp, err := s.create(ctx, r)
	if err != nil {
		return nil, toGRPC(fmt.Errorf("cofferdam: %w", err))
	}
	return resp, nil
}

func (s *service) create(ctx context.Context, r *taskapi.CreateTaskRequest) (_ *taskapi.CreateTaskResponse, err error) {
	ctx = log.WithLogger(ctx, log.G(ctx).WithField("container_id", r.ID))
	if r.Checkpoint != "" {
		return nil, &spec.RefusedError{Path: "checkpoint", Reason: "a restored process has not gone through the rules of this sandbox"}
	}
	if err := checkStdio(r.Stdin, r.Stdout, r.Stderr); err != nil {
		return nil, err
	}
	namespace, err := namespaces.NamespaceRequired(ctx)
	if err != nil {
		return nil, err
	}
	opts, err := readOptions(r.Options)
	if err != nil {
		return nil, err
	}
	config, err := sandbox.LoadConfigs(s.paths.Config, opts.config)
	if err != nil {
		return nil, err
	}
	runtime, err := findRuntime(ctx, s.paths, config, opts.runc.BinaryName)
	if err != nil {
		return nil, err
	}
	sb, err := sandbox.Prepare(ctx, s.paths, sandbox.Request{
		Namespace: namespace, Container: r.ID, Bundle: r.Bundle, Runtime: runtime, Limits: config.Limits,
		Upstream: config.Upstream, Pool: config.Pool, Start: startChild,
	})
	if err != nil {
		return nil, err
	}
	opts.runc.BinaryName = runtime.Path
	opts.runc.SystemdCgroup = opts.runc.SystemdCgroup || systemdCgroup(sb.Rewritten.Linux.CgroupsPath)
	if r.Options, err = typeurl.MarshalAnyToProto(opts.runc); err != nil {
		return nil, errors.Join(err, sb.Close())
	}
	// From here on a Delete that comes early finds the sandbox; Attach then fails.
	c := &container{sandbox: sb}
	s.mu.Lock()
	s.containers[r.ID] = c
	s.mu.Unlock()
	defer func() {
		if err != nil {
			s.take(r.ID)
			err = errors.Join(err, sb.Close())
		}
	}()
	if err := fault.Point("shim", "prepared sandbox"); err != nil {
		return nil, err
	}
	resp, err := s.TTRPCTaskService.Create(ctx, r)
	if err != nil {
		return nil, err
	}
	if err = fault.Point("shim", "container"); err == nil {
		err = sb.Attach(ctx, int(resp.Pid))
	}
	if err != nil {
		return nil, errors.Join(err, s.destroy(ctx, r.ID))
	}
	c.pid.Store(int64(resp.Pid))
	resp.Pid = c.shownPid()
	return resp, nil
}

// destroy removes a container that was created and not started.
func (s *service) destroy(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	_, kerr := s.TTRPCTaskService.Kill(ctx, &taskapi.KillRequest{ID: id, Signal: uint32(unix.SIGKILL), All: true})
	_, derr := s.TTRPCTaskService.Delete(ctx, &taskapi.DeleteRequest{ID: id})
	if derr != nil {
		return errors.Join(kerr, derr)
	}
	return nil
}

// findRuntime chooses the OCI runtime: the engine's word, else the administrator's, else runc.
func findRuntime(ctx context.Context, p sandbox.Paths, c sandbox.Config, binary string) (sandbox.Runtime, error) {
	for _, name := range []string{c.Runtime, "runc"} {
		if binary == "" {
			binary = name
		}
	}
	r, err := sandbox.FindRuntime(ctx, p.Cache, binary, startChild)
	if err != nil || r.Warning == "" {
		return r, err
	}
	if c.FixedRuntimeFor != "" {
		return r, &spec.RefusedError{Path: c.FixedRuntimeFor + ": require_fixed_runtime", Reason: r.Warning}
	}
	log.G(ctx).WithField("path", r.Path).Warn(r.Warning)
	return r, nil
}

// startChild starts a process that the shim's own wait4(-1) reaps.
func startChild(cmd *exec.Cmd) (<-chan error, error) {
	exits, err := reaper.Default.Start(cmd)
	if err != nil {
		return nil, err
	}
	exited := make(chan error, 1)
	go func() { // ends with the process
		status, err := reaper.Default.Wait(cmd, exits)
		if err == nil && status != 0 {
			err = fmt.Errorf("exit status %d", status)
		}
		exited <- err
	}()
	return exited, nil
}

// quietTime is how long after a container's start this process begins to follow its policy, which it reads again then, and to tidy up.
const quietTime = 500 * time.Millisecond

// Start starts the container, or a process that Exec added.
func (s *service) Start(ctx context.Context, r *taskapi.StartRequest) (*taskapi.StartResponse, error) {
	c, err := s.get(r.ID)
	if err != nil {
		return nil, toGRPC(err)
	}
	if r.ExecID != "" {
		return s.TTRPCTaskService.Start(ctx, r)
	}
	if err := c.sandbox.ChooseUplink(ctx); err != nil {
		return nil, toGRPC(fmt.Errorf("cofferdam: not started: %w", err))
	}
	if err := c.sandbox.Verify(int(c.pid.Load())); err != nil {
		return nil, toGRPC(fmt.Errorf("cofferdam: not started: %w", err))
	}
	resp, err := s.TTRPCTaskService.Start(ctx, r)
	if err == nil {
		err = fault.Point("shim", "started agent")
	}
	if err != nil {
		return nil, err
	}
	c.started.Store(true)
	c.sandbox.Started()
	// What can wait leaves the processors to the agent's first steps; a container that has ended by then needs none of it.
	time.AfterFunc(quietTime, func() {
		c.sandbox.Watch(context.WithoutCancel(ctx))
		s.collect.Do(func() {
			settle()
			s.collectGarbage(context.WithoutCancel(ctx))
		})
	})
	return resp, nil
}

// State and Connect show the process of [container.shownPid] as the container's first one.
func (s *service) State(ctx context.Context, r *taskapi.StateRequest) (*taskapi.StateResponse, error) {
	resp, err := s.TTRPCTaskService.State(ctx, r)
	if c, _ := s.get(r.ID); err == nil && c != nil && r.ExecID == "" && c.pid.Load() != 0 {
		resp.Pid = c.shownPid()
	}
	return resp, err
}

// Connect: see State.
func (s *service) Connect(ctx context.Context, r *taskapi.ConnectRequest) (*taskapi.ConnectResponse, error) {
	resp, err := s.TTRPCTaskService.Connect(ctx, r)
	if c, _ := s.get(r.ID); err == nil && c != nil && c.pid.Load() != 0 {
		resp.TaskPid = c.shownPid()
	}
	return resp, err
}

// reload has every sandbox read its policy again.
func (s *service) reload() {
	s.mu.Lock()
	all := slices.Collect(maps.Values(s.containers))
	s.mu.Unlock()
	for _, c := range all {
		c.sandbox.Reload()
	}
}

// collectGarbage removes what sandboxes without an owner left, once in the life of a shim.
func (s *service) collectGarbage(ctx context.Context) {
	gone, err := sandbox.Collect(s.paths)
	if err != nil {
		log.G(ctx).WithError(err).Error("collect garbage")
	}
	if len(gone) > 0 {
		log.G(ctx).WithField("sandboxes", gone).Info("collected garbage")
	}
}

// Exec adds a process to a container. The request carries a process of its own, which goes through the same rules as the first one.
func (s *service) Exec(ctx context.Context, r *taskapi.ExecProcessRequest) (*emptypb.Empty, error) {
	c, err := s.get(r.ID)
	if err != nil {
		return nil, toGRPC(err)
	}
	if err := checkStdio(r.Stdin, r.Stdout, r.Stderr); err != nil {
		return nil, toGRPC(fmt.Errorf("cofferdam: exec: %w", err))
	}
	if r.Spec, err = rewriteExec(r.Spec, c.sandbox.Spec); err != nil {
		return nil, toGRPC(fmt.Errorf("cofferdam: exec: %w", err))
	}
	return s.TTRPCTaskService.Exec(ctx, r)
}

func rewriteExec(a *anypb.Any, sb spec.Sandbox) (*anypb.Any, error) {
	p, err := spec.DecodeProcess(a.GetValue())
	if err != nil {
		return nil, err
	}
	p, _, err = spec.RewriteProcess(p, sb)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	return &anypb.Any{TypeUrl: a.GetTypeUrl(), Value: b}, nil
}

// Update changes a running container's resources, within the limits of its sandbox.
func (s *service) Update(ctx context.Context, r *taskapi.UpdateTaskRequest) (*emptypb.Empty, error) {
	c, err := s.get(r.ID)
	if err != nil {
		return nil, toGRPC(err)
	}
	if r.Resources, err = rewriteUpdate(r.Resources, c.sandbox.Spec.Limits); err != nil {
		return nil, toGRPC(fmt.Errorf("cofferdam: update: %w", err))
	}
	return s.TTRPCTaskService.Update(ctx, r)
}

func rewriteUpdate(a *anypb.Any, l spec.Limits) (*anypb.Any, error) {
	var res specs.LinuxResources
	if err := json.Unmarshal(a.GetValue(), &res); err != nil {
		return nil, fmt.Errorf("resources: %w", err)
	}
	rewritten, _, err := spec.RewriteUpdate(&res, l)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(rewritten)
	if err != nil {
		return nil, err
	}
	return &anypb.Any{TypeUrl: a.GetTypeUrl(), Value: b}, nil
}

// Checkpoint is refused: what it writes could only be restored outside of the walls.
func (s *service) Checkpoint(context.Context, *taskapi.CheckpointTaskRequest) (*emptypb.Empty, error) {
	return nil, toGRPC(fmt.Errorf("cofferdam: checkpoint: %w", errdefs.ErrNotImplemented))
}

// Delete removes a container with its sandbox, or a process that Exec added.
func (s *service) Delete(ctx context.Context, r *taskapi.DeleteRequest) (*taskapi.DeleteResponse, error) {
	if r.ExecID != "" {
		return s.TTRPCTaskService.Delete(ctx, r)
	}
	closed := make(chan struct{})
	close(closed)
	if s.stopped(ctx, r.ID) {
		// Nothing of it runs any more: the sandbox goes while the OCI runtime removes the container.
		closed = make(chan struct{})
		go func() {
			defer close(closed)
			s.closeSandbox(ctx, r.ID)
		}()
	}
	resp, err := s.TTRPCTaskService.Delete(ctx, r)
	<-closed
	if err == nil {
		s.closeSandbox(ctx, r.ID) // one that was created and never started
	}
	return resp, err
}

// closeSandbox takes the sandbox of a container down, if it has one still. A leftover must not keep the engine from forgetting the
// container: it is told and left to garbage collection.
func (s *service) closeSandbox(ctx context.Context, id string) {
	c := s.take(id)
	if c == nil {
		return
	}
	if err := c.sandbox.Close(); err != nil {
		log.G(ctx).WithError(err).WithField("container_id", id).Error("close sandbox")
	}
}

// stopped reports whether the first process of a container has run and ended.
func (s *service) stopped(ctx context.Context, id string) bool {
	st, err := s.State(ctx, &taskapi.StateRequest{ID: id})
	return err == nil && st.Status == tasktypes.Status_STOPPED
}

// closeAll takes down what is left when the shim shuts down.
func (s *service) closeAll(context.Context) error {
	s.mu.Lock()
	left := s.containers
	s.containers = map[string]*container{}
	s.mu.Unlock()
	var errs []error
	for _, c := range left {
		errs = append(errs, c.sandbox.Close())
	}
	return errors.Join(errs...)
}

// toGRPC converts an error for the engine: a refusal and bad input are told apart from our own failures.
func toGRPC(err error) error {
	var refused *spec.RefusedError
	switch {
	case errors.As(err, &refused):
		err = fmt.Errorf("%w: %w", err, errdefs.ErrPermissionDenied)
	case errors.Is(err, fs.ErrExist):
		err = fmt.Errorf("%w: %w", err, errdefs.ErrAlreadyExists)
	}
	return errgrpc.ToGRPC(err)
}
