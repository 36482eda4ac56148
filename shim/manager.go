package shim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	apitypes "github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/manager"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/process"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/runc"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	cshim "github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/errdefs"
	gorunc "github.com/containerd/go-runc"
	"github.com/containerd/log"
	"github.com/containerd/typeurl/v2"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"cofferdam.dev/cofferdam/netns/fault"
	"cofferdam.dev/cofferdam/shim/sandbox"
)

// Name is the containerd runtime that this shim is.
const Name = "io.containerd.cofferdam.v1"

// Run is the shim's main function: it serves one invocation by containerd and exits the process on an error.
func Run(ctx context.Context) {
	hurry()
	m := shimManager{Shim: manager.NewShimManager(Name), paths: sandbox.DefaultPaths()}
	// A command line that does not parse is left to containerd's code, which parses again and says what is wrong.
	f, _ := parseStartFlags(os.Args[1:])
	m.containerd = f.address
	handled, err := start(ctx, m, f)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", Name, err)
		os.Exit(1)
	}
	if handled {
		return
	}
	cshim.RunShim(ctx, m)
}

// start serves the action "start" of an engine that speaks the old protocol; it leaves everything else to containerd's own code.
func start(ctx context.Context, m cshim.Shim, f startFlags) (handled bool, err error) {
	if f.action != "start" {
		return false, nil
	}
	in, err := io.ReadAll(io.LimitReader(os.Stdin, maxBootstrap))
	if err != nil {
		return true, fmt.Errorf("start: read stdin: %w", err)
	}
	if !modern(in, f) {
		return true, startLegacy(ctx, m, f, in, os.Getenv("TTRPC_ADDRESS"), os.Stdout)
	}
	// containerd's code reads the parameters from stdin: give them back.
	r, w, err := os.Pipe()
	if err != nil {
		return true, err
	}
	go func() { // ends when the reader has read all of it, or with the process
		_, _ = w.Write(in)
		w.Close()
	}()
	os.Stdin = r
	return false, nil
}

// shimManager starts and removes shim processes. Start is containerd's own.
type shimManager struct {
	cshim.Shim
	paths      sandbox.Paths
	containerd string // address of the containerd that called
}

// Stop removes what a dead shim left. containerd runs it in a process of its own and waits 5 seconds: the container goes first, by the
// OCI runtime, and what the sandbox had is taken down even if that fails.
func (m shimManager) Stop(ctx context.Context, id string) (cshim.StopStatus, error) {
	hurry()
	namespace, err := namespaces.NamespaceRequired(ctx)
	if err != nil {
		return cshim.StopStatus{}, err
	}
	bundle, err := os.Getwd()
	if err != nil {
		return cshim.StopStatus{}, err
	}
	name, err := sandbox.ID(namespace, id)
	if err != nil {
		return cshim.StopStatus{}, err
	}
	bundle = filepath.Join(filepath.Dir(bundle), id)
	m.removeSockets(ctx, id, bundle)       // first: containerd removes the bundle, which has their names, even if this process is killed
	defer m.removeSockets(ctx, id, bundle) // and once more: a shim that was just killed may have answered still
	status, err := m.removeContainer(ctx, namespace, id, bundle)
	err = errors.Join(err, fault.Point("delete", "container"))
	if sandbox.Owned(m.paths, name) { // its shim lives: it has other containers, and takes this one's sandbox down itself
		log.G(ctx).WithField("sandbox", name).Warn("left to its living shim")
	} else if terr := sandbox.Teardown(m.paths, name); terr != nil {
		log.G(ctx).WithError(terr).Error("tear down sandbox") // the container is gone; gc tries again
	}
	return status, errors.Join(err, fault.Point("delete", "sandbox"))
}

// removeContainer has containerd's code remove the container by force, unless it is gone. It usually is: containerd runs "delete" after
// every container, and asking an OCI runtime about one that does not exist costs a tenth of the whole run.
func (m shimManager) removeContainer(ctx context.Context, namespace, id, bundle string) (cshim.StopStatus, error) {
	opts, err := runc.ReadOptions(bundle)
	if err != nil {
		return cshim.StopStatus{}, err
	}
	root := process.RuncRoot
	if opts != nil && opts.Root != "" {
		root = opts.Root
	}
	// runc and crun keep one folder per container.
	_, serr := os.Lstat(filepath.Join(root, namespace, id))
	mounted, merr := mountinfo.Mounted(filepath.Join(bundle, "rootfs"))
	if !errors.Is(serr, fs.ErrNotExist) || mounted || merr != nil && !errors.Is(merr, fs.ErrNotExist) {
		return m.Shim.Stop(ctx, id)
	}
	pid, err := gorunc.ReadPidFile(filepath.Join(bundle, process.InitPidFile))
	if err != nil {
		log.G(ctx).WithError(err).Debug("read init pid file")
	}
	return cshim.StopStatus{Pid: pid, ExitedAt: time.Now(), ExitStatus: 128 + int(unix.SIGKILL)}, nil
}

// removeSockets removes the socket files that a killed shim leaves, the one for tasks and, where containerd logs at debug level, the one
// for profiles; unless a shim still answers, as one that serves several containers does.
func (m shimManager) removeSockets(ctx context.Context, id, bundle string) {
	address, err := shimAddress(bundle)
	if err != nil || address == "" {
		return
	}
	addresses := []string{address}
	dir := filepath.Dir(strings.TrimPrefix(address, "unix://"))
	if debug, err := cshim.CreateSocketAddress(ctx, dir, m.containerd, id, true); err == nil {
		addresses = append(addresses, debug)
	}
	for _, a := range addresses {
		if cshim.CanConnect(a) {
			continue
		}
		if err := cshim.RemoveSocket(a); err != nil && !errors.Is(err, fs.ErrNotExist) {
			log.G(ctx).WithError(err).Warn("remove socket of a dead shim")
		}
	}
}

// shimAddress reads where a shim listened: containerd up to 1.7 keeps it in the file "address", later ones in bootstrap.json.
func shimAddress(bundle string) (string, error) {
	if a, err := cshim.ReadAddress(filepath.Join(bundle, "address")); err == nil {
		return a, nil
	}
	b, err := os.ReadFile(filepath.Join(bundle, "bootstrap.json"))
	if err != nil {
		return "", err
	}
	var p struct {
		Address string `json:"address"`
	}
	err = json.Unmarshal(b, &p)
	return p.Address, err
}

// Info describes the runtime. containerd's code knows runc's options only: others are replaced by what the configuration says.
func (m shimManager) Info(ctx context.Context, optionsR io.Reader) (*apitypes.RuntimeInfo, error) {
	in, err := io.ReadAll(io.LimitReader(optionsR, maxBootstrap))
	if err != nil {
		return nil, err
	}
	var a anypb.Any
	if err := proto.Unmarshal(in, &a); err != nil {
		return nil, fmt.Errorf("runtime options: %w", err)
	}
	opts, err := readOptions(&a)
	if err != nil {
		return nil, err
	}
	config, err := sandbox.LoadConfigs(m.paths.Config, opts.config)
	if err != nil {
		return nil, err
	}
	if opts.runc.BinaryName == "" {
		opts.runc.BinaryName = config.Runtime
	}
	out, err := typeurl.MarshalAnyToProto(opts.runc)
	if err != nil {
		return nil, err
	}
	b, err := proto.Marshal(out)
	if err != nil {
		return nil, err
	}
	info, err := m.Shim.Info(ctx, bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrUnavailable)
	}
	return info, nil
}
