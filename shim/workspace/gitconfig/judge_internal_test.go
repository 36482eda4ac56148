package gitconfig

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	cloned = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n" +
		"[remote \"origin\"]\n\turl = https://git.test/a.git\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n" +
		"[branch \"main\"]\n\tremote = origin\n\tmerge = refs/heads/main\n"
	forked = cloned + "[remote \"fork\"]\n\turl = https://git.test/b.git\n"
	owned  = cloned + "[core]\n\thooksPath = /opt/hooks\n[include]\n\tpath = /opt/a\n[alias]\n\tx = !one\n\tx = !two\n[core]\n\tfsmonitor = /opt/watch\n"
)

// attacks must be refused; key is what the error has to name.
var attacks = []struct{ name, old, new, dir, key string }{
	{name: "hooks", new: "[core]\nhooksPath=x", key: "core.hookspath"},
	{name: "hooks by case", new: "[COR\x65]\nHOOKSPATH=x", key: "core.hookspath"},
	{name: "hooks behind a BOM", new: "\xef\xbb\xbf[core]\r\nhooksPath=x", key: "core.hookspath"},
	{name: "hooks behind a comment", new: "[user]\nname=a # \\\n[core]\nhooksPath=x", key: "core.hookspath"},
	{name: "hooks behind a quote", new: "[user]\nname=\"a\\\n\"\n[core]hooksPath=x", key: "core.hookspath"},
	{name: "name cut by NUL", new: "[core \"hookspath\x00\"]\na=x"},
	{name: "fsmonitor", new: "[core]\nfsmonitor=touch x", key: "core.fsmonitor"},
	{name: "fsmonitor that runs on", new: "[core]\nfsmonitor=true", key: "core.fsmonitor"},
	{name: "ssh", new: "[core]\nsshCommand=x", key: "core.sshcommand"},
	{name: "editor", new: "[core]\neditor=x", key: "core.editor"},
	{name: "pager", new: "[pager]\nlog=x", key: "pager.log"},
	{name: "alias", new: "[alias]\nst=!x", key: "alias.st"},
	{name: "include", new: "[include]\npath=../x", key: "include.path"},
	{name: "include if", new: "[includeIf \"gitdir:/\"]\npath=../x", key: "includeif.*.path"},
	{name: "filter", new: "[filter \"x\"]\nclean=x", key: "filter.x.clean"},
	{name: "diff", new: "[diff \"x\"]\ntextconv=x", key: "diff.x.textconv"},
	{name: "diff of all", new: "[diff]\nexternal=x", key: "diff.external"},
	{name: "merge", new: "[merge \"x\"]\ndriver=x", key: "merge.x.driver"},
	{name: "credentials", new: "[credential \"https://u:secret@x.test\"]\nhelper=!x", key: "credential.*.helper"},
	{name: "instead of", new: "[url \"ext::sh -c x\"]\ninsteadOf=https://", key: "url.*.insteadof"},
	{name: "ext allowed", new: "[protocol \"ext\"]\nallow=always", key: "protocol.ext.allow"},
	{name: "gpg", new: "[gpg]\nprogram=x", key: "gpg.program"},
	{name: "hook of a later git", new: "[hook \"x\"]\ncommand=x", key: "hook.x.command"},
	{name: "objects hook", new: "[gc]\nrecentObjectsHook=x", key: "gc.recentobjectshook"},
	{name: "pack outside", new: "[gc]\nrepackFilterTo=/x", key: "gc.repackfilterto"},
	{name: "trace", new: "[trace2]\neventTarget=/x", key: "trace2.eventtarget"},
	{name: "template", new: "[init]\ntemplateDir=x", key: "init.templatedir"},
	{name: "rebase's list", new: "[rebase]\ninstructionFormat=%n exec x", key: "rebase.instructionformat"},
	{name: "merge options", new: "[branch \"m\"]\nmergeOptions=-s x", key: "branch.m.mergeoptions"},
	{name: "unknown", new: "[core]\nfutureKey=x", key: "core.futurekey"},
	{name: "unknown by subsection", new: "[core \"x\"]\nbare=true", key: "core.x.bare"},
	{name: "before a section", new: "bare=true", key: "bare"},
	{name: "broken", new: "[core"},
	{name: "broken before", old: "[core", new: ""},

	{name: "upload pack", new: "[remote \"x\"]\nuploadpack=x", key: "remote.x.uploadpack"},
	{name: "helper", new: "[remote \"x\"]\nurl=ext::sh -c x", key: "remote.x.url"},
	{name: "helper with brackets", new: "[remote \"x\"]\nurl=\"ext::sh -c [x]\"", key: "remote.x.url"},
	{name: "helper by scheme", new: "[remote \"x\"]\nurl=foo://x", key: "remote.x.url"},
	{name: "dash", new: "[remote \"x\"]\nurl=--upload-pack=x", key: "remote.x.url"},
	{name: "dashed host", new: "[remote \"x\"]\nurl=ssh://-oProxyCommand=x/y", key: "remote.x.url"},
	{name: "dashed host in brackets", new: "[remote \"x\"]\nurl=\"ssh://[-oProxyCommand=x]/y\"", key: "remote.x.url"},
	{name: "dashed host by escape", new: "[remote \"x\"]\nurl=ssh://%2doProxyCommand=x/y", key: "remote.x.url"},
	{name: "dashed host behind a user", new: "[remote \"x\"]\nurl=a@-oProxyCommand=x:y", key: "remote.x.url"},
	{name: "dashed host of a short form", new: "[remote \"x\"]\nurl=\"[-oProxyCommand=x]:y\"", key: "remote.x.url"},
	{name: "line end in an address", new: "[remote \"x\"]\nurl=\"https://x/\\nhost=y\"", key: "remote.x.url"},
	{name: "escaped line end in an address", new: "[remote \"x\"]\nurl=git://x/%0ahost=y", key: "remote.x.url"},
	{name: "no address", new: "[remote \"x\"]\nurl", key: "remote.x.url"},
	{name: "a remote's name as an option of fetch --all", new: "[remote \"--upload-pack=x\"]\nurl=/x", key: "remote.*.url"},
	{name: "submodule's command", new: "[submodule \"x\"]\nupdate=!x", key: "submodule.x.update"},
	{name: "submodule's address", new: "[submodule \"x\"]\nurl=-x", key: "submodule.x.url"},
	{name: "submodule's name", new: "[submodule \"../x\"]\nactive=true", key: "submodule.../x.active"},
	{name: "push elsewhere", old: cloned, new: strings.Replace(cloned, "git.test", "other.test", 1), key: "remote.origin.url"},
	{name: "push elsewhere too", old: cloned, new: cloned + "[remote \"origin\"]\nurl=https://other.test/", key: "remote.origin.url"},
	{name: "push elsewhere by removal", old: cloned, new: strings.Replace(cloned, "\turl = https://git.test/a.git\n", "", 1), key: "remote.origin.url"},
	{name: "push elsewhere by pushurl", old: cloned, new: cloned + "[remote \"origin\"]\npushurl=https://other.test/", key: "remote.origin.pushurl"},
	{name: "push elsewhere by default", old: forked, new: forked + "[remote]\npushDefault=fork", key: "remote.pushdefault"},
	{name: "push elsewhere by branch", old: forked, new: forked + "[branch \"main\"]\npushRemote=fork", key: "branch.main.pushremote"},
	{name: "push more", old: cloned, new: cloned + "[remote \"origin\"]\npush=refs/*:refs/*", key: "remote.origin.push"},
	{name: "push submodules", new: "[submodule]\nrecurse=true", key: "submodule.recurse"},
	{name: "fetch from new remotes", old: forked, new: forked + "[fetch]\nall=true", key: "fetch.all"},
	{name: "escape codes", new: "[user]\nname=\u009b2J", key: "user.name"},
	{name: "push all", old: cloned, new: cloned + "[push]\ndefault=matching", key: "push.default"},
	{name: "address of a remote that has only other keys", old: "[remote \"x\"]\nprune=true", new: "[remote \"x\"]\nprune=true\nurl=/x", key: "remote.x.url"},
	{name: "address of a remote that a branch follows", old: "[branch \"m\"]\nremote=x", new: "[branch \"m\"]\nremote=x\n[remote \"x\"]\nurl=/x", key: "remote.x.url"},
	{name: "origin beside the owner's", old: "[remote \"x\"]\nurl=/x", new: "[remote \"x\"]\nurl=/x\n[remote \"origin\"]\nurl=/y", key: "remote.origin.url"},
	{name: "branch follows a new remote", old: forked, new: forked + "[branch \"main\"]\nremote=fork", key: "branch.main.remote"},
	{name: "new branch follows a new remote", old: forked, new: forked + "[branch \"b\"]\nremote=fork", key: "branch.b.remote"},
	{name: "branch follows another than the only one", old: "[remote \"x\"]\nurl=/x", new: "[remote \"x\"]\nurl=/x\n[remote \"y\"]\nurl=/y\n[branch \"b\"]\nremote=y", key: "branch.b.remote"},
	{name: "branch follows an address", new: "[branch \"b\"]\nremote=ext::x", key: "branch.b.remote"},
	{name: "branch follows a path", new: "[branch \"b\"]\nremote=/x", key: "branch.b.remote"},
	{name: "branch follows nothing known", old: cloned, new: cloned + "[branch \"b\"]\nremote=x", key: "branch.b.remote"},
	{name: "objects from a new remote", old: forked, new: forked + "[remote \"fork\"]\npromisor=true", key: "remote.fork.promisor"},
	{name: "objects from a new remote by filter", old: forked, new: forked + "[remote \"fork\"]\npartialclonefilter=blob:none", key: "remote.fork.partialclonefilter"},
	{name: "objects from a new remote by extension", old: forked, new: forked + "[extensions]\npartialClone=fork", key: "extensions.partialclone"},

	{name: "remove hooks", old: owned, new: cloned, key: "core.hookspath"},
	{name: "remove all", old: owned, key: "core.hookspath"},
	{name: "remove checks", old: "[transfer]\nfsckObjects=true", key: "transfer.fsckobjects"},
	{name: "remove a protection", old: "[protocol \"ext\"]\nallow=never", key: "protocol.ext.allow"},
	{name: "remove a worktree's settings", old: "[extensions]\nworktreeConfig=true", key: "extensions.worktreeconfig"},
	{name: "override a worktree's settings", old: "[extensions]\nworktreeConfig=true", new: "[extensions]\nworktreeConfig=true\nworktreeConfig=false", key: "extensions.worktreeconfig"},
	{name: "change an alias", old: owned, new: strings.Replace(owned, "!two", "!tow", 1), key: "alias.x"},
	{name: "repeat an alias", old: owned, new: owned + "[alias]\n\tx = !one\n", key: "alias.x"},
	{name: "exchange aliases", old: owned, new: strings.NewReplacer("one", "two", "two", "one").Replace(owned), key: "alias.x"},
	{name: "uncover an alias", old: owned, new: strings.Replace(owned, "\tx = !two\n", "", 1), key: "alias.x"},
	{name: "exchange across names", old: "[include]\npath=a\n[alias]\nx=b", new: "[alias]\nx=b\n[include]\npath=a", key: "alias.x"},
	{name: "uncover a value that may not come", old: "[core]\nfsmonitor=/x\nfsmonitor=false", new: "[core]\nfsmonitor=/x", key: "core.fsmonitor"},
	{name: "reorder a value that may not come", old: "[core]\nfsmonitor=/x\nfsmonitor=false", new: "[core]\nfsmonitor=false\nfsmonitor=/x", key: "core.fsmonitor"},
	{name: "uncover by a change of white space", old: "[user]\nname=a b", new: "[user]\nname=a\tb", key: "user.name"},
	{name: "change white space", old: "[alias]\nx=!a b", new: "[alias]\nx=!a\tb", key: "alias.x"},

	{name: "worktree of any repository", new: "[core]\nworktree=../..", dir: "a/b/.git", key: "core.worktree"},
	{name: "worktree outside", new: "[core]\nworktree=../../../../x", dir: ".git/modules/m", key: "core.worktree"},
	{name: "worktree at the top", new: "[core]\nworktree=../../..", dir: ".git/modules/m", key: "core.worktree"},
	{name: "absolute worktree", new: "[core]\nworktree=/etc", dir: ".git/modules/m", key: "core.worktree"},
	{name: "worktree from home", new: "[core]\nworktree=~/x", dir: ".git/modules/m", key: "core.worktree"},
	{name: "git directory as a worktree", new: "[core]\nworktree=../../../n/.GIT", dir: ".git/modules/m", key: "core.worktree"},
	{name: "git directory of another", new: "[core]\nworktree=../n", dir: ".git/modules/m", key: "core.worktree"},
	{name: "worktree down and up", new: "[core]\nworktree=../../../a/../../x", dir: ".git/modules/m", key: "core.worktree"},
	{name: "worktree through a link", new: "[core]\nworktree=../../../a/../x", dir: ".git/modules/m", key: "core.worktree"},
	{name: "place outside", new: "", dir: "../.git"},
	{name: "absolute place", new: "", dir: "/x/.git"},
}

func TestAttacks(t *testing.T) {
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			dir := a.dir
			if dir == "" {
				dir = ".git"
			}
			err := Judge([]byte(a.old), []byte(a.new), dir)
			if err == nil {
				t.Fatal("allowed")
			}
			var refused *RefusedError
			if errors.As(err, &refused) != (a.key != "") || refused != nil && refused.Key != a.key {
				t.Errorf("%v; want one about %q", err, a.key)
			}
			for _, secret := range []string{"secret", "/x", "other.test", "touch"} {
				if strings.Contains(err.Error(), secret) && !strings.Contains(a.key, secret) {
					t.Errorf("%v: tells a value", err)
				}
			}
		})
	}
}

func TestMay(t *testing.T) {
	for _, c := range []struct{ name, old, new, dir string }{
		{name: "nothing"},
		{name: "the same", old: owned, new: owned},
		{name: "the same in another form", old: owned, new: strings.ReplaceAll(owned, "\n", "\r\n# x\r\n")},
		{name: "beside what may not come", old: owned, new: "[user]\nname=a\n" + owned + "[user]\nemail=a@b.test\n"},
		{name: "a command gives way to none", old: "[core]\nfsmonitor=/x", new: "[core]\nfsmonitor=false"},
		{name: "a new remote", old: cloned, new: forked},
		{name: "a new remote and its branch", new: forked + "[branch \"b\"]\nremote=fork"},
		{name: "a branch follows origin", old: forked, new: forked + "[branch \"b\"]\nremote=origin\nmerge=refs/heads/b"},
		{name: "a branch follows a branch", old: forked, new: forked + "[branch \"b\"]\nremote=.\nmerge=refs/heads/main"},
		{
			name: "a branch follows what another one does",
			old:  forked + "[branch \"b\"]\nremote=fork", new: forked + "[branch \"b\"]\nremote=fork\n[branch \"c\"]\nremote=fork",
		},
		{name: "a branch goes", old: cloned + "[branch \"b\"]\nremote=origin\nmerge=refs/heads/b", new: cloned},
		{name: "addresses", new: "[submodule \"a\"]url=https://a.test:1/b\n[submodule \"b\"]url=git@a.test:b/c.git\n[submodule \"c\"]url=../c\n" +
			"[submodule \"d\"]url=/a b/c\n[submodule \"e\"]url=\"ssh://git@[::1]:22/x\"\n[submodule \"f\"]url=\"[a.test:22]:x\"\n[submodule \"g\"]url=file:///x"},
		{name: "any bytes in a submodule's name", new: "[submodule \"\x01\xff]\\\"#\"]\nactive=true"},
		{name: "submodule", new: "[core]\nworktree=../../../m", dir: ".git/modules/m"},
		{name: "submodule with a long name", new: "[core]\nworktree=../../../../../a/m/n", dir: "a/.git/modules/m/n"},
		{name: "submodule of a submodule", new: "[core]\nworktree=../../../../../m/n", dir: ".git/modules/m/modules/n"},
		{name: "submodule of a worktree", new: "[core]\nworktree=../../../../../../w/m", dir: "a/.git/worktrees/w/modules/m"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := c.dir
			if dir == "" {
				dir = ".git"
			}
			if err := Judge([]byte(c.old), []byte(c.new), dir); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSize(t *testing.T) {
	text := []byte(strings.Repeat("#", maxSize))
	if err := Judge(text, text, ".git"); err != nil {
		t.Error(err)
	}
	if err := Judge(nil, append(text, '#'), ".git"); err == nil {
		t.Error("a text above the bound may come")
	}
}

// TestLargest keeps the time for a text of the largest size far below what somebody who waits would notice as more than slow.
func TestLargest(t *testing.T) {
	for _, unit := range []string{"[remote \"x\"]url=\n", "[a \"b\"]c=d\n", "a\n", "[remote \"%d\"]url=/a\n", "[%d]a=b\n"} {
		var before, after strings.Builder
		before.WriteString("[remote \"x\"]\n")
		for i := 0; before.Len() < maxSize-100; i++ {
			before.WriteString(strings.ReplaceAll(unit, "%d", strconv.Itoa(i)))
		}
		after.WriteString(before.String()[:before.Len()-len("\n")] + "x\n")
		start := time.Now()
		if err := Judge([]byte(before.String()), []byte(after.String()), ".git"); err == nil {
			t.Errorf("%q: allowed", unit)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%q: took %v", unit, took)
		} else {
			t.Logf("%q: %v", unit, took)
		}
	}
}

func TestLine(t *testing.T) {
	err := Judge(nil, []byte("[user]\n\tname = a \\\n\tb\n\n[alias]\n\tx = !y\n"), ".git")
	if want := "git configuration: line 6: alias.x: may not be set or changed: it names a command, or changes how one is run"; err == nil || err.Error() != want {
		t.Errorf("%v; want %s", err, want)
	}
}

func TestNames(t *testing.T) {
	for text, want := range map[string]Named{
		"[core]\nhooksPath=a\n[CORE]\nHooksPath = b":   {HooksPath: "b"},
		"[core]\nhooksPath=":                           {},
		"[core \"x\"]\nhooksPath=a\n[core]\nbare=true": {},
		"[core]\nhooksPath=a\n[core":                   {},
		"[include]\npath=a b\n[includeIf \"gitdir:~/x\"]\npath = ~/c\n[alias]\ns = status -sb":   {Includes: []string{"a b", "~/c"}, Commands: []string{"status", "-sb"}},
		"[filter \"x\"]\nclean = \"./tools/c.sh %f;y\"\n[core]\nfsmonitor=.git/m\neditor='vi'\n": {Commands: []string{"./tools/c.sh", "%f", "y", ".git/m", "vi"}},
		"[commit]\ntemplate=a\n[user]\nname=b":                                                   {},
	} {
		if diff := cmp.Diff(want, Names([]byte(text))); diff != "" {
			t.Errorf("%q:\n%s", text, diff)
		}
	}
}

func TestMirror(t *testing.T) {
	const new = "[remote \"m\"]\n\turl = https://a.test/x\n\tfetch = +refs/*:refs/*\n\tmirror = true\n"
	if err := Judge(nil, []byte(new), ".git"); err != nil {
		t.Error(err)
	}
	if err := Judge([]byte("[remote \"m\"]\n\turl = https://a.test/x\n\tfetch = +refs/*:refs/*\n"), []byte(new), ".git"); err == nil {
		t.Error("a remote that was there before")
	}
}

// TestFollowAcrossSessions has each session begin with what the one before has left.
func TestFollowAcrossSessions(t *testing.T) {
	const up = "[remote \"up\"]\n\turl = https://a.test/x\n"
	const evil = "[remote \"evil\"]\n\turl = https://b.test/x\n"
	follows := func(name string) string { return "[branch \"m\"]\n\tremote = " + name + "\n\tmerge = refs/heads/m\n" }
	for _, row := range []struct {
		texts []string
		may   bool
	}{
		{[]string{up + follows("up"), up + evil, up + evil + follows("evil")}, false},
		{[]string{up + follows("up"), up, up + evil, up + evil + follows("evil")}, false},
		{[]string{up, up + evil, up + follows("evil")}, false},
		{[]string{up + follows("up"), up + evil + follows("up"), up + follows("up")}, false}, // evil's url stays
		{[]string{up + follows("up"), up, up + follows("up")}, true},
		{[]string{"", up, up + follows("up")}, true},
		{[]string{"", up + evil + follows("evil")}, true},
	} {
		var err error
		for i := 1; i < len(row.texts) && err == nil; i++ {
			err = Judge([]byte(row.texts[i-1]), []byte(row.texts[i]), ".git")
		}
		if (err == nil) != row.may {
			t.Errorf("%q: %v", row.texts, err)
		}
	}
}

func TestWorktreeOfASubmodule(t *testing.T) {
	const core = "[core]\n\tbare = false\n"
	at := func(v string) string { return core + "\tworktree = " + v + "\n" }
	for _, row := range []struct {
		old, new, dir string
		may           bool
	}{
		{"", at("../../../m"), "a/.git/modules/m", true},
		{"", at("../../../elsewhere"), "a/.git/modules/m", true},
		{"", at("/m"), "a/.git/modules/m", false},
		{"", at("../../../../../m"), "a/.git/modules/m", false},
		{at("../../../m"), at("../../../.vscode"), "a/.git/modules/m", false},
		{at("../../../m"), core, "a/.git/modules/m", true}, // deinit
		{core, at("../../../m"), "a/.git/modules/m", true},
		{core, at("../../../.vscode"), "a/.git/modules/m", false},
		{at("../../../moved"), at("../../../m"), "a/.git/modules/m", true},
		{at("../../../moved"), at("../../../moved") + "[user]\n\tname = x\n", "a/.git/modules/m", true},
		{core, at("../../../../a/b"), ".git/modules/a/b", true},
		{core, at("../../../../../a/b"), ".git/modules/a/modules/b", true},
		{core, at("../../../../m"), ".git/worktrees/w/modules/m", false},
	} {
		if err := Judge([]byte(row.old), []byte(row.new), row.dir); (err == nil) != row.may {
			t.Errorf("%s: %q to %q: %v", row.dir, row.old, row.new, err)
		}
	}
}
