//go:build linux

// Command rundemo shows an agent between its two walls, without a daemon and without root: `make run`.
//
// It makes a home with a secret in it, a project, a web server and other ears on this machine, and runs agent.sh in the project with `cofferdam
// run`. Then it checks from outside what has become of each attempt: by files, by what the ears have heard, by the decision log. The same script
// without walls shows that the attempts are real and that the ears are not deaf. Last, it kills cofferdam and looks what is left.
//
// Packets go to addresses of this machine only. It needs nothing but Go, make and gcc, and leaves nothing.
//
// Exit status: 0 every promise is kept, 1 one is not, 125 the demonstration could not be held.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

//go:embed agent.sh
var agentScript []byte

const (
	exitLeak    = 1
	exitFailure = 125
)

func main() {
	bin := flag.String("bin", "bin", "folder with the binaries that make build makes")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	kept, err := show(ctx, *bin)
	cancel()
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "rundemo:", err)
		os.Exit(exitFailure)
	case !kept:
		os.Exit(exitLeak)
	}
}

// show holds the demonstration and reports whether every promise is kept.
func show(ctx context.Context, bin string) (kept bool, err error) {
	dir, err := os.MkdirTemp("", "cofferdam-rundemo-")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o755); err != nil { // root's proxy has a user of its own, which executes from here
		return false, err
	}
	tools := filepath.Join(dir, "tools")
	if err := copyTools(ctx, bin, tools); err != nil {
		return false, err
	}
	walled, err := newScene(dir, "walled", tools)
	if err != nil {
		return false, err
	}
	defer walled.ears.close()
	args := []string{"run", "--name", "demo", "--policy", walled.policyFile(), "--read", tools, "--", "sh", "agent.sh"}
	title("The agent, in its project")
	fmt.Printf("  cofferdam %s\n", strings.Join(args, " "))
	title("The policy")
	indent(walled.policy())
	if err := walled.play(ctx, filepath.Join(tools, "cofferdam"), args...); err != nil {
		return false, err
	}
	title("What the agent says")
	indent(walled.output)
	if walled.log, err = walled.cofferdam(ctx, "log", "demo"); err != nil {
		return false, err
	}

	control, err := newScene(dir, "control", tools)
	if err != nil {
		return false, err
	}
	defer control.ears.close()
	if err := control.play(ctx, "sh", "agent.sh"); err != nil {
		return false, err
	}
	if walled.outlived, err = walled.kill(ctx, "run", "--name", "killed", "--", "sleep", "3600"); err != nil {
		return false, err
	}
	if control.outlived, err = control.kill(ctx, "sleep", "3600"); err != nil {
		return false, err
	}
	if err := walled.forget(ctx); err != nil {
		return false, err
	}
	kept = judge(walled, control)
	title("cofferdam log demo")
	indent(walled.log)
	fmt.Println()
	if kept {
		fmt.Println("Every promise is kept.")
	} else {
		fmt.Println("A promise is not kept: see LEAK above.")
	}
	return kept, nil
}

// copyTools puts our binaries and the probe where an agent may read them and nobody else writes.
func copyTools(ctx context.Context, bin, to string) error {
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"cofferdam", "cofferdam-broker", "cofferdam-init", "cofferdam-proxy"} {
		data, err := os.ReadFile(filepath.Join(bin, name))
		if err != nil {
			return fmt.Errorf("%w; make build makes it", err)
		}
		if err := os.WriteFile(filepath.Join(to, name), data, 0o755); err != nil {
			return err
		}
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", to+"/", "cofferdam.dev/cofferdam/integration/probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the probe: %w: %s", err, out)
	}
	return nil
}

// scene is one run of the agent, and what is known of it from outside.
type scene struct {
	home, project, tools string
	walls                bool
	token, secret        string
	ears                 *ears

	output, log string
	outlived    bool // it goes on after whoever started it was killed
}

func newScene(dir, name, tools string) (*scene, error) {
	s := &scene{
		home: filepath.Join(dir, name), tools: tools, walls: name == "walled",
		token: "report of " + rand.Text(), secret: "secret " + rand.Text(),
	}
	s.project = filepath.Join(s.home, "project")
	var err error
	if s.ears, err = listen(); err != nil {
		return nil, err
	}
	for file, text := range map[string]string{
		s.secretFile():                         s.secret + "\n",
		s.policyFile():                         s.policy(),
		filepath.Join(s.project, "agent.sh"):   string(agentScript),
		filepath.Join(s.project, "README.md"):  "A sample project.\n",
		filepath.Join(s.home, "run", ".empty"): "",
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			s.ears.close()
			return nil, err
		}
	}
	return s, nil
}

func (s *scene) secretFile() string { return filepath.Join(s.home, ".ssh", "id_ed25519") }
func (s *scene) policyFile() string { return filepath.Join(s.home, "web.yaml") }

// policy allows one name, which lives on loopback: its address must therefore be given.
func (s *scene) policy() string {
	return fmt.Sprintf("version: 1\nnetwork:\n  rules:\n    - {allow: web.test, ports: [%d], protocol: http, addresses: [127.0.0.1]}\n", s.ears.web)
}

// env is that of the command. Without walls nobody resolves the two names: their address is given.
func (s *scene) env() []string {
	web, other := "127.0.0.1", "127.0.0.1"
	if s.walls {
		web, other = "web.test", "other.test"
	}
	return []string{
		"TOKEN=" + s.token, fmt.Sprintf("WEB=%s:%d", web, s.ears.web), fmt.Sprintf("OTHER=%s:%d", other, s.ears.web),
		fmt.Sprintf("SINK=%d", s.ears.sink), "ADDRESSES=" + strings.Join(addresses(), " "), "SECRET=" + s.secretFile(), "PROBE=" + filepath.Join(s.tools, "probe"),
	}
}

func (s *scene) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = s.project
	cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + s.home, "USER=ann", "TERM=dumb",
		"XDG_RUNTIME_DIR=" + filepath.Join(s.home, "run"), "XDG_STATE_HOME=" + filepath.Join(s.home, "state"),
	}, s.env()...)
	return cmd
}

// play runs the agent to its end. What it is told goes in by --env, as a person would.
func (s *scene) play(ctx context.Context, name string, args ...string) error {
	if s.walls {
		var flags []string
		for _, e := range s.env() {
			key, _, _ := strings.Cut(e, "=")
			flags = append(flags, "--env", key)
		}
		args = append(append([]string{args[0]}, flags...), args[1:]...)
	}
	var out bytes.Buffer
	cmd := s.command(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	s.output = out.String()
	if err != nil {
		return fmt.Errorf("the agent: %w\n%s", err, s.output)
	}
	return s.ears.settle(ctx)
}

func (s *scene) cofferdam(ctx context.Context, args ...string) (string, error) {
	out, err := s.command(ctx, filepath.Join(s.tools, "cofferdam"), args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("cofferdam %s: %w: %s", args[0], err, out)
	}
	return string(out), nil
}

// kill starts a command below a shell, kills what was started, and reports whether the command goes on. With walls the one that is killed is
// cofferdam.
func (s *scene) kill(ctx context.Context, args ...string) (outlived bool, err error) {
	mark := "3600." + rand.Text()[:6]
	args[len(args)-1] = strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return '0' + (r-'A')%10
		}
		return r
	}, mark)
	name := filepath.Join(s.tools, "cofferdam")
	if !s.walls {
		name, args = "sh", []string{"-c", strings.Join(args, " ") + "; :"}
	}
	cmd := s.command(ctx, name, args...)
	if err := cmd.Start(); err != nil {
		return false, err
	}
	sleeps := func() []string {
		pids, _ := exec.CommandContext(ctx, "sh", "-c", "grep -lz -e '^"+lastWord(args)+"$' /proc/[0-9]*/cmdline 2>/dev/null | cut -d/ -f3").Output()
		var found []string
		for pid := range strings.FieldsSeq(string(pids)) {
			if comm, err := os.ReadFile("/proc/" + pid + "/comm"); err == nil && strings.TrimSpace(string(comm)) == "sleep" {
				found = append(found, pid)
			}
		}
		return found
	}
	for len(sleeps()) == 0 {
		select {
		case <-ctx.Done():
			return false, errors.New("the command does not start")
		case <-time.After(10 * time.Millisecond):
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		return false, err
	}
	_ = cmd.Wait()
	for range 100 { // the kernel takes a moment to end what it ends
		if len(sleeps()) == 0 {
			return false, nil
		}
		<-time.After(10 * time.Millisecond)
	}
	for _, pid := range sleeps() {
		_ = exec.CommandContext(ctx, "kill", "-9", pid).Run()
	}
	return true, nil
}

// forget removes what is kept for people to read: the state of what was killed, and, of root's sandboxes, the logs; others are in the home.
func (s *scene) forget(ctx context.Context) error {
	if _, err := s.cofferdam(ctx, "gc"); err != nil {
		return err
	}
	var errs []error
	for _, name := range []string{"demo", "killed"} {
		logs, err := filepath.Glob("/var/log/cofferdam/run:" + name + ".jsonl*")
		errs = append(errs, err)
		for _, log := range logs {
			errs = append(errs, os.Remove(log))
		}
	}
	return errors.Join(errs...)
}

// lastWord is the argument by which the command is known again.
func lastWord(args []string) string {
	words := strings.Fields(strings.TrimSuffix(args[len(args)-1], "; :"))
	return words[len(words)-1]
}

// file returns a file of the project as the host sees it, or "".
func (s *scene) file(name string) string {
	data, err := os.ReadFile(filepath.Join(s.project, name))
	if err != nil {
		return ""
	}
	return string(data)
}

// addresses are those of this machine.
func addresses() []string {
	found := []string{"127.0.0.1"}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return found
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && !n.IP.IsLinkLocalUnicast() {
			found = append(found, n.IP.String())
		}
	}
	return found
}

func title(text string) { fmt.Printf("\n%s\n", text) }

func indent(text string) {
	for line := range strings.Lines(text) {
		fmt.Printf("  %s\n", strings.TrimRight(line, "\n"))
	}
}
