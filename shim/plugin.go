package shim

import (
	"os"
	"os/signal"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/task"
	cshim "github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/containerd/v2/plugins"
	runc "github.com/containerd/go-runc"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/shim/sandbox"
)

// init registers the task service in the place of containerd's own plugin, which is therefore not imported.
func init() {
	registry.Register(&plugin.Registration{
		Type:     plugins.TTRPCPlugin,
		ID:       "task",
		Requires: []plugin.Type{plugins.EventPlugin, plugins.InternalPlugin},
		InitFn:   initTask,
	})
}

func initTask(ic *plugin.InitContext) (any, error) {
	hurry() // again: containerd's code has set its own values
	publisher, err := ic.GetByID(plugins.EventPlugin, "publisher")
	if err != nil {
		return nil, err
	}
	sd, err := ic.GetByID(plugins.InternalPlugin, "shutdown")
	if err != nil {
		return nil, err
	}
	inner, err := task.NewTaskService(ic.Context, publisher.(cshim.Publisher), sd.(shutdown.Service))
	if err != nil {
		return nil, err
	}
	if runc.Monitor, err = newNullMonitor(runc.Monitor); err != nil { // NewTaskService has set it
		return nil, err
	}
	s := newService(inner, sandbox.DefaultPaths())
	sd.(shutdown.Service).RegisterCallback(s.closeAll)
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, unix.SIGHUP)
	go func() { // ends with the process
		for range hangup {
			s.reload()
		}
	}()
	return s, nil
}

var _ taskapi.TTRPCTaskService = (*service)(nil)
