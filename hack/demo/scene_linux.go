package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"cofferdam.dev/cofferdam/integration/ctrd"
	"cofferdam.dev/cofferdam/proxy/record"
)

// A scene is one run of the agent, and what is known of it from outside.
type scene struct {
	runtime, id string
	workspace   string // folder of the host
	home        string // folder of the host, with a secret in it
	token       string // what the agent writes
	secret      string // what nobody inside may learn
	ears        *ears

	output string // of the agent
	code   int    // exit status of ctr, which is the agent's

	// Seen while the agent was there, having made all its attempts.
	ownPIDs bool     // its PID namespace is not ours
	mounts  []string // where in its mount table host folders are

	inspect string          // of cofferdam, while it ran
	log     string          // of cofferdam, afterwards
	records []record.Record // the same
}

// flags asks for more than an agent should have, as people do: the home, the host's network, the host's processes.
func (s *scene) flags() []string {
	return []string{
		"--mount", "type=bind,src=" + s.workspace + ",dst=/workspace,options=rbind:rw",
		"--annotation", "cofferdam.dev/policy=web",
		"--mount", "type=bind,src=" + s.home + ",dst=/host,options=rbind:rw", "--net-host", "--with-ns", "pid:/proc/1/ns/pid",
	}
}

var command = []string{"/bin/sh", "/workspace/agent.sh"}

const policies = "/etc/cofferdam/policies" // in the world, an overlay

// newScene makes the host of one run: a workspace, a home, a policy, ears.
func newScene(ctx context.Context, runtime, id, dir string) (s *scene, err error) {
	s = &scene{
		runtime: runtime, id: id, token: "report of " + rand.Text(), secret: "secret " + rand.Text(),
		workspace: filepath.Join(dir, "work"), home: filepath.Join(dir, "home", "ann"),
	}
	if s.ears, err = listen(ctx); err != nil {
		return nil, err
	}
	env := fmt.Sprintf("TOKEN='%s'\nWEB=%d\nSINK=%d\nADDRESSES='%s'\nSECRET=%s\n",
		s.token, s.ears.web, s.ears.sink, strings.Join(addresses(), " "), s.secretFile())
	for file, text := range map[string][]byte{
		filepath.Join(s.workspace, "agent.sh"):  agentScript,
		filepath.Join(s.workspace, "task.env"):  []byte(env),
		s.secretFile():                          []byte(s.secret + "\n"),
		filepath.Join(policies, "web.yaml"):     []byte(s.policy()),
		filepath.Join(s.workspace, "README.md"): []byte("A sample workspace.\n"),
	} {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(file, text, 0o644); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *scene) secretFile() string { return filepath.Join(s.home, ".ssh", "id_ed25519") }

// policy allows one name, which lives on loopback: its address must therefore be given.
func (s *scene) policy() string {
	return fmt.Sprintf("version: 1\nnetwork:\n  unknown: deny\n  rules:\n    - {allow: web.test, ports: [%d], protocol: http, addresses: [127.0.0.1]}\n", s.ears.web)
}

// play runs the agent to its end and looks at it from outside.
func (s *scene) play(ctx context.Context, d *ctrd.Daemon, cofferdam string) error {
	args := append([]string{"run", "--rm", "--runtime", s.runtime}, s.flags()...)
	cmd := d.Command(ctx, append(append(args, imageName, s.id), command...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()

	var err error
	running := true
	for running && !exists(filepath.Join(s.workspace, "finished")) {
		select {
		case err = <-ended:
			running = false
		case <-time.After(5 * time.Millisecond): // it is a file that another kernel namespace makes
		}
	}
	if running {
		if lookErr := s.look(ctx, d, cofferdam); lookErr != nil {
			return lookErr
		}
		if err := os.WriteFile(filepath.Join(s.workspace, "looked"), nil, 0o644); err != nil {
			return err
		}
		err = <-ended
	}
	s.output, s.code = out.String(), cmd.ProcessState.ExitCode()
	if ctx.Err() != nil {
		return fmt.Errorf("the agent under %s does not end: %w", s.runtime, ctx.Err())
	}
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return err
	}
	if !running || s.code != 0 {
		return fmt.Errorf("the agent under %s ended with status %d before it had tried everything:\n%s\nlog of containerd:\n%s",
			s.runtime, s.code, strings.TrimSpace(s.output), d.Log(15))
	}
	if err := s.ears.settle(ctx); err != nil {
		return err
	}
	s.ears.close() // the next scene is not heard
	return s.readLog(ctx, cofferdam)
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// look reads what the kernel and Cofferdam know of the running agent.
func (s *scene) look(ctx context.Context, d *ctrd.Daemon, cofferdam string) error {
	list, err := d.Command(ctx, "task", "list").Output()
	if err != nil {
		return fmt.Errorf("ctr task list: %w", err)
	}
	pid := ""
	for line := range strings.Lines(string(list)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == s.id {
			pid = f[1]
		}
	}
	if pid == "" {
		return fmt.Errorf("containerd does not list the task of %s", s.id)
	}
	ours, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return err
	}
	its, err := os.Readlink("/proc/" + pid + "/ns/pid")
	if err != nil {
		return err
	}
	s.ownPIDs = ours != its
	if s.mounts, err = hostMounts("/proc/" + pid + "/mountinfo"); err != nil {
		return err
	}
	if s.runtime == ctrd.Cofferdam {
		out, err := exec.CommandContext(ctx, cofferdam, "inspect", s.id).CombinedOutput()
		if err != nil {
			return fmt.Errorf("cofferdam inspect: %w: %s", err, out)
		}
		s.inspect = string(out)
	}
	return nil
}

// hostMounts returns where file systems of the host are in a mount table: those that are mounted out here too, and are not the kernel's own.
func hostMounts(table string) (found []string, err error) {
	here := map[string]bool{}
	if err := mountTable("/proc/self/mountinfo", func(device, _, _ string) { here[device] = true }); err != nil {
		return nil, err
	}
	kernel := map[string]bool{"proc": true, "sysfs": true, "cgroup": true, "cgroup2": true, "devpts": true, "mqueue": true}
	err = mountTable(table, func(device, dir, typ string) {
		if dir != "/" && here[device] && !kernel[typ] { // the root is the image's
			found = append(found, dir)
		}
	})
	return found, err
}

// mountTable reads proc_pid_mountinfo(5).
func mountTable(file string, each func(device, dir, typ string)) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		before, after, _ := strings.Cut(line, " - ")
		if f, g := strings.Fields(before), strings.Fields(after); len(f) > 4 && len(g) > 0 {
			each(f[2], f[4], g[0])
		}
	}
	return nil
}

// readLog has the decision log printed, for people and for the checks.
func (s *scene) readLog(ctx context.Context, cofferdam string) error {
	if s.runtime != ctrd.Cofferdam {
		return nil
	}
	text, err := exec.CommandContext(ctx, cofferdam, "log", s.id).CombinedOutput()
	if err != nil {
		return fmt.Errorf("cofferdam log: %w: %s", err, text)
	}
	s.log = string(text)
	lines, err := exec.CommandContext(ctx, cofferdam, "log", "--json", s.id).Output()
	if err != nil {
		return fmt.Errorf("cofferdam log --json: %w", err)
	}
	for r, err := range record.Read(bytes.NewReader(lines)) {
		if err != nil {
			return err
		}
		s.records = append(s.records, r)
	}
	return nil
}

// file returns a file of the workspace as the host sees it, or "".
func (s *scene) file(name string) string {
	data, err := os.ReadFile(filepath.Join(s.workspace, name))
	if err != nil {
		return ""
	}
	return string(data)
}

// everywhere is all that can have carried something out of the container: its output, its workspace, what the ears have heard.
func (s *scene) everywhere() (string, error) {
	var b strings.Builder
	b.WriteString(s.output + s.ears.everything())
	err := filepath.WalkDir(s.workspace, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(p)
		b.Write(data)
		return err
	})
	return b.String(), err
}
