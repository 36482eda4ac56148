//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cofferdam.dev/cofferdam/netns/netnstest"
)

func TestGitIsToldWhoCommitsAndNothingElse(t *testing.T) {
	if _, err := os.Stat(gitPrograms[0]); err != nil {
		netnstest.Skip(t, "git", err.Error())
	}
	home := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(home, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "HOME", home)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// Of the repository in which the command is called nothing is read, and nothing is run.
	write("project/.git/HEAD", "ref: refs/heads/main\n")
	write("project/.git/config", "[user]\n\tname = somebody else\n[include]\n\tpath = HOME/fifo\n")
	t.Chdir(filepath.Join(home, "project"))
	t.Setenv("PATH", filepath.Join(home, "project"))
	t.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	for _, key := range []string{"XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL"} {
		t.Setenv(key, "")
		os.Unsetenv(key)
	}

	for _, row := range []struct {
		name   string
		config string
		want   map[string]string
	}{
		{"nothing", "", map[string]string{}},
		{"secrets and programs", `
[credential]
	helper = "!cat ~/secret"
[alias]
	st = !evil
[core]
	hooksPath = ~/hooks
[http]
	extraHeader = "Authorization: Basic c2VjcmV0"
[url "https://token@example.test/"]
	insteadOf = https://example.test/
[user]
	signingKey = key
`, map[string]string{}},
		{"a name that tries to be more", `
[user]
	name = "Ann \"\\\n[alias]\n\tst = !evil # "
	email = ann@example.test
[init]
	defaultBranch = trunk
	templateDir = ~/template
`, map[string]string{
			"gitconfig": "[user]\n\tname = \"Ann \\\"\\\\\\n[alias]\\n\tst = !evil # \"\n[user]\n\temail = \"ann@example.test\"\n" +
				"[init]\n\tdefaultbranch = \"trunk\"\n",
		}},
		{"included", "[include]\n\tpath = more\n", map[string]string{"gitconfig": "[user]\n\tname = \"From More\"\n"}},
		{"by the repository", `
[user]
	email = ann@example.test
[includeIf "gitdir:~/work/"]
	path = ~/work.config
[includeIf "gitdir:./here/"]
	path = work.config
[includeIf "onbranch:main"]
	path = missing
[includeIf "onbranch:main"]
	path = HOME/plain.config
`, map[string]string{
			"gitconfig": "[user]\n\temail = \"ann@example.test\"\n[includeIf \"gitdir:~/work/\"]\n\tpath = /etc/gitconfig-1\n" +
				"[includeIf \"gitdir:HOME/here/\"]\n\tpath = /etc/gitconfig-2\n",
			"gitconfig-1": "[user]\n\temail = \"ann@work.test\"\n",
			"gitconfig-2": "[user]\n\temail = \"ann@work.test\"\n",
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			write("more", "[user]\n\tname = From More\n[credential]\n\thelper = store\n")
			write("work.config", "[user]\n\temail = ann@work.test\n[credential]\n\thelper = store\n")
			write("plain.config", "[credential]\n\thelper = store\n")
			write(".gitconfig", row.config)
			got, err := gitFiles(t.Context(), home)
			if err != nil {
				t.Fatal(err)
			}
			for name, text := range got {
				got[name] = strings.ReplaceAll(text, home, "HOME")
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	write(".gitconfig", "[user\n")
	if _, err := gitFiles(t.Context(), home); err == nil || !strings.Contains(err.Error(), "bad config line 1") {
		t.Errorf("a mistake: %v", err)
	}
}
