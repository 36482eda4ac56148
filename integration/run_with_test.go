//go:build linux

package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// homeTools are tools as their installers leave them, and what lies beside them. A file begins with its text; "->" is a link.
var homeTools = map[string]string{
	".cargo/bin/cargo":                        "#!/bin/sh\necho cargo by $RUSTUP_HOME: $(cat $RUSTUP_HOME/settings.toml)\n",
	".cargo/credentials.toml":                 "secret",
	".cargo/config.toml":                      "secret",
	".cargo/registry/cache/other":             "secret",
	".rustup/settings.toml":                   "default = \"stable\"",
	".rustup/toolchains/stable/bin/rustc":     "#!/bin/sh\necho rustc\n",
	".rustup/tmp/x":                           "secret",
	".npmrc":                                  "secret",
	".nvm/nvm.sh":                             "nvm() { echo nvm of $NVM_DIR; }",
	".nvm/alias/default":                      "20",
	".nvm/versions/node/v20.1.0/bin/node":     "#!/bin/sh\necho node 20\n",
	".nvm/versions/node/v20.1.0/etc/npmrc":    "secret",
	".nvm/versions/node/v22.1.0/bin/node":     "#!/bin/sh\necho node 22\n",
	".pyenv/shims/python":                     "#!/bin/sh\nexec $PYENV_ROOT/versions/3.12/bin/python\n",
	".pyenv/versions/3.12/bin/python":         "#!/bin/sh\necho python\n",
	".pyenv/versions/3.12/pip.conf":           "secret",
	".pyenv/versions/mine":                    "-> ../../private",
	"private/bin/python":                      "secret",
	".local/share/single/token":               "secret",
	".local/bin/single":                       "-> ../share/single/versions/1/single",
	".local/bin/notes":                        "secret",
	".config/gh/hosts.yml":                    "secret",
	".ssh/id_ed25519":                         "secret",
	".volta/bin":                              "-> ../.ssh",
	".bun":                                    "-> .",
	"go/bin/hidden-by-policy":                 "secret",
	"go/bin/seen":                             "#!/bin/sh\necho seen\n",
	"go/pkg/mod/corp.example/private@v1/x.go": "secret",
}

// furnish installs homeTools.
func (p person) furnish(t *testing.T) {
	t.Helper()
	for name, text := range homeTools {
		at := filepath.Join(p.home, name)
		err := os.MkdirAll(filepath.Dir(at), 0o755)
		if target, link := strings.CutPrefix(text, "-> "); err == nil && link {
			err = os.Symlink(target, at)
		} else if err == nil {
			err = os.WriteFile(at, []byte(text), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	echo, err := os.ReadFile("/bin/echo")
	if err == nil {
		at := filepath.Join(p.home, ".local/share/single/versions/1/single")
		err = errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, echo, 0o755))
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("chown", "-hR", fmt.Sprint(p.id), p.home).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// A tool of the home runs, and nothing else of the home is there.
func TestRunWithATool(t *testing.T) {
	eachPerson(t, func(t *testing.T, p person) {
		p.furnish(t)
		const list = `cd ~; find -L . -type f | sort`
		before := map[string]string{}
		err := filepath.WalkDir(p.home, func(at string, e fs.DirEntry, err error) error {
			if err == nil && e.Type().IsRegular() {
				text, rerr := os.ReadFile(at)
				before[at], err = string(text), rerr
			}
			return err
		})
		if err != nil || before[filepath.Join(p.home, ".cargo/credentials.toml")] != "secret" {
			t.Fatalf("what is looked for is not on the host: %v", err)
		}
		for _, row := range []struct {
			name, script string
			with         []string
			says         string // of it
			sees         []string
		}{
			{"nothing", "command -v seen single", nil, "", nil},
			{
				"cargo", "cargo; echo x >~/.cargo/bin/cargo || rm ~/.cargo/bin/cargo || mv ~/.cargo/bin ~/.cargo/other || echo refused; mkdir ~/.cargo/registry && echo made",
				[]string{"cargo"},
				"cargo by ~/.rustup: default = \"stable\"\nrefused\nmade\n",
				[]string{".cargo/bin/cargo", ".rustup/settings.toml", ".rustup/toolchains/stable/bin/rustc"},
			},
			{
				"nvm", "node; . $NVM_DIR/nvm.sh; nvm",
				[]string{"nvm"},
				"node 20\nnvm of ~/.nvm\n",
				[]string{".nvm/alias/default", ".nvm/nvm.sh", ".nvm/versions/node/v20.1.0/bin/node", ".nvm/versions/node/v22.1.0/bin/node"},
			},
			{"pyenv", "python", []string{"pyenv"}, "python\n", []string{".pyenv/shims/python", ".pyenv/versions/3.12/bin/python"}},
			{"a program", "single single", []string{"single"}, "single\n", []string{".local/bin/single"}},
			{"a folder of programs", "single single; cat ~/.local/bin/notes", []string{"local-bin"}, "secret", []string{".local/bin/notes"}},
			{
				"several", "cargo; python; seen",
				[]string{"cargo", "pyenv", "go", "cargo"},
				"cargo by ~/.rustup: default = \"stable\"\npython\nseen\n",
				[]string{".cargo/bin/cargo", ".pyenv/shims/python", ".pyenv/versions/3.12/bin/python", ".rustup/settings.toml", ".rustup/toolchains/stable/bin/rustc", "go/bin/hidden-by-policy", "go/bin/seen"},
			},
		} {
			t.Run(row.name, func(t *testing.T) {
				var args []string
				for _, w := range row.with {
					args = append(args, "--with", w)
				}
				cmd := p.command(t, append(append([]string{"run"}, args...), "--", "sh", "-c", row.script+"\necho --\n"+list)...)
				cmd.Env = append(cmd.Env, "PATH="+filepath.Join(p.home, ".local/bin")+":/usr/bin:/bin")
				got := finish(t, cmd)
				says, sees, ok := strings.Cut(strings.ReplaceAll(got.Stdout, p.home, "~"), "--\n")
				if !ok || says != row.says {
					t.Errorf("it says %q, want %q: %s", says, row.says, got)
				}
				want := ""
				for _, s := range row.sees {
					want += "./" + s + "\n"
				}
				if sees != want {
					t.Errorf("it sees\n%swant\n%s", sees, want)
				}
				if slices.Contains(row.with, "pyenv") && !strings.Contains(got.Stderr, "warning: --with pyenv: "+p.home+"/.pyenv/versions/mine/bin leads to "+p.home+"/private/bin: it is left out") {
					t.Errorf("what is left out is not told: %s", got.Stderr)
				}
			})
		}
		for at, text := range before {
			if now, err := os.ReadFile(at); err != nil || string(now) != text {
				t.Errorf("%s has changed: %v", at, err)
			}
		}
	})
}

func TestRunWithRefuses(t *testing.T) {
	eachPerson(t, func(t *testing.T, p person) {
		p.furnish(t)
		const here = "here are cargo, go, local-bin, nvm, pyenv; known, but not here: bun, deno, "
		for _, row := range []struct {
			args []string
			says string
		}{
			{[]string{"--with", "no-such-tool"}, "--with no-such-tool: nothing is there: no known tool, and no program in a folder of PATH below ~; " + here},
			{[]string{"--with", "deno"}, "--with deno: nothing is there: looked in ~/.deno; " + here},
			{[]string{"--with", ""}, "is no name of a tool"},
			{[]string{"--with", "../.ssh"}, "is no name of a tool"},
			{[]string{"--with", p.home + "/.ssh"}, "is no name of a tool"},
			{[]string{"--with", "volta"}, "--with volta: nothing is there: looked in ~/.volta; ~/.volta/bin leads to ~/.ssh"}, // its bin leads to keys
			{[]string{"--with", "bun"}, "~/.bun is or holds the home"},
			{[]string{"--with", "cargo", "-w", p.home + "/.cargo"}, "--with cargo: ~/.cargo/bin and the workspace ~/.cargo hold one another"},
			{[]string{"--with", "nvm", "-w", p.home + "/.nvm/versions/node/v20.1.0/bin"}, "--with nvm: ~/.nvm/versions/node/v20.1.0/bin and the workspace"},
			{[]string{"--with", "single", "--with", "local-bin"}, "hold one another"}, // the link would lead nowhere
			{[]string{"--with", "cargo", "--rootfs", p.home + "/project"}, "--with: a root file system has tools of its own"},
		} {
			cmd := p.command(t, append(append([]string{"run"}, row.args...), "true")...)
			cmd.Env = append(cmd.Env, "PATH="+filepath.Join(p.home, ".local/bin")+":/usr/bin:/bin")
			got := finish(t, cmd)
			if got.Code != 125 || !strings.Contains(strings.ReplaceAll(got.Stderr, p.home, "~"), row.says) {
				t.Errorf("%q: %s, want %q", row.args, got, row.says)
			}
		}
	})
}

// A home that is a link is one all the same, what a policy hides is hidden in a tool as well, and what was seen may be read as a file, too.
func TestRunWithAToolElsewhere(t *testing.T) {
	eachPerson(t, func(t *testing.T, p person) {
		p.furnish(t)
		link, policy := filepath.Join(p.dir, "home"), filepath.Join(p.home, "policy.yaml")
		if err := os.Symlink(p.home, link); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(policy, []byte("version: 1\nworkspace: {hidden: [hidden-by-policy, settings.toml]}\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(policy, int(p.id), int(p.id)); err != nil {
			t.Fatal(err)
		}
		cmd := p.command(t, "run", "--with", "nvm", "--", "sh", "-c", "node; echo $NVM_DIR; ls -A ~ ~/.nvm")
		cmd.Env = append(cmd.Env, "HOME="+link)
		if got := finish(t, cmd); got.Stdout != "node 20\n"+link+"/.nvm\n"+link+":\n.nvm\n\n"+link+"/.nvm:\nalias\nnvm.sh\nversions\n" {
			t.Errorf("with a home that is a link: %s", got)
		}
		if got := p.run(t, "--policy", policy, "--with", "go", "--", "sh", "-c", "seen; cat ~/go/bin/hidden-by-policy"); got.Stdout != "seen\n" {
			t.Errorf("hidden: %s", got)
		}
		if got := p.run(t, "--policy", policy, "--with", "cargo", "true"); got.Code != 125 || !strings.Contains(got.Stderr, "settings.toml: the policy hides files of this name") {
			t.Errorf("a hidden file: %s", got)
		}
		one := filepath.Join(p.dir, "one")
		if err := os.WriteFile(one, []byte("one"), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := p.run(t, "--read", one, "--read", p.home+"/.rustup/settings.toml", "--", "sh", "-c", "cat "+one+" ~/.rustup/settings.toml; echo x >>"+one+"; ls "+p.dir); got.Stdout != "onedefault = \"stable\"one\n" {
			t.Errorf("files: %s", got)
		}
		socket := filepath.Join(p.dir, "fifo")
		if out, err := exec.Command("mkfifo", socket).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if got := p.run(t, "--read", socket, "true"); got.Code != 125 || !strings.Contains(got.Stderr, "neither a folder nor a regular file") {
			t.Errorf("a fifo: %s", got)
		}
	})
}
