package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// environment is all that the child sees. An idle proxy should be small, and a
// busy one may trade a little time for that.
var environment = []string{"GOGC=50"}

// Command describes the process that serves one sandbox. It starts nothing.
//
// uid is the user (and group, of the same number) that the process becomes,
// without supplementary groups. The caller's own uid, or 0, leaves the
// credentials as they are: the child refuses to run as root unless
// cfg.AllowRoot. binary must be readable and executable for that user, and for
// one of the initial user namespace every folder above it searchable: in another
// one, where binary may lie in a home, it is executed by descriptor.
//
// The caller sets cmd.Stderr (nil discards) and starts the command, through a
// reaper if it has one. It must do so from a goroutine that is locked to its
// thread (runtime.LockOSThread) and keep that thread for as long as the process
// is wanted: the kernel kills the child when the *thread* that started it ends
// (PR_SET_PDEATHSIG), so that no proxy outlives its parent. The thread must be
// in the UPLINK network namespace when it starts the command.
//
// ready must be called once, after cmd.Start, also if that failed: it closes
// the parent's copies of what only the child needs. It returns nil once the
// process serves, the process's own error text if it gave up, or ctx's error.
// f.Log and f.Updates are closed then too, or here on error: they belong to this
// process. The other files of f stay open and belong to the caller.
//
// For a restart describe a new command, once the old process has been waited
// for: two at a time would write one names file.
func Command(binary string, cfg Config, f Files, uid uint32) (cmd *exec.Cmd, ready func(ctx context.Context) error, err error) {
	defer func() {
		if err != nil {
			f.Log.Close() // may be nil
			f.Updates.Close()
		}
	}()
	if err := errors.Join(f.validate(), cfg.validate()); err != nil {
		return nil, nil, fmt.Errorf("describe proxy: %w", err)
	}
	config, err := configFile(cfg)
	if err != nil {
		return nil, nil, fmt.Errorf("describe proxy: %w", err)
	}
	pipe, childPipe, err := os.Pipe()
	if err != nil {
		config.Close()
		return nil, nil, fmt.Errorf("describe proxy: ready pipe: %w", err)
	}

	var program *os.File
	attr := &syscall.SysProcAttr{
		// A terminal's ^C is for the agent, not for its wall. And where the scheduler goes by sessions (sched(7), autogroup) it has its share beside others,
		// whatever its agent and it itself are busy with.
		Setsid:    true,
		Pdeathsig: syscall.SIGKILL,
	}
	if uid != 0 && int64(uid) != int64(os.Geteuid()) {
		// Groups are dropped, but where a user namespace forbids setgroups(2)
		// (user_namespaces(7)); there the caller's own stay.
		setgroups, _ := os.ReadFile("/proc/self/setgroups")
		attr.Credential = &syscall.Credential{Uid: uid, Gid: uid, NoSetGroups: string(setgroups) == "deny\n"}
		if inUserNamespace() {
			if program, err = os.Open(binary); err != nil {
				config.Close()
				pipe.Close()
				childPipe.Close()
				return nil, nil, fmt.Errorf("describe proxy: %w", err)
			}
		}
	}
	cmd = &exec.Cmd{
		Path:        binary,
		Args:        []string{"cofferdam-proxy", cfg.Sandbox},
		Env:         environment,
		Dir:         "/",
		ExtraFiles:  []*os.File{f.TCP, f.DNS, config, f.Log, f.Names, childPipe, f.Updates},
		SysProcAttr: attr,
	}
	if program != nil {
		cmd.Path, cmd.ExtraFiles = fmt.Sprintf("/proc/self/fd/%d", fdEnd), append(cmd.ExtraFiles, program) // the child closes it
	}
	ready = func(ctx context.Context) error {
		config.Close()
		program.Close()   // may be nil
		childPipe.Close() // or the child's death would not be an end of file
		f.Log.Close()     // nor an end of the records
		f.Updates.Close()
		defer pipe.Close()
		return awaitReady(ctx, pipe)
	}
	return cmd, ready, nil
}

// inUserNamespace reports whether this process has other ids than the initial user
// namespace.
func inUserNamespace() bool {
	text, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(text)), " ") != "0 0 4294967295"
}

// configFile returns a memfd with the JSON of cfg, to be read from its start. A
// pipe would do for a small policy only: it holds 64 KiB and nobody reads yet.
func configFile(cfg Config) (*os.File, error) {
	data, err := json.Marshal(cfg)
	if err != nil {
		return nil, fmt.Errorf("encode config: %w", err)
	}
	fd, err := unix.MemfdCreate("cofferdam-proxy-config", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create config memfd: %w", err)
	}
	file := os.NewFile(uintptr(fd), "cofferdam-proxy-config")
	if _, err = file.Write(data); err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("write config memfd: %w", err)
	}
	return file, nil
}

// awaitReady reads the child's one line, to the end of the pipe. The child is unprivileged and may have
// been taken over: what it says is bounded.
func awaitReady(ctx context.Context, pipe *os.File) error {
	stop := context.AfterFunc(ctx, func() { pipe.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	text, err := io.ReadAll(io.LimitReader(pipe, 4096))
	line, whole := strings.CutSuffix(string(text), "\n")
	switch {
	case err == nil && whole && line == readyText:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("wait for proxy: %w", ctx.Err())
	case line != "":
		return fmt.Errorf("start proxy: %q", strings.TrimPrefix(line, "error: "))
	default:
		return errors.New("start proxy: the process ended before it was ready")
	}
}
