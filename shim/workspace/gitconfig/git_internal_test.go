package gitconfig

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// snapshot returns the configurations below root by their place.
func snapshot(t *testing.T, root string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || d.Name() != "config" && d.Name() != "config.worktree" {
			return err
		}
		b, err := os.ReadFile(path)
		rel, _ := filepath.Rel(root, path)
		found[filepath.ToSlash(rel)] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestRealGit has git do its everyday work and judges what that made of each configuration: as one replacement, and line by line, because git writes the
// keys of a clone or a submodule one after the other.
func TestRealGit(t *testing.T) {
	root := t.TempDir()
	for _, step := range []struct{ dir, args, writes string }{
		{".", "init -q -b main origin", "origin/.git/config"},
		{"origin", "commit -q --allow-empty -m a", ""},
		{".", "init -q -b main lib", "lib/.git/config"},
		{"lib", "commit -q --allow-empty -m a", ""},
		{"lib", "config uploadpack.allowFilter true", "-"}, // by the owner
		{".", "clone -q ROOT/origin work", "work/.git/config"},
		{".", "clone -q --bare ROOT/origin bare.git", "bare.git/config"},
		{".", "clone -q --filter=blob:none file://ROOT/lib part", "part/.git/config"},
		{".", "clone -q --depth 1 --single-branch --no-tags -o up file://ROOT/origin shallow", "shallow/.git/config"},
		{".", "init -q --object-format=sha256 sha256", "sha256/.git/config"},
		{"work", "config user.name Somebody", "work/.git/config"},
		{"work", "config user.email a@b.test", "work/.git/config"},
		{"work", "config pull.rebase true", "work/.git/config"},
		{"work", "checkout -q -b topic", ""},
		{"work", "branch -q -u origin/main", "work/.git/config"},
		{"work", "branch -q -u main", "work/.git/config"},
		{"work", "branch -q -m theme", "work/.git/config"},
		{"work", "branch -q --unset-upstream", "work/.git/config"},
		{"work", "push -q -u origin theme", "work/.git/config"},
		{"work", "checkout -q main", ""},
		{"work", "branch -q -D theme", "work/.git/config"},
		{"work", "remote add other ROOT/lib", "work/.git/config"},
		{"work", "remote add -t main --no-tags third ROOT/lib", "work/.git/config"},
		{"work", "fetch -q other", ""},
		{"work", "remote set-branches --add other topic", "work/.git/config"},
		{"work", "worktree add -q ../further", ""},
		{"work", "submodule --quiet add ROOT/lib sub/lib", "work/.git/config work/.git/modules/sub/lib/config"},
		{"work", "submodule --quiet add --name deep/er ../lib d", "work/.git/config work/.git/modules/deep/er/config"},
		{"work", "commit -q -m submodules", ""},
		{"work", "submodule --quiet sync", ""},
		{"work", "submodule --quiet deinit -f sub/lib", "work/.git/config work/.git/modules/sub/lib/config"},
		{"work", "submodule --quiet init", "work/.git/config"},
		{"work", "submodule --quiet update", "work/.git/modules/sub/lib/config"},
		{".", "clone -q --recurse-submodules work copy", "copy/.git/config copy/.git/modules/sub/lib/config copy/.git/modules/deep/er/config"},
		{"further", "merge -q main", ""},
		{"further", "submodule --quiet update --init", "work/.git/worktrees/further/modules/sub/lib/config work/.git/worktrees/further/modules/deep/er/config"},
		{"work", "sparse-checkout set sub", "work/.git/config work/.git/config.worktree"},
		{"further", "sparse-checkout set --no-cone sub", "work/.git/worktrees/further/config.worktree"},
		{"work/sub/lib", "sparse-checkout set x", "work/.git/modules/sub/lib/config work/.git/modules/sub/lib/config.worktree"},
		{"work", "sparse-checkout disable", "work/.git/config.worktree"},
		{"work", "stash -q", ""},
		{"work", "gc -q", ""},
	} {
		before := snapshot(t, root)
		args := strings.Fields(strings.ReplaceAll(step.args, "ROOT", root))
		if out, err := git(t, filepath.Join(root, step.dir), args...).CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v\n%s", step.args, err, out)
		}
		if step.writes == "-" {
			continue
		}
		after := snapshot(t, root)
		var written []string
		for _, place := range slices.Sorted(maps.Keys(after)) {
			if before[place] == after[place] {
				continue
			}
			written = append(written, place)
			dir := filepath.ToSlash(filepath.Dir(place))
			if err := Judge([]byte(before[place]), []byte(after[place]), dir); err != nil {
				t.Errorf("git %s: %s: %v\n%s", step.args, place, err, after[place])
			}
			if before[place] != "" {
				continue
			}
			text := ""
			for line := range strings.Lines(after[place]) {
				if err := Judge(nil, []byte(text+line), dir); err != nil { // against what was there before the agent
					t.Errorf("git %s: %s: %v\n%s", step.args, place, err, text+line)
				}
				text += line
			}
		}
		for _, want := range strings.Fields(step.writes) {
			if !slices.Contains(written, want) {
				t.Errorf("git %s: did not write %s, but %q", step.args, want, written)
			}
		}
	}
}
