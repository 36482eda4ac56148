package shim

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"

	"cofferdam.dev/cofferdam/spec"
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
	if a.GetTypeUrl() == legacyOptions {
		var err error
		if o.runc, err = readLegacyOptions(a.GetValue()); err != nil {
			return options{}, fmt.Errorf("runtime options: %w", err)
		}
		return o, checkRuncOptions(o.runc)
	}
	v, err := typeurl.UnmarshalAny(a)
	if err != nil {
		return options{}, fmt.Errorf("runtime options: %w", err)
	}
	switch v := v.(type) {
	case *runcoptions.Options:
		o.runc = v
		return o, checkRuncOptions(v)
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

// checkRuncOptions refuses the options that would leave a hole in a wall.
func checkRuncOptions(o *runcoptions.Options) error {
	switch {
	case o.NoPivotRoot:
		return &spec.RefusedError{Path: "runtime options: no_pivot_root", Reason: "the host's mounts would stay in reach of the container"}
	case o.NoNewKeyring:
		return &spec.RefusedError{Path: "runtime options: no_new_keyring", Reason: "the container would have the engine's keyring"}
	}
	return nil
}

// legacyOptions is what clients of containerd 1.6 and 1.7 send to a runtime whose name they do not know, when there is something to say:
// who owns the streams of a container in a user namespace.
const legacyOptions = "containerd.linux.runc.CreateOptions"

// readLegacyOptions reads that message, runtime/linux/runctypes/runc.proto of containerd 1.7, which no library of today has. A field that
// is not known here is an error.
func readLegacyOptions(b []byte) (*runcoptions.Options, error) {
	o := &runcoptions.Options{}
	for len(b) > 0 {
		number, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, fmt.Errorf("%s: %w", legacyOptions, protowire.ParseError(n))
		}
		b = b[n:]
		switch typ {
		case protowire.VarintType:
			v, n := protowire.ConsumeVarint(b)
			if n < 0 {
				return nil, fmt.Errorf("%s: %w", legacyOptions, protowire.ParseError(n))
			}
			b = b[n:]
			switch number {
			case 1:
				o.NoPivotRoot = v != 0
			case 8:
				o.NoNewKeyring = v != 0
			case 10:
				o.IoUid = uint32(v)
			case 11:
				o.IoGid = uint32(v)
			default:
				return nil, fmt.Errorf("%s: field %d is not supported", legacyOptions, number)
			}
		case protowire.BytesType:
			v, n := protowire.ConsumeString(b)
			if n < 0 {
				return nil, fmt.Errorf("%s: %w", legacyOptions, protowire.ParseError(n))
			}
			b = b[n:]
			if number != 9 {
				return nil, fmt.Errorf("%s: field %d is not supported", legacyOptions, number)
			}
			o.ShimCgroup = v
		default:
			return nil, fmt.Errorf("%s: field %d of wire type %d is not supported", legacyOptions, number, typ)
		}
	}
	return o, nil
}

// checkStdio accepts the fifos that an engine makes for the streams of a process. containerd's code would open a file by its path, or run
// a logging program, as root: an agent that owns a part of that path could point it anywhere.
func checkStdio(streams ...string) error {
	for _, s := range streams {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "" && u.Scheme != "fifo" {
			return &spec.RefusedError{Path: "stdio " + s, Reason: "only an engine's fifos are safe: a log file or a logging program would be opened as root"}
		}
	}
	return nil
}

// systemdCgroup reports whether a cgroupsPath is systemd's "slice:prefix:name". Engines that drive cgroups through systemd write it, but
// have no way to tell a runtime other than runc.
func systemdCgroup(path string) bool {
	slice, _, _ := strings.Cut(path, ":")
	return strings.Count(path, ":") == 2 && (slice == "" || strings.HasSuffix(slice, ".slice"))
}
