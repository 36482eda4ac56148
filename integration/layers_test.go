//go:build linux

package integration

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cofferdam.dev/cofferdam/integration/ctrd"
	"cofferdam.dev/cofferdam/integration/lab"
)

// allowing is a policy for TLS to some names.
func allowing(names ...string) string {
	return "version: 1\nnetwork:\n  rules: [{allow: " + strings.Join(names, "}, {allow: ") + "}]\n"
}

// ceiling is the administrator's policy, which lasts as long as the test.
func ceiling(t testing.TB, text string) (path string) {
	t.Helper()
	path = "/etc/cofferdam/policy.yaml" // an overlay: the host never sees it
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(path) })
	return path
}

// write makes a file of the person's, with the folder that it is in.
func (p person) write(t testing.TB, path, text string) string {
	t.Helper()
	path = filepath.Join(p.home, path)
	next := path + ".next"
	err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(next, []byte(text), 0o644), os.Chown(next, int(p.id), int(p.id)), os.Rename(next, path))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

const (
	ownPolicy     = ".config/cofferdam/policy.yaml"
	projectPolicy = "project/.cofferdam.yaml"
)

// TestRunAllowsWhatEachLayerAllows: good.test is allowed by the first and evil.test by the others, or the other way around; the control is that
// a name which all layers allow is reached. Invariants I2, I3, I5.
func TestRunAllowsWhatEachLayerAllows(t *testing.T) {
	const good, evil = "good.test", "evil.test"
	eachPerson(t, func(t *testing.T, p person) {
		l := lab.Get(t)
		for _, row := range []struct {
			name                 string
			admin, user, project string // empty: there is no such file
			flags                []string
			good, evil           bool
		}{
			{"the user's alone", "", allowing(good), "", nil, true, false},
			{"the administrator's alone", "FILES" + allowing(good), "", "", nil, true, false},
			{"a project alone", "", "", allowing(good), nil, false, false},
			{"a project with flags", "", "", allowing(good), []string{"--allow", good, "--allow", evil}, true, false},
			{"a project narrows", "", allowing(good, evil), allowing(good), nil, true, false},
			{"a project cannot widen", "", allowing(good), allowing(good, evil), nil, true, false},
			{"a project says nothing", "", allowing(good), "version: 1\n", nil, true, false},
			{"a project wants nothing", "", allowing(good), "version: 1\nnetwork: {}\n", nil, false, false},
			{"flags replace the user's", "", allowing(evil), "", []string{"--allow", good}, true, false},
			{"flags below a ceiling", "FILES" + allowing(good), "", "", []string{"--allow", good, "--allow", evil}, true, false},
			{"a ceiling that says nothing", "FILESversion: 1\n", allowing(good, evil), "", nil, false, false},
			{"all three", "FILES" + allowing(good, evil), allowing(good), allowing(good, evil), nil, true, false},
		} {
			t.Run(row.name, func(t *testing.T) {
				if text, ok := strings.CutPrefix(row.admin, "FILES"); ok { // the probe is read from there
					ceiling(t, text+fmt.Sprintf("files: [{path: %s, access: read}]\n", p.dir))
				}
				for path, text := range map[string]string{ownPolicy: row.user, projectPolicy: row.project} {
					if text != "" {
						file := p.write(t, path, text)
						t.Cleanup(func() { os.Remove(file) })
					}
				}
				for name, want := range map[string]bool{good: row.good, evil: row.evil} {
					mark := l.Mark(t)
					if got := p.Probe(t, row.flags, "https", name+":443", name); got.OK != want {
						t.Errorf("%s: %s", name, got)
					}
					if !want {
						l.Silent(t, mark)
					}
				}
			})
		}
	})
}

// TestRunRefusesLayersThatItCannotTrust, and says which; what a project asks for without having it is told.
func TestRunRefusesLayersThatItCannotTrust(t *testing.T) {
	eachPerson(t, func(t *testing.T, p person) {
		project := p.write(t, projectPolicy, allowing("good.test"))
		if got := p.run(t, "true"); got.Code != 0 || !strings.Contains(got.Stderr, "hint:   --allow 'good.test'\n") {
			t.Errorf("the control, a project alone: %s", got)
		}
		refused := func(what string, parts ...string) {
			t.Helper()
			got := p.run(t, "--read", p.dir, "true")
			if got.Code != 125 {
				t.Errorf("%s: %s", what, got)
			}
			contains(t, what, got.Stderr, parts...)
		}
		p.write(t, projectPolicy, "version: 1\nfiles: [{path: /opt, access: read}]\n")
		refused("a project that grants itself files", project+":2:16: files.path: ")
		p.write(t, projectPolicy, "version: 1\nworkspace: {writable: [.git/hooks]}\n")
		refused("a project that lifts a protection", project+":2:23: workspace.writable: ")
		if err := errors.Join(os.Remove(project), os.Symlink("/etc/passwd", project)); err != nil {
			t.Fatal(err)
		}
		refused("a project that is a link", project, "a symbolic link")
		if err := os.Remove(project); err != nil {
			t.Fatal(err)
		}
		own := p.write(t, ownPolicy, "version: 1\n")
		if err := os.Chmod(own, 0o666); err != nil {
			t.Fatal(err)
		}
		refused("a policy that anybody can write", own, "chmod go-w")
		if err := os.Remove(own); err != nil {
			t.Fatal(err)
		}
		path := ceiling(t, "version: 1\n")
		refused("a flag above the ceiling", "--read: "+p.dir+" is not within the files of the admin policy, "+path)
		if err := errors.Join(os.Remove(path), os.Symlink("/nowhere", path)); err != nil {
			t.Fatal(err)
		}
		refused("a ceiling that leads nowhere", "admin policy: ", path)
	})
}

// TestRunHasFilesAndLimitsOfThePolicy: the narrowest of each layer.
func TestRunHasFilesAndLimitsOfThePolicy(t *testing.T) {
	eachPerson(t, func(t *testing.T, p person) {
		p.write(t, ownPolicy, fmt.Sprintf("version: 1\nfiles: [{path: %s, access: read}]\nlimits: {pids: 60, memory: 512MiB}\n", p.dir))
		probe := filepath.Join(p.dir, "probe")
		if got := p.run(t, "sh", "-c", "ls "+probe+" && ! touch "+p.dir+"/x"); got.Code != 0 {
			t.Errorf("a file of the policy: %s", got)
		}
		p.write(t, projectPolicy, "version: 1\nfiles: []\nlimits: {pids: 50, memory: 1GiB}\n")
		if got := p.run(t, "ls", probe); got.Code == 0 {
			t.Errorf("a file that the project does not want: %s", got)
		}
		got := p.run(t, "--print-spec", "--pids", "55", "true")
		contains(t, "the spec", got.Stdout, `"limit": 536870912`, `"limit": 50`)
	})
}

// TestRunFollowsItsLayers: what is not the agent's to write changes under a running agent; a project's policy does if the agent can only read it.
func TestRunFollowsItsLayers(t *testing.T) {
	eachPerson(t, func(t *testing.T, p person) {
		files := fmt.Sprintf("files: [{path: %s, access: read}]\n", p.dir)
		both := allowing("good.test", "evil.test")
		for _, row := range []struct {
			name   string
			flags  []string
			change func(t *testing.T)
			says   string
			good   bool // at the end
		}{
			{"the administrator's", nil, func(t *testing.T) { ceiling(t, allowing("evil.test")+files) }, "the policy was reloaded", false},
			{"the user's", nil, func(t *testing.T) { p.write(t, ownPolicy, allowing("evil.test")+files) }, "the policy was reloaded", false},
			{"the project's, read-only", []string{"--read-only"}, func(t *testing.T) { p.write(t, projectPolicy, allowing("evil.test")) }, "the policy was reloaded", false},
			{"a mistake", nil, func(t *testing.T) { p.write(t, ownPolicy, "version: 2\n") }, "the policy was not reloaded", true},
			{"the project's, and then another", nil, func(t *testing.T) {
				p.write(t, projectPolicy, allowing("evil.test"))
				p.write(t, ownPolicy, both+files+"limits: {pids: 99}\n")
			}, "limits of the policy hold from the next start on", true},
		} {
			t.Run(row.name, func(t *testing.T) {
				ceiling(t, both+files)
				p.write(t, ownPolicy, both+files)
				p.write(t, projectPolicy, both)
				name := "layers"
				script := fmt.Sprintf("%[1]s/probe https good.test:443 good.test; read x; %[1]s/probe https good.test:443 good.test", p.dir)
				cmd := p.command(t, append(append([]string{"run", "--name", name}, row.flags...), "sh", "-c", script)...)
				in, out := talk(t, cmd)
				first := make([]byte, 4096)
				n, err := out.Read(first)
				if err != nil || !strings.Contains(string(first[:n]), `"ok":true`) {
					t.Fatalf("control: %s, %v", first[:n], err)
				}
				log := func() string { return finish(t, p.command(t, "log", "run:"+name)).Stdout }
				state := func() string { return finish(t, p.command(t, "inspect", "run:"+name)).Stdout }
				followed := `policy.yaml", followed`
				contains(t, "inspect", state(), "# layer admin: \"/etc/cofferdam/"+followed, "# layer user: ", "# layer project: ")
				eventually(t, "the sandbox is watched", func() bool { return watches(t, cmd.Process.Pid) })
				before := strings.Count(log(), row.says)
				row.change(t)
				eventually(t, "the change is in the log", func() bool { return strings.Count(log(), row.says) > before })
				if _, err := in.Write([]byte("\n")); err != nil {
					t.Fatal(err)
				}
				rest, err := io.ReadAll(out)
				if err != nil {
					t.Fatal(err)
				}
				_ = cmd.Wait() // the probe's own status
				if got := strings.Contains(string(rest), `"ok":true`); got != row.good {
					t.Errorf("good.test is reached: %v: %s\n%s", got, rest, log())
				}
			})
		}
	})
}

// watches reports whether the process follows files: it has an inotify descriptor.
func watches(t testing.TB, pid int) bool {
	t.Helper()
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && to == "anon_inode:inotify" {
			return true
		}
	}
	return false
}

// TestAContainerHasWhatItsPolicySays beside the network, below the administrator's ceiling.
func TestAContainerHasWhatItsPolicySays(t *testing.T) {
	Require(t, needShim)
	tools, err := os.MkdirTemp("/srv", "tools-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(tools) })
	if err := errors.Join(os.Chmod(tools, 0o755), os.WriteFile(filepath.Join(tools, "tool"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
		more := fmt.Sprintf("files: [{path: %s, access: read}]\nlimits: {memory: 256MiB, pids: 77}\n", tools)
		ceiling(t, allowing("good.test")+more)
		box := Contained(t, d, Policy(t, allowing("good.test", "evil.test")+more))
		if got := box.Exec(t, "ls", filepath.Join(tools, "tool")); got.Code != 0 {
			t.Errorf("a file of the policy: %s", got)
		}
		if got := box.Exec(t, "touch", filepath.Join(tools, "more")); got.Code == 0 {
			t.Errorf("it can be written: %s", got)
		}
		if l := inspect(t, d, box).Sandbox.Limits; l.MemoryBytes != 256<<20 || l.Pids != 77 || l.CPUs != 2 {
			t.Errorf("limits %+v", l)
		}
		for name, want := range map[string]bool{"good.test": true, "evil.test": false} {
			if got := box.Probe(t, "https", name+":443", name); got.OK != want {
				t.Errorf("%s: %s", name, got)
			}
		}
		contains(t, "inspect", cli(t, "inspect", sandboxID(d, box)), "# layer admin: \"/etc/cofferdam/policy.yaml\", followed", "# layer user: ", "admin policy: ")
	})
}
