package shim

import (
	"fmt"
	"path/filepath"
	"strings"

	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/types/known/anypb"
)

// options are the runtime options of one container: those of the inner runc service, and the configuration file of our own.
type options struct {
	runc   *runcoptions.Options
	config string // empty: the default path
}

// readOptions reads the options that an engine sent. A client that knows runc's options sends those; engines that know nothing of this
// runtime (CRI, Docker, ctr --runtime-config-path) send runtimeoptions.v1, of which the path of a configuration file is taken. Anything
// else is refused, since the inner service would not survive it.
func readOptions(a *anypb.Any) (options, error) {
	o := options{runc: &runcoptions.Options{}}
	if len(a.GetValue()) == 0 {
		return o, nil
	}
	v, err := typeurl.UnmarshalAny(a)
	if err != nil {
		return options{}, fmt.Errorf("runtime options: %w", err)
	}
	switch v := v.(type) {
	case *runcoptions.Options:
		o.runc = v
	case *runtimeoptions.Options:
		if len(v.ConfigBody) != 0 {
			return options{}, fmt.Errorf("runtime options: an inline configuration is not supported: set ConfigPath to a YAML file")
		}
		if v.ConfigPath != "" && !filepath.IsAbs(v.ConfigPath) {
			return options{}, fmt.Errorf("runtime options: ConfigPath %q is not absolute", v.ConfigPath)
		}
		o.config = v.ConfigPath
	default:
		return options{}, fmt.Errorf("runtime options of type %q are not supported", a.GetTypeUrl())
	}
	return o, nil
}

// systemdCgroup reports whether a cgroupsPath is systemd's "slice:prefix:name". Engines that drive cgroups through systemd write it, but
// have no way to tell a runtime other than runc.
func systemdCgroup(path string) bool {
	slice, _, _ := strings.Cut(path, ":")
	return strings.Count(path, ":") == 2 && (slice == "" || strings.HasSuffix(slice, ".slice"))
}
