package workspace

import "testing"

func TestJudgeLink(t *testing.T) {
	for _, row := range []struct {
		name, text string
		may        bool
	}{
		{"sub/.git", "gitdir: ../.git/modules/sub\n", true},
		{"a/b/.git", "gitdir: ../../.git/modules/b", true},
		{"a/b/c/.git", "gitdir: ../../.git/worktrees/c\r\n", true},
		{"a/.git", "gitdir: ../.git", true},
		{"wt/.git", "gitdir: /work/.git/worktrees/wt\n", true},
		{"a/wt/.git", "gitdir: /work/a/.git/worktrees/wt\n", true},
		{"a/.git", "gitdir: /work/a/.git/x\n", true}, // itself, and so nothing
		{"a/.git", "", true},
		{"a/.git", "\n", true},

		{"a/.git", "gitdir: ../../.git/x", false},
		{"a/.git", "gitdir: ../b/.git/x", false},
		{"a/.git", "gitdir: ../b", false},
		{"a/.git", "gitdir: b", false},
		{"a/.git", "gitdir: .git/x", false},
		{"a/.git", "gitdir: ..", false},
		{"a/.git", "gitdir: ./../.git", false},
		{"a/.git", "gitdir: ../.git/../b", false},
		{"a/.git", "gitdir: ../.git//x", false},
		{"a/.git", "gitdir: ../.git/x/", false},
		{"a/.git", "gitdir: ../.gitx", false},
		{"a/.git", "gitdir: ../.GIT", false},
		{"a/.git", "gitdir:  ../.git", false},
		{"a/.git", "gitdir: /tmp/x", false},
		{"a/.git", "gitdir: /work", false},
		{"a/.git", "gitdir: /work/", false},
		{"a/.git", "gitdir: /workx/.git", false},
		{"a/.git", "gitdir: /work/.gitx/y", false},
		{"a/.git", "gitdir: /work/b/.git/x", false},
		{"ab/.git", "gitdir: /work/a/.git/x", false},
		{"a/.git", "gitdir: /work/../.git", false},
		{"a/b/.git", "gitdir: /work/a/../a/.git", false},
		{"a/.git", "gitdir: /work//.git", false},
		{"a/.git", "gitdir: /proc/1/root/work/.git", false},
		{"a/.git", "gitdir: ../.git/x\n/tmp/x", false},
		{"a/.git", "gitdir: ../.git\x00/x", false},
		{"a/.git", "ref: x", false},
		{".git", "gitdir: ../.git/x", false},

		{".git/worktrees/w/commondir", "../..\n", true},
		{"a/.git/modules/b/worktrees/w/commondir", "../..", true},
		{".git/worktrees/w/commondir", "", true},
		{".git/worktrees/w/commondir", "../../..", false},
		{".git/worktrees/w/commondir", "..", false},
		{".git/worktrees/commondir", "../..", false},
		{".git/modules/m/commondir", "../..", false},
		{".git/commondir", "..", false},
		{"worktrees/.git/commondir", "../..", false},
		{"a/worktrees/w/commondir", "../..", false},
		{".git/worktrees/w/commondir", "../../x", false},
		{".git/worktrees/w/commondir", "../../", false},
		{".git/worktrees/w/commondir", ".", false},
		{".git/worktrees/w/commondir", "/work/.git", false},
		{"COMMONDIR", "..", false},

		{".jj/repo", "", true},
		{".jj/repo", "../../.jj/repo", false},
		{"a/.jj/repo", "/tmp/x", false},
	} {
		if err := JudgeLink(row.name, row.text, "/work"); (err == nil) != row.may {
			t.Errorf("%s with %q: %v", row.name, row.text, err)
		}
	}
}

func TestJudgeSymlink(t *testing.T) {
	for name, want := range map[string]Kind{
		"a":                    Free,
		"bare/refs":            Free,
		"a/.git":               GitLink,
		"commondir":            GitLink,
		".git/modules":         Protected,
		"a/.git/modules/x":     Protected,
		"a/.GIT/x":             Protected,
		".git/hooks":           Folder,
		".git/hooks/x.sample":  Protected,
		".git/config":          GitConfig,
		"free/.git/x":          Protected,
		"free/.git/really/x/y": Free,
	} {
		j, err := NewJudge(Rules{Writable: []string{"free", "free/.git/really"}})
		if err != nil {
			t.Fatal(err)
		}
		isGit := func(dir string) bool { return dir == "bare" }
		for _, target := range []string{"/tmp/x", "../x", "x/y", "x/", "..", "."} {
			if v := j.JudgeSymlink(name, target, isGit); v.Kind != want || (v.Kind != Free && v.Reason == "") {
				t.Errorf("%s to %s: %+v", name, target, v)
			}
		}
		if v := j.JudgeSymlink(name, "testing", isGit); v != j.Judge(name, isGit) {
			t.Errorf("%s to what lies beside it: %+v", name, v)
		}
	}
}

// TestNoSymlinkIsOnTheWay is about the folders of protected places: were one a link, the place would be where it leads.
func TestNoSymlinkIsOnTheWay(t *testing.T) {
	j, err := NewJudge(Rules{ReadOnly: []string{"/kept/a*/c"}, Writable: []string{"free/x"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]Kind{
		".cargo":         Protected, // .cargo/config.toml
		"a/.GitHub":      Protected,
		".jj":            Protected,
		".jj/repo":       GitLink,
		".jj/repo/store": Free,
		"kept":           Protected,
		"a/kept":         Free,
		"kept/ab":        Protected,
		"kept/ab/c":      Protected,
		"kept/ab/d":      Free,
		"kept/b":         Free,
		"hgrc":           Free,
		"free":           Free,
	} {
		for _, target := range []string{"beside", "../x", "/tmp/x"} {
			if v := j.JudgeSymlink(name, target, isGit); v.Kind != want || (v.Kind != Free && v.Reason == "") {
				t.Errorf("%s to %s: %+v", name, target, v)
			}
		}
		if v := j.Judge(name, isGit).For(true); v.Kind != Free && name != "kept/ab/c" {
			t.Errorf("%s is no folder that may be there: %+v", name, v)
		}
	}
}
