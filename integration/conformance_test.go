//go:build linux

package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cofferdam.dev/cofferdam/integration/attack"
	"cofferdam.dev/cofferdam/integration/conformance"
	"cofferdam.dev/cofferdam/integration/ctrd"
	"cofferdam.dev/cofferdam/integration/lab"
)

// imagePath is what images say.
const imagePath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// A home is a sandbox in which programs of Debian's work.
type home struct {
	name string
	root bool // the agent is root, of an image
	open func(t *testing.T) *servant
}

// homes are an image with what this host has installed, under an engine, for root and for an ordinary user; and cofferdam run, with the host's
// programs and in such an image.
var homes = []home{
	{"shim-root", true, func(t *testing.T) *servant { return debian(t, "deb", "") }},
	{"shim-user", false, func(t *testing.T) *servant { return debian(t, "deb", "1000:1000") }},
	{"shim-v2-root", true, func(t *testing.T) *servant { return debian(t, "v2", "") }},
	{"run-root", false, func(t *testing.T) *servant { return inHome(t, newPerson(t, "root", 0)) }},
	{"run-user", false, func(t *testing.T) *servant { return inHome(t, newPerson(t, "user", 4711)) }},
	{"run-image", true, func(t *testing.T) *servant {
		p := newRanged(t)
		return inHome(t, p, "--rootfs", hostImage(t, p.idmapped(t, "/")), "--as-root")
	}},
}

// debian starts a container in an image of this host's programs, and an agent in it: its first process or one that is added.
func debian(t *testing.T, engine, user string) *servant {
	t.Helper()
	root, ws := hostImage(t, "/"), Workspace(t)
	if err := os.Chmod(ws, 0o777); err != nil {
		t.Fatal(err)
	}
	a, _ := lab.Inside()
	probe, err := os.ReadFile(filepath.Join(a.Dir, "probe"))
	err = errors.Join(err, os.WriteFile(filepath.Join(root, "usr/local/bin/probe"), probe, 0o755), os.Chmod(filepath.Join(root, "tmp"), os.ModeSticky|0o777))
	if err != nil {
		t.Fatal(err)
	}
	c := ctrd.Container{Image: root, Runtime: ctrd.Cofferdam, Workspace: ws, Flags: []string{"--rootfs", "--env", imagePath}, Args: []string{"/usr/local/bin/probe", "serve"}}
	d, place := Engine(t, engine), attack.Place{Workspace: "/workspace"}
	if user == "" {
		_, cmd := d.Attach(t, c)
		return serve(t, cmd, place)
	}
	c.Args = []string{"sleep", "3600"}
	box := d.StartContainer(t, c)
	box.User = user
	return serve(t, box.AttachExec(t, "/usr/local/bin/probe", "serve"), place)
}

func inHome(t *testing.T, p person, flags ...string) *servant {
	t.Helper()
	args := append(append([]string{"run"}, flags...), "--read", p.dir, "--", filepath.Join(p.dir, "probe"), "serve")
	return serve(t, p.command(t, args...), attack.Place{Workspace: p.workspace()})
}

// meets runs the script of a need.
func (s *servant) meets(t *testing.T, n conformance.Need) (ok bool, says string) {
	t.Helper()
	Require(t, n.Needs...)
	top := "/tmp"
	if n.Where == conformance.Workspace {
		top = s.place.Workspace
	}
	got := s.try(t, []string{"sh", fmt.Sprintf("export %s HOME=/tmp LC_ALL=C.UTF-8\nset -eu\nmkdir %s/%[3]s; cd %[2]s/%[3]s\n%[4]s", imagePath, top, n.ID, n.Script)})
	return got.OK, got.Detail + " " + strings.TrimSpace(got.Reply)
}

// TestWhatProgramsNeed runs every row of CONFORMANCE.md in every home. What does not work there must work where there are no walls, or the row
// shows nothing.
func TestWhatProgramsNeed(t *testing.T) {
	Require(t, needShim, needImage, "newuidmap")
	lab.Get(t)
	t.Run("without walls", func(t *testing.T) {
		r := newGround(t)
		dir, err := os.MkdirTemp("/srv", "needs-") // which everybody reaches
		if err == nil {
			err = os.Chmod(dir, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		open := map[bool]*servant{false: onHost(t, r, attack.Private), true: onHost(t, r, attack.Outside)}
		for _, n := range conformance.All() {
			if n.Never == "" {
				continue
			}
			t.Run(n.ID, func(t *testing.T) {
				s := open[n.Leaves]
				s.place.Workspace, n.Where = dir, conformance.Workspace // the lab's /tmp is the host's
				if ok, says := s.meets(t, n); !ok {
					t.Errorf("%s: it does not work here either: %s", n.Does, says)
				}
			})
		}
	})
	for _, h := range homes {
		t.Run(h.name, func(t *testing.T) {
			s := h.open(t)
			for _, n := range conformance.All() {
				if n.Who == conformance.Root && !h.root {
					continue
				}
				t.Run(n.ID, func(t *testing.T) {
					if ok, says := s.meets(t, n); ok != (n.Never == "") {
						t.Errorf("%s: works: %v, want %v: %s", n.Does, ok, !ok, says)
					}
				})
			}
		})
	}
}

// The package managers and compilers that TestRunToolsWork has in cofferdam run, by root of an image under an engine.
func TestToolsWorkInAContainer(t *testing.T) {
	Require(t, needShim, needImage, "apt")
	l := lab.Get(t)
	serveTools(t, l, newPerson(t, "root", 0))
	root := hostImage(t, "/")
	certs, err := os.ReadFile("/etc/ssl/certs/ca-certificates.crt") // with the lab's authority, see trust
	if err == nil {
		err = errors.Join(os.WriteFile(filepath.Join(root, "etc/ssl/certs/ca-certificates.crt"), certs, 0o644), os.Chmod(filepath.Join(root, "tmp"), os.ModeSticky|0o777))
	}
	if err != nil {
		t.Fatal(err)
	}
	name := Policy(t, fmt.Sprintf("version: 1\nnetwork:\n  unknown: deny\n  rules:\n    - allow: %s\n    - {allow: %[1]s, ports: [80], protocol: http}\n", toolsHost))
	box := Engine(t, "deb").StartContainer(t, ctrd.Container{
		Image: root, Runtime: ctrd.Cofferdam, Policy: name, Workspace: Workspace(t), Flags: []string{"--rootfs", "--env", imagePath}, Args: []string{"sleep", "3600"},
	})
	inImage := []tool{
		{"apt", []string{"apt"}, `
		export DEBIAN_FRONTEND=noninteractive
		echo "deb [trusted=yes] http://$HOST/debian ./" >/etc/apt/sources.list
		apt-get -o APT::Update::Error-Mode=any -o Acquire::Retries=0 update
		apt-get install -y greet
		greet`, "\ngreetings by apt\n", "Could not resolve 'evil.test'"},
		{
			"git by https",
			[]string{"git"},
			"export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@a.test GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@a.test\n" + gitScript + `work https://$HOST/git/project`,
			"a <a@a.test> a <a@a.test>\n", "Could not resolve host: evil.test",
		},
	}
	for _, tool := range tools {
		switch tool.name {
		case "curl", "wget", "python", "npm", "pip", "go", "cargo":
			inImage = append(inImage, tool)
		}
	}
	for _, tool := range inImage {
		t.Run(tool.name, func(t *testing.T) {
			Require(t, tool.needs...)
			run := func(host string) ctrd.Result {
				dir := "/workspace/" + strings.ReplaceAll(tool.name, " ", "-") + "-" + host
				return box.Exec(t, "env", "HOST="+host, "PATH="+toolPath+":/usr/sbin:/sbin", "HOME=/root", "LANG=C.UTF-8", "sh", "-euc", "mkdir "+dir+"; cd "+dir+"\n"+tool.script)
			}
			mark := l.Mark(t)
			if got := run(evilHost); got.Code == 0 || !strings.Contains(got.Stdout+got.Stderr, tool.says) {
				t.Errorf("it should say %q: %s", tool.says, got)
			}
			l.Silent(t, mark)
			if got := run(toolsHost); got.Code != 0 || !strings.Contains(got.Stdout, tool.prints) {
				t.Errorf("it should print %q: %s", tool.prints, got)
			}
		})
	}
}
