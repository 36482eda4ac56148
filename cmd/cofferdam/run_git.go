//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cofferdam.dev/cofferdam/shim/runner"
)

// gitPrograms are where a system keeps git. PATH does not count: it may lead into a workspace, and what an agent has left there must not run
// out here.
var gitPrograms = []string{"/usr/bin/git", "/usr/local/bin/git", "/run/current-system/sw/bin/git"}

// askGit has git asked while other things are done; tell waits for the answer.
func askGit(ctx context.Context) (tell func(*runner.Request) error) {
	var files map[string]string
	var err error
	asked := make(chan struct{})
	go func() { // ends with git
		defer close(asked)
		var home string
		if _, home, err = caller(); err == nil {
			files, err = gitFiles(ctx, home)
		}
	}()
	return func(r *runner.Request) error {
		<-asked
		r.Git = files
		return err
	}
}

// gitFiles is what the agent's git is told of the caller's configuration, as files of /etc by name: who commits, and what a first branch is
// called. Nothing else is taken: helpers hold credentials, aliases and hooks are programs. Where the identity depends on the repository
// (includeIf, git-config(1)) the conditions are handed in, to be judged there: out here nothing of a workspace is read.
func gitFiles(ctx context.Context, home string) (map[string]string, error) {
	i := slices.IndexFunc(gitPrograms, func(p string) bool { _, err := os.Stat(p); return err == nil })
	if i < 0 {
		return nil, nil
	}
	if !slices.ContainsFunc(gitConfigs(gitPrograms[i], home), maySayWho) {
		return map[string]string{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	git := gitReader{ctx: ctx, program: gitPrograms[i], home: home}
	said, err := git.read(`^(user\.(name|email)|init\.defaultbranch|includeif\..*\.path)$`)
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	var all strings.Builder
	for _, s := range said { // in their order: the last one counts
		condition, conditional := strings.CutPrefix(strings.TrimSuffix(s.key, ".path"), "includeif.")
		if !conditional {
			all.WriteString(s.String())
			continue
		}
		file := git.beside(s.origin, s.value)
		if _, err := os.Stat(file); err != nil {
			continue // as git does
		}
		then, err := git.read(`^user\.(name|email)$`, "--includes", "--file", file)
		if err != nil {
			return nil, err
		}
		if kind, pattern, _ := strings.Cut(condition, ":"); strings.HasPrefix(pattern, "./") {
			condition = kind + ":" + git.beside(s.origin, pattern)
		}
		name := fmt.Sprintf("gitconfig-%d", len(files)+1)
		for _, t := range then {
			files[name] += t.String()
		}
		if files[name] != "" {
			fmt.Fprintf(&all, "[includeIf %s]\n\tpath = /etc/%s\n", gitQuote(condition), name)
		}
	}
	if all.Len() > 0 {
		files["gitconfig"] = all.String()
	}
	return files, nil
}

// gitConfigs are where git looks for the system's and the caller's configuration (git-config(1), FILES).
func gitConfigs(program, home string) []string {
	prefix := filepath.Dir(filepath.Dir(program))
	return []string{
		os.Getenv("GIT_CONFIG_SYSTEM"), os.Getenv("GIT_CONFIG_GLOBAL"), "/etc/gitconfig", filepath.Join(prefix, "etc/gitconfig"),
		filepath.Join(home, ".gitconfig"), filepath.Join(xdg("XDG_CONFIG_HOME", filepath.Join(home, ".config")), "git/config"),
	}
}

// maySayWho reports whether a configuration could hold something that gitFiles asks for: it has the name of such a section, or of one that
// includes other files. Git, which takes a millisecond to start, knows for sure.
func maySayWho(config string) bool {
	text, err := os.ReadFile(config)
	if err != nil {
		return config != "" && !errors.Is(err, fs.ErrNotExist)
	}
	text = bytes.ToLower(text)
	return slices.ContainsFunc([]string{"user", "init", "include"}, func(section string) bool { return bytes.Contains(text, []byte(section)) })
}

// gitSetting is one value of a configuration.
type gitSetting struct{ origin, key, value string }

// String is the setting as it stands in a file.
func (s gitSetting) String() string {
	section, name, _ := strings.Cut(s.key, ".")
	return fmt.Sprintf("[%s]\n\t%s = %s\n", section, name, gitQuote(s.value))
}

func gitQuote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
}

// gitReader asks git for settings of the caller's.
type gitReader struct {
	ctx           context.Context
	program, home string
}

// read returns what git finds by pattern. It runs outside of every repository.
func (g gitReader) read(pattern string, from ...string) ([]gitSetting, error) {
	args := append([]string{"config", "--null", "--show-origin"}, from...)
	cmd := exec.CommandContext(g.ctx, g.program, append(args, "--get-regexp", pattern)...)
	cmd.Dir, cmd.Env = "/", []string{"HOME=" + g.home}
	for _, key := range []string{"XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM"} {
		if value, set := os.LookupEnv(key); set {
			cmd.Env = append(cmd.Env, key+"="+value)
		}
	}
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		if exit.ExitCode() == 1 { // there is none
			return nil, nil
		}
		return nil, fmt.Errorf("read git's configuration: %w: %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	if err != nil {
		return nil, fmt.Errorf("read git's configuration: %w", err)
	}
	var found []gitSetting
	fields := strings.Split(string(out), "\x00")
	for ; len(fields) > 1; fields = fields[2:] {
		key, value, _ := strings.Cut(fields[1], "\n")
		found = append(found, gitSetting{strings.TrimPrefix(fields[0], "file:"), key, value})
	}
	return found, nil
}

// beside resolves a path of a configuration file, which is relative to that one.
func (g gitReader) beside(origin, path string) string {
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		return filepath.Join(g.home, rest)
	}
	if filepath.IsAbs(path) {
		return path
	}
	kept := ""
	if strings.HasSuffix(path, "/") { // it means all below
		kept = "/"
	}
	return filepath.Join(filepath.Dir(origin), path) + kept
}
