package hometool

import (
	"errors"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// makeHome makes files, folders (with a slash at the end) and links (NAME -> TARGET) in a home of the test's.
func makeHome(t *testing.T, entries ...string) string {
	t.Helper()
	home, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name, target, link := strings.Cut(e, " -> ")
		name, text, _ := strings.Cut(name, " = ")
		at := filepath.Join(home, name)
		err := os.MkdirAll(filepath.Dir(at), 0o755)
		switch {
		case err != nil:
		case link:
			err = os.Symlink(strings.ReplaceAll(target, "~", home), at)
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(at, 0o755)
		default:
			err = os.WriteFile(at, []byte(text), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return home
}

func tool(t *testing.T, name string) Tool {
	t.Helper()
	i := slices.IndexFunc(BuiltIn(), func(t Tool) bool { return t.Name == name })
	if i < 0 {
		t.Fatalf("there is no tool %s", name)
	}
	return BuiltIn()[i]
}

func TestFind(t *testing.T) {
	for _, test := range []struct {
		name    string
		tool    string
		entries []string
		env     map[string]string
		want    Found
	}{
		{
			name: "no credentials", tool: "cargo",
			entries: []string{".cargo/bin/cargo", ".cargo/credentials.toml", ".cargo/config.toml", ".cargo/registry/", ".rustup/settings.toml", ".rustup/toolchains/stable/bin/rustc", ".rustup/tmp/"},
			want:    Found{Files: []string{"~/.cargo/bin", "~/.rustup/settings.toml", "~/.rustup/toolchains"}, Path: []string{"~/.cargo/bin"}, Env: []string{"RUSTUP_HOME=~/.rustup"}},
		},
		{
			name: "a part alone", tool: "cargo", entries: []string{".cargo/bin/cargo"},
			want: Found{Files: []string{"~/.cargo/bin"}, Path: []string{"~/.cargo/bin"}},
		},
		{
			name: "elsewhere", tool: "cargo", entries: []string{"away/bin/cargo", ".cargo/bin/old"}, env: map[string]string{"CARGO_HOME": "~/away"},
			want: Found{Files: []string{"~/away/bin"}, Path: []string{"~/away/bin"}},
		},
		{
			name: "the default is an alias", tool: "nvm",
			entries: []string{
				".nvm/nvm.sh", ".nvm/alias/default = lts/*\n", ".nvm/alias/lts/* = lts/iron\n", ".nvm/alias/lts/iron = v20.9.0\n", ".nvm/.git/config",
				".nvm/versions/node/v20.9.0/bin/node", ".nvm/versions/node/v20.10.0/bin/node", ".nvm/versions/node/v20.10.0/etc/npmrc", ".nvm/versions/node/v22.1.0/bin/node",
			},
			want: Found{
				Files: []string{"~/.nvm/alias", "~/.nvm/nvm.sh", "~/.nvm/versions/node/v20.10.0/bin", "~/.nvm/versions/node/v20.9.0/bin", "~/.nvm/versions/node/v22.1.0/bin"},
				Path:  []string{"~/.nvm/versions/node/v20.9.0/bin"}, Env: []string{"NVM_DIR=~/.nvm"},
			},
		},
		{
			name: "the newest of a major version", tool: "nvm",
			entries: []string{".nvm/alias/default = 20", ".nvm/versions/node/v20.9.0/bin/", ".nvm/versions/node/v20.10.0/bin/", ".nvm/versions/node/v22.1.0/bin/"},
			want: Found{
				Files: []string{"~/.nvm/alias", "~/.nvm/versions/node/v20.10.0/bin", "~/.nvm/versions/node/v20.9.0/bin", "~/.nvm/versions/node/v22.1.0/bin"},
				Path:  []string{"~/.nvm/versions/node/v20.10.0/bin"}, Env: []string{"NVM_DIR=~/.nvm"},
			},
		},
		{
			name: "the one in use", tool: "nvm", env: map[string]string{"PATH": "/usr/bin:~/.nvm/versions/node/v20.9.0/bin"},
			entries: []string{".nvm/versions/node/v20.9.0/bin/", ".nvm/versions/node/v22.1.0/bin/"},
			want:    Found{Files: []string{"~/.nvm/versions/node/v20.9.0/bin", "~/.nvm/versions/node/v22.1.0/bin"}, Env: []string{"NVM_DIR=~/.nvm"}},
		},
		{
			name: "an alias that leads out", tool: "nvm", entries: []string{".nvm/alias/default = ../../secret", "secret = 20", ".nvm/versions/node/v20.9.0/bin/", ".nvm/versions/node/v22.1.0/bin/"},
			want: Found{
				Files: []string{"~/.nvm/alias", "~/.nvm/versions/node/v20.9.0/bin", "~/.nvm/versions/node/v22.1.0/bin"},
				Path:  []string{"~/.nvm/versions/node/v22.1.0/bin"}, Env: []string{"NVM_DIR=~/.nvm"},
			},
		},
		{
			name: "links", tool: "pyenv",
			entries: []string{
				".pyenv -> ~/disk/pyenv", "disk/pyenv/versions/3.12.1/bin/python", "disk/pyenv/versions/3.12.1/pip.conf", "disk/pyenv/versions/3.12.1/envs/x/pyvenv.cfg",
				"disk/pyenv/versions/x -> ~/.pyenv/versions/3.12.1/envs/x", "project/venv/bin/python", "disk/pyenv/versions/out -> ~/project/venv", "disk/pyenv/versions/gone -> ~/nowhere",
				".ssh/", "disk/pyenv/shims -> ~/.ssh",
			},
			want: Found{
				Files: []string{"~/.pyenv/versions/3.12.1/bin", "~/.pyenv/versions/3.12.1/envs/x/pyvenv.cfg", "~/.pyenv/versions/x/pyvenv.cfg"},
				Env:   []string{"PYENV_ROOT=~/.pyenv"},
				Out:   []string{"~/.pyenv/shims leads to ~/.ssh", "~/.pyenv/versions/out/bin leads to ~/project/venv/bin"},
			},
		},
		{
			name: "several places", tool: "pipx", entries: []string{".local/bin/black -> ~/.local/share/pipx/venvs/black/bin/black", ".local/share/pipx/venvs/black/bin/black", ".local/share/pipx/venvs/black/pip.conf", ".local/share/pipx/logs/"},
			want: Found{Files: []string{"~/.local/bin", "~/.local/share/pipx/venvs/black/bin"}, Path: []string{"~/.local/bin"}},
		},
		{
			name: "a variable that needs what is there", tool: "sdkman",
			entries: []string{".sdkman/candidates/java/21/bin/java", ".sdkman/candidates/java/current -> 21", ".sdkman/candidates/maven/3/bin/mvn", ".sdkman/candidates/maven/3/conf/settings.xml", ".sdkman/candidates/maven/3/conf/logging/x", ".sdkman/candidates/maven/current -> 3"},
			want: Found{
				Files: []string{
					"~/.sdkman/candidates/java/21/bin", "~/.sdkman/candidates/java/current/bin", "~/.sdkman/candidates/maven/3/bin",
					"~/.sdkman/candidates/maven/3/conf/logging", "~/.sdkman/candidates/maven/current/bin", "~/.sdkman/candidates/maven/current/conf/logging",
				},
				Path: []string{"~/.sdkman/candidates/java/current/bin", "~/.sdkman/candidates/maven/current/bin"},
				Env:  []string{"SDKMAN_DIR=~/.sdkman", "JAVA_HOME=~/.sdkman/candidates/java/current"},
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			home := makeHome(t, test.entries...)
			got, err := Home{home, func(key string) string { return strings.ReplaceAll(test.env[key], "~", home) }}.Find(tool(t, test.tool))
			if err != nil {
				t.Fatal(err)
			}
			for _, list := range []*[]string{&got.Files, &got.Path, &got.Env, &got.Out} {
				for i := range *list {
					(*list)[i] = strings.ReplaceAll((*list)[i], home, "~")
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestFindRefuses(t *testing.T) {
	home := makeHome(t, ".pyenv -> ~", "bin/x", ".nvm/", ".local/bin/x")
	h := Home{home, func(string) string { return "" }}
	if f, err := h.Find(tool(t, "pyenv")); err == nil || !strings.Contains(err.Error(), "is or holds the home") {
		t.Errorf("a folder that is the home: %+v, %v", f, err)
	}
	for _, name := range []string{"nvm", "cargo", "pipx", "uv"} { // empty, absent, what may be another tool's
		if f, err := h.Find(tool(t, name)); !errors.Is(err, ErrNone) || !strings.Contains(err.Error(), home) {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
}

func TestProgram(t *testing.T) {
	home := makeHome(t, ".local/bin/plain = \x7fELF", ".local/bin/script = #!/bin/sh\n", ".local/bin/own = #!~/venv/bin/python\n", "venv/x = #!/usr/bin/env node\n", ".local/bin/linked -> ~/venv/x",
		".local/share/v1/binary = \x7fELF", ".local/bin/binary -> ~/.local/share/v1/binary", ".local/bin/folder/", "top = \x7fELF", "work/bin/plain = other", ".local/bin/text = x", ".local/bin/gone -> ~/nowhere")
	own := filepath.Join(home, ".local/bin/own")
	if err := errors.Join(os.Chmod(filepath.Join(home, ".local/bin/text"), 0o644), os.WriteFile(own, []byte("#!"+home+"/venv/bin/python\n"), 0o755)); err != nil {
		t.Fatal(err)
	}
	h := Home{home, func(key string) string {
		return map[string]string{"PATH": "/usr/bin:" + home + ":relative:" + home + "/none:" + home + "/.local/bin:" + home + "/work/bin"}[key]
	}}
	for name, fails := range map[string]string{
		"plain": "", "script": "", "binary": "", "own": "part of something larger", "linked": "part of something larger", "folder": "nothing is there", "top": "nothing is there",
		"text": "nothing is there", "gone": "nothing is there", "sh": "nothing is there", "../bin/plain": "no name", "..": "no name", ".": "no name", "": "no name",
	} {
		got, err := h.Program(name)
		if fails == "" && (err != nil || !slices.Equal(got.Files, []string{filepath.Join(home, ".local/bin", name)})) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if fails != "" && (err == nil || !strings.Contains(err.Error(), fails)) {
			t.Errorf("%s: %+v, %v, want %q", name, got, err, fails)
		}
	}
}

// Each part has a reason, and lies where its place is: no pattern leads out, or shows a whole folder that is not one of programs alone.
func TestBuiltIn(t *testing.T) {
	if !slices.IsSortedFunc(BuiltIn(), func(a, b Tool) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("not in the order of names")
	}
	for _, tool := range BuiltIn() {
		if tool.Purpose == "" || tool.Stays == "" || len(tool.Places) == 0 {
			t.Errorf("%s: has no purpose, nothing that stays, or no place", tool.Name)
		}
		for _, p := range tool.Places {
			if p.Told && p.Variable == "" || p.Folder == "" && p.Variable == "" || p.Folder != "" && !filepath.IsLocal(p.Folder) {
				t.Errorf("%s: %+v", tool.Name, p)
			}
			for _, part := range p.Parts {
				if part.Reason == "" {
					t.Errorf("%s: %s has no reason", tool.Name, part.Pattern)
				}
				for _, pattern := range part.patterns() {
					if !filepath.IsLocal(pattern) || path.Clean(pattern) != pattern || strings.ContainsAny(pattern, "{}") {
						t.Errorf("%s: %q is no pattern", tool.Name, pattern)
					}
					if whole := path.Base(p.Folder); pattern == "." && whole != "bin" {
						t.Errorf("%s: all of %s", tool.Name, p.Folder)
					}
				}
			}
		}
	}
}
