package workspace

import (
	"path"
	"slices"
	"strings"
	"testing"
)

// isGit is true for a bare repository "bare", a worktree's folder and what a submodule has.
func isGit(dir string) bool {
	return slices.Contains([]string{"bare", ".git/worktrees/w", "a/.git/modules/b", "common"}, dir)
}

func TestJudge(t *testing.T) {
	for _, test := range []struct {
		rules Rules
		path  string
		want  Kind
	}{
		{path: ".", want: Free},
		{path: "main.go", want: Free},
		{path: ".git", want: GitLink},
		{path: "a/.GIT", want: GitLink},
		{path: ".git/worktrees/w/commondir", want: GitLink},
		{path: "CommonDir", want: GitLink},
		{path: "commondir/x", want: Free},
		{path: "a/.JJ/repo", want: GitLink},
		{path: ".jj/repo/store", want: Free},
		{path: "repo", want: Free},
		{path: ".git/worktrees/w/objects", want: Protected},
		{path: ".git/worktrees/w/objects/ab/c", want: Protected},
		{path: "a/.git/modules/b/worktrees/w/Objects", want: Protected},
		{path: "bare/worktrees/w/objects", want: Protected},
		{path: ".git/modules/worktrees/w/objects", want: Free}, // a submodule in worktrees/w
		{path: ".git/worktrees/w/modules/b/objects", want: Free},
		{path: "worktrees/w/objects", want: Free},
		{path: ".git/objects", want: Free},
		{path: ".git/index", want: Free},
		{path: ".git/HEAD", want: Free},
		{path: ".git/info/attributes", want: Free},
		{path: ".gitattributes", want: Free},

		{path: ".git/config", want: GitConfig},
		{path: ".GIT/Config", want: GitConfig},
		{path: "a/b/.git/config", want: GitConfig},
		{path: ".git/config.worktree", want: GitConfig},
		{path: ".git/config/x", want: Protected},
		{path: ".git/config.lock", want: Free},
		{path: ".git/worktrees/w/config.worktree", want: GitConfig},
		{path: "a/.git/modules/b/config", want: GitConfig},
		{path: "bare/config", want: GitConfig},
		{path: "other/config", want: Free},
		{path: "config", want: Free},
		{path: ".git/refs/heads/config", want: Free},
		{path: ".git/refs/remotes/origin/hooks/x", want: Free},

		{path: ".git/hooks", want: Folder},
		{path: ".git/hooks/pre-commit", want: Protected},
		{path: ".git/hooks/pre-commit.sample", want: Free},
		{path: ".git/hooks/x.sample/y", want: Protected},
		{path: ".git/hooks/d/x.sample", want: Protected},
		{path: "bare/hooks/post-receive", want: Protected},
		{path: ".git/remotes", want: Folder},
		{path: ".git/remotes/origin", want: Protected},
		{path: ".git/branches/x", want: Protected},
		{path: ".git/refs/remotes/origin/x", want: Free},
		{path: "src/hooks/useState.ts", want: Free},

		{path: ".vscode", want: Protected},
		{path: ".vscode/tasks.json", want: Protected},
		{path: "packages/a/.vscode/x", want: Protected},
		{path: ".VSCode", want: Protected},
		{path: ".vscodes", want: Free},
		{path: ".v\u017fcode/x", want: Protected}, // as some file systems see it
		{path: ".hus\u212ay", want: Protected},
		{path: "a/.g\u200cit/config", want: GitConfig},
		{path: ".git/hoo\ufe0fks/pre-push", want: Protected},
		{path: "\u00ad/x", want: Free},
		{path: ".vscod\u00e9", want: Free},
		{path: ".vscod\xff", want: Free},
		{path: "x.code-workspace", want: Protected},
		{path: "deep/er/x.CODE-workspace", want: Protected},
		{path: ".github", want: Free},
		{path: ".github/workflows", want: Protected},
		{path: ".github/workflows/ci.yml", want: Protected},
		{path: ".github/CODEOWNERS", want: Free},
		{path: ".envrc", want: Protected},
		{path: ".env", want: Free},
		{path: ".cofferdam.yaml", want: Protected},
		{path: ".husky/pre-commit", want: Protected},

		{rules: Rules{ReadOnly: []string{"vendor"}}, path: "vendor/x", want: Protected},
		{rules: Rules{ReadOnly: []string{"vendor"}}, path: "a/vendor", want: Protected},
		{rules: Rules{ReadOnly: []string{"/vendor"}}, path: "a/vendor", want: Free},
		{rules: Rules{ReadOnly: []string{"vendor"}}, path: "vendor/m/.git/config", want: Protected},
		{rules: Rules{ReadOnly: []string{"*.key"}}, path: "a.key", want: Protected},
		{rules: Rules{ReadOnly: []string{"k?y"}}, path: "key", want: Protected},
		{rules: Rules{ReadOnly: []string{"a/*/c"}}, path: "a/b/c/d", want: Protected},
		{rules: Rules{ReadOnly: []string{"a/*/c"}}, path: "a/b/d/c", want: Free},
		{rules: Rules{Hidden: []string{".env"}}, path: "x/.env", want: Hidden},

		{rules: Rules{Writable: []string{".vscode"}}, path: ".vscode/x", want: Free},
		{rules: Rules{Writable: []string{".vscode/settings.json"}}, path: ".vscode/settings.json", want: Free},
		{rules: Rules{Writable: []string{".vscode/settings.json"}}, path: ".vscode/tasks.json", want: Protected},
		{rules: Rules{Writable: []string{".git/hooks"}}, path: ".git/hooks/pre-commit", want: Free},
		{rules: Rules{Writable: []string{".git/hooks"}}, path: ".git/config", want: GitConfig},
		{rules: Rules{Writable: []string{"sub"}}, path: "sub/.git/config", want: GitConfig},
		{rules: Rules{Writable: []string{"sub"}}, path: "sub/.vscode", want: Protected},
		{rules: Rules{ReadOnly: []string{"gen"}, Writable: []string{"gen/out"}}, path: "gen/out/x", want: Free},
		{rules: Rules{ReadOnly: []string{"gen"}, Writable: []string{"gen"}}, path: "gen/x", want: Protected},
		{rules: Rules{Hidden: []string{"x"}, ReadOnly: []string{"x"}, Writable: []string{"x"}}, path: "x", want: Hidden},
	} {
		j, err := NewJudge(test.rules)
		if err != nil {
			t.Fatal(err)
		}
		v := j.Judge(test.path, isGit)
		if v.Kind != test.want {
			t.Errorf("%+v: %s is %d (%s), want %d", test.rules, test.path, v.Kind, v.Pattern, test.want)
		}
		if v.Kind != Free && (v.Pattern == "" || v.Reason == "") {
			t.Errorf("%s: refused without a reason: %+v", test.path, v)
		}
	}
}

func TestSameName(t *testing.T) {
	for _, row := range []struct {
		a, b string
		want bool
	}{
		{"HEAD", "head", true},
		{"ref\u017f", "refs", true},
		{"HE\u200bAD", "HEAD", true},
		{"HEAD", "HEADS", false},
		{"r\u00e9fs", "refs", false},
	} {
		if SameName(row.a, row.b) != row.want || row.want && !MakesGit(row.a) {
			t.Errorf("%q and %q: %v", row.a, row.b, !row.want)
		}
	}
}

func TestPatternsThatAreRefused(t *testing.T) {
	for _, p := range []string{"", "/", "a//b", "a/", "./a", "a/..", "..", "[a]", `a\b`, "a\x00", strings.Repeat("a", maxPattern+1)} {
		for _, r := range []Rules{{ReadOnly: []string{p}}, {Hidden: []string{p}}, {Writable: []string{p}}} {
			if _, err := NewJudge(r); err == nil {
				t.Errorf("%q was taken", p)
			}
		}
	}
}

// TestBuiltIn holds the list to its own rules: every entry is a pattern that protects what it names, with a reason, once.
func TestBuiltIn(t *testing.T) {
	j, err := NewJudge(Rules{})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, p := range BuiltIn() {
		if seen[p.Pattern] {
			t.Errorf("%s is there twice", p.Pattern)
		}
		seen[p.Pattern] = true
		if p.Reason == "" {
			t.Errorf("%s has no reason", p.Pattern)
		}
		name := strings.ReplaceAll(p.Pattern, "*", "x")
		for _, at := range []string{name, "some/where/" + name, name + "/below"} {
			if v := j.Judge(at, isGit); v.Kind != Protected {
				t.Errorf("%s is not protected: %+v", at, v)
			}
		}
	}
}

func TestGitDirectoriesAreKnownByWhatTheyHold(t *testing.T) {
	for _, test := range []struct {
		entries string
		want    bool
	}{
		{"HEAD objects refs", true},
		{"HEAD refs", true},
		{"HEAD commondir", true}, // of a worktree
		{"objects refs", true},   // what a commondir may name
		{"HEAD", false},          // refs/remotes/origin
		{"refs", false},
		{"objects", false},
		{"commondir", false},
	} {
		if got := IsGit(func(e string) bool { return slices.Contains(strings.Fields(test.entries), e) }); got != test.want {
			t.Errorf("%s: %v", test.entries, got)
		}
		last := false
		for _, e := range strings.Fields(test.entries) {
			last = last || MakesGit(e)
		}
		if test.want && !last {
			t.Errorf("%s: no entry of these is looked at", test.entries)
		}
	}
}

// TestPartsMatchAsPathMatchDoes compares all short patterns and names.
func TestPartsMatchAsPathMatchDoes(t *testing.T) {
	all := []string{""}
	for i := 0; i < len(all) && len(all[i]) < 4; i++ {
		for _, c := range []string{"a", "b", "é", "*", "?"} {
			all = append(all, all[i]+c)
		}
	}
	for _, pattern := range all {
		p := compilePart(pattern)
		for _, name := range all {
			want, err := path.Match(pattern, name)
			if err != nil {
				t.Fatal(err)
			}
			if got := p.matches(name); got != want {
				t.Errorf("%q matches %q: %v", pattern, name, got)
			}
		}
	}
}
