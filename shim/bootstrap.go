package shim

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	cshim "github.com/containerd/containerd/v2/pkg/shim"
	"google.golang.org/protobuf/proto"
)

// maxBootstrap bounds what is read from an engine's pipe, in bytes; containerd's own bound.
const maxBootstrap = 10 << 20

// startFlags are what containerd puts on the command line of "start". Unknown flags are an error: they would be a protocol that this
// binary does not know.
type startFlags struct {
	namespace, id, address, publishBinary string
	debug                                 bool
	action                                string
}

func parseStartFlags(args []string) (startFlags, error) {
	var f startFlags
	fl := flag.NewFlagSet("shim", flag.ContinueOnError)
	fl.SetOutput(io.Discard)
	fl.StringVar(&f.namespace, "namespace", "", "")
	fl.StringVar(&f.id, "id", "", "")
	fl.StringVar(&f.address, "address", "", "")
	fl.StringVar(&f.publishBinary, "publish-binary", "", "")
	fl.BoolVar(&f.debug, "debug", false, "")
	for _, unused := range []string{"bundle", "socket", "debug-socket"} {
		fl.String(unused, "", "")
	}
	for _, unused := range []string{"v", "version", "info"} {
		fl.Bool(unused, false, "")
	}
	if err := fl.Parse(args); err != nil {
		return f, err
	}
	f.action = fl.Arg(0)
	return f, nil
}

// modern reports whether an engine sent the bootstrap parameters of containerd 2.3 and later. Up to 2.2 the same pipe holds the runtime
// options, which may well parse as bootstrap parameters (both are protobuf, and the fields' numbers overlap); so the parameters must also
// say what the command line says.
func modern(in []byte, f startFlags) bool {
	var p bootapi.BootstrapParams
	return len(in) > 0 && proto.Unmarshal(in, &p) == nil && f.id != "" && p.InstanceID == f.id && p.Namespace == f.namespace
}

// startLegacy serves "start" for containerd 1.6 to 2.2: the answer on stdout is the bare address, which those take as protocol ttrpc,
// version 2; 1.6 and 1.7 find it again after a restart in the file "address" of the bundle, their working directory.
func startLegacy(ctx context.Context, m cshim.Shim, f startFlags, in []byte, ttrpcAddress string, stdout io.Writer) error {
	if f.namespace == "" || f.id == "" {
		return fmt.Errorf("start: no -namespace or no -id")
	}
	p := &bootapi.BootstrapParams{
		InstanceID:             f.id,
		Namespace:              f.namespace,
		ContainerdGrpcAddress:  f.address,
		ContainerdTtrpcAddress: ttrpcAddress,
		ContainerdBinary:       f.publishBinary,
	}
	if f.debug {
		p.LogLevel = bootapi.LogLevel_LOG_LEVEL_DEBUG
	}
	// Only the shim's own cgroup is read from the options at this point; options of another type have none.
	if o, err := cshim.ReadRuntimeOptions[*runcoptions.Options](bytes.NewReader(in)); err == nil {
		if err := p.AddExtension(o); err != nil {
			return err
		}
	}
	res, err := m.Start(namespaces.WithNamespace(ctx, f.namespace), p)
	if err != nil {
		return err
	}
	if err := os.WriteFile("address", []byte(res.Address), 0o600); err != nil {
		return err
	}
	_, err = io.WriteString(stdout, res.Address)
	return err
}
