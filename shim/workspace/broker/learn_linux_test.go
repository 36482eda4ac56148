package broker

import (
	"os"
	"path/filepath"
	"testing"

	"cofferdam.dev/cofferdam/shim/workspace"
)

// TestWhatAConfigurationNamesIsProtected has the owner's git run, and read as configuration, files of the workspace.
func TestWhatAConfigurationNamesIsProtected(t *testing.T) {
	b, dir := desk(t)
	tree := b.trees[0]
	write(t, filepath.Join(dir, ".git/config"), `
[core]
	hooksPath = tools/hooks
	fsmonitor = ./tools/watch.sh
[filter "x"]
	clean = "sh -c 'tools/clean.sh %f'"
[alias]
	gone = !tools/gone.sh
[include]
	path = ../more
	path =
	path = .
[includeIf "onbranch:x"]
	path = ~/`+filepath.Base(dir)+`/home
[user]
	name = named
`)
	write(t, filepath.Join(dir, "more"), "[include]\n\tpath = deep/most\n\tpath = more\n[diff]\n\texternal = "+dir+"/tools/diff.sh\n")
	write(t, filepath.Join(dir, "deep/most"), "[gpg]\n\tprogram = linked\n")
	for _, name := range []string{"tools/watch.sh", "tools/clean.sh", "tools/diff.sh", "named", "real", "sh"} {
		write(t, filepath.Join(dir, name), "#!/bin/sh\n")
	}
	if err := os.Symlink("real", filepath.Join(dir, "linked")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "own/x"), "")
	for link, target := range map[string]string{".vscode": "conf/vs", ".idea": dir + "/conf/idea", ".zed": "../outside", ".cargo": "own", ".hg": "gone"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := tree.learn(b.proc); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]workspace.Kind{
		"tools/hooks/pre-commit": workspace.Protected,
		"tools/watch.sh":         workspace.Protected,
		"tools/clean.sh":         workspace.Protected,
		"tools/diff.sh":          workspace.Protected,
		"more":                   workspace.Protected,
		"deep/most":              workspace.Protected,
		"home":                   workspace.Protected,
		"linked":                 workspace.Protected,
		"real":                   workspace.Protected,
		"sh":                     workspace.Protected, // who has a file of a command's name may mean it

		"conf/vs/tasks.json": workspace.Protected, // where links lead that lead nowhere yet
		"conf/idea":          workspace.Protected,
		"conf":               workspace.Free,
		"own/config.toml":    workspace.Protected,
		"own/x":              workspace.Free,
		"gone/hgrc":          workspace.Protected,
		"outside":            workspace.Free,

		"tools/gone.sh":  workspace.Free,
		"tools/other.sh": workspace.Free,
		"named":          workspace.Free,
		".git/index":     workspace.Free,
		".git/config":    workspace.GitConfig,
		"deep/other":     workspace.Free,
	} {
		if v := tree.verdict(name); v.Kind != want {
			t.Errorf("%s: %+v", name, v)
		}
	}
}
