//go:build linux

package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/integration/ctrd"
)

// attacks on what runs later, outside: a script, and the file below the workspace that it would leave with "planted" in it. Each is made in a
// repository with a first commit, a hook of its owner's, a nested repository "nested" and a protected folder ".vscode".
var attacks = []struct{ name, script, leaves string }{
	{"a hook", `echo planted >.git/hooks/pre-commit`, ".git/hooks/pre-commit"},
	{"a hook that is there", `echo planted >.git/hooks/post-commit`, ".git/hooks/post-commit"},
	{"a hook by its mode and a rename", `echo planted >x; chmod +x x; mv x .git/hooks/pre-push`, ".git/hooks/pre-push"},
	{"a hook by a hard link", `echo planted >x; ln x .git/hooks/pre-push`, ".git/hooks/pre-push"},
	{"a hook by a symbolic link", `echo planted >x; ln -s ../../x .git/hooks/pre-push`, ".git/hooks/pre-push"},
	{"a hook by a new folder", `mkdir h; echo planted >h/pre-push; mv .git/hooks old; mv h .git/hooks`, ".git/hooks/pre-push"},
	{"a hook by a new .git", `cp -r .git g; echo planted >g/hooks/pre-push; mv .git old; mv g .git`, ".git/hooks/pre-push"},
	{"a hook of a nested repository", `echo planted >nested/.git/hooks/pre-push`, "nested/.git/hooks/pre-push"},
	{"a hook of a repository to come", `mkdir -p n/hooks; echo planted >n/hooks/pre-push; mv n new; mkdir -p new/refs new/objects; echo ref: refs/heads/x >new/HEAD`, "new/HEAD"},
	{"a hook behind a link", `ln -s .git/hooks l; echo planted >l/pre-push`, ".git/hooks/pre-push"},
	{"a hook by a descriptor of the folder", `cd .git/hooks && echo planted >pre-push`, ".git/hooks/pre-push"},
	{"a hook by /proc", `echo planted >/proc/self/cwd/.git/hooks/pre-push`, ".git/hooks/pre-push"},
	{"a hook by the root folder of a process", `echo planted >/proc/self/root/$PWD/.git/hooks/pre-push`, ".git/hooks/pre-push"},
	{"the configuration", `printf '[core]\n\tfsmonitor = planted\n' >>.git/config`, ".git/config"},
	{"the configuration as git does it", `cp .git/config .git/config.lock; printf '[core]\n\tfsmonitor = planted\n' >>.git/config.lock; mv .git/config.lock .git/config`, ".git/config"},
	{"the configuration, written after it was judged", `cp .git/config c; exec 5<>c; mv c .git/config; echo planted >&5; printf '[alias]\n\tx = !planted\n' >&5`, ".git/config"},
	{"the configuration by a hard link", `ln .git/config c && echo planted >>c`, ".git/config"},
	{"the configuration by truncating", `truncate -s 0 .git/config; echo planted >>.git/config`, ".git/config"},
	{
		"the configuration that a folder gets by becoming a repository",
		`mkdir -p n/objects; printf '[core]\n\tfsmonitor = planted\n' >n/config; mkdir n/refs; echo ref: refs/heads/x >n/HEAD; cp n/config n/all; ls -d n/HEAD n/refs && echo planted >got`, "got",
	},
	{"the configuration by a descriptor that stays open", `exec 5>>.git/config; printf '[core]\n\tfsmonitor = planted\n' >&5; touch x; sleep 0.1; printf '[alias]\n\tx = !planted\n' >&5`, ".git/config"},
	{"the configuration by a mapping", `python3 -c 'import mmap, os; f = os.open(".git/config", os.O_RDWR); n = os.fstat(f).st_size; os.ftruncate(f, n+41); m = mmap.mmap(f, n+41); os.close(f); open("x", "w").close(); m[n:] = b"[core]\n\tfsmonitor = planted\n\t# 1234567890"'`, ".git/config"},
	{"a .git file that leads out", `mkdir n; echo "gitdir: /tmp/planted" >n/.git`, "n/.git"},
	{"a .git file that leads through a folder", `mkdir n; echo "gitdir: ../planted/.git" >n/.git`, "n/.git"},
	{"a .git file by a rename", `mkdir n; echo "gitdir: /tmp/planted" >x; mv x n/.git`, "n/.git"},
	{"a .git file with its folder", `mkdir -p a/n; echo "gitdir: ../../../.git/planted" >a/n/.git; mv a/n b || { cp -r a/n b; false; }; grep -q planted b/.git && echo planted >got`, "got"},
	{"a .git file, written after it was judged", `mkdir n; exec 5>n/.git; printf "gitdir: ../.git/x" >&5; touch x; sleep 0.1; printf /../../planted >&5`, "n/.git"},
	{"a .git that is a link", `mkdir g; echo planted >g/config; ln -s g .git2; mkdir n; ln -s ../g n/.git`, "n/.git/config"},
	{"a .git that is a link by a rename", `mkdir g; echo planted >g/config; mkdir n; ln -s ../g n/l; mv n/l n/.git`, "n/.git/config"},
	{"a link in .git", `mkdir g; echo planted >g/config; ln -s ../g .git/modules`, ".git/modules/config"},
	{"a link in .git by a rename", `mkdir g; echo planted >g/config; ln -s ../g l; mv l .git/modules`, ".git/modules/config"},
	{"a link in .git by a hard link", `mkdir g; echo planted >g/config; ln -s ../g l; ln -P l .git/modules`, ".git/modules/config"},
	{"a link in .git with its folder", `mkdir g h; echo planted >g/config; ln -s ../../g h/modules; mv h .git/x`, ".git/x/modules/config"},
	{"a folder that becomes .git with a link in it", `mkdir -p g n/h; echo planted >g/config; ln -s ../../g n/h/modules; mv n/h n/.git`, "n/.git/modules/config"},
	{"commondir", `mkdir -p .git/worktrees/w; echo ../../planted >.git/worktrees/w/commondir`, ".git/worktrees/w/commondir"},
	{"commondir by a rename", `mkdir -p .git/worktrees/w; echo /tmp/planted >x; mv x .git/worktrees/w/commondir`, ".git/worktrees/w/commondir"},
	{"core.hooksPath", `git config core.hooksPath planted`, ".git/config"},
	{"a task file", `echo planted >.vscode/tasks.json`, ".vscode/tasks.json"},
	{"a task file deep down", `mkdir -p a/b; mkdir a/b/.vscode; echo planted >a/b/.vscode/tasks.json`, "a/b/.vscode/tasks.json"},
	{"a task file in other letters", `mkdir .VSCode && echo planted >.VSCode/tasks.json`, ".VSCode/tasks.json"},
	{"a task file by renaming its folder", `mkdir v; echo planted >v/tasks.json; mv .vscode old; mv v .vscode`, ".vscode/tasks.json"},
	{"a task file by exchanging folders", `mkdir v; echo planted >v/tasks.json; mv --exchange v .vscode || python3 -c 'import ctypes; ctypes.CDLL(None).renameat2(-100, b"v", -100, b".vscode", 2)'`, ".vscode/tasks.json"},
	{"an rc file", `echo planted >.envrc`, ".envrc"},
	{"an rc file as a pipe", `mkfifo .envrc && mv .envrc got && echo planted >got2`, "got2"},
	{"a workflow", `mkdir -p .github/workflows; echo planted >.github/workflows/x.yml`, ".github/workflows/x.yml"},
	{"a workflow by renaming what is above it", `mkdir -p g/workflows; echo planted >g/workflows/x.yml; mv g .github`, ".github/workflows/x.yml"},
	{"a workflow by a link with the name of what is above it", `mkdir -p g/workflows; echo planted >g/workflows/x.yml; ln -s g .github`, ".github/workflows/x.yml"},
	{
		"another configuration by commondir",
		`cp -r .git/objects .git/refs .; printf '[remote "o"]\n\turl = planted\n' >config; echo .. >.git/commondir; sleep .2; git config remote.o.url >got`, "got",
	},
	{
		"a repository behind one that is none any more",
		`printf '[remote "o"]\n\turl = planted\n' >config; mkdir refs objects; cp .git/HEAD .; mv .git/HEAD .git/h; git config remote.o.url >got`, "got",
	},
	{"a repository of jj's somewhere else", `mkdir .jj x; echo "planted/../x" >.jj/repo; sleep .1`, ".jj/repo"},
	{
		"a configuration of a worktree before there is one",
		`git worktree add -q wt; d=.git/worktrees/wt; cp $d/commondir c; rm $d/commondir; printf '[core]\n\tfsmonitor = planted\n' >$d/config.worktree; perl -e 'rename "c", $ARGV[0]' $d/commondir; [ ! -e $d/commondir ] || cat $d/config.worktree >got`,
		"got",
	},
	{"the project's policy", `echo planted >.cofferdam.yaml`, ".cofferdam.yaml"},
	{"what the policy has read-only", `echo planted >frozen/x`, "frozen/x"},
	{
		"many at once",
		`for i in 1 2 3 4 5 6 7 8; do (for k in 1 2 3 4 5 6 7 8 9 10; do mkdir -p r$i/hooks; echo planted >r$i/hooks/pre-push; mv .git/hooks h$i$k; mv r$i/hooks .git/hooks; echo planted >.git/hooks/pre-push; done) & done; wait`, ".git/hooks/pre-push",
	},
}

// repository makes a workspace for the attacks.
func repository(t *testing.T, dir string, owner uint32) {
	t.Helper()
	script := `set -e; chown 0:0 .; git init -q .; echo 1 >file; git add file; git -c user.name=o -c user.email=o@test commit -qm one
echo '#!/bin/sh' >.git/hooks/post-commit; chmod +x .git/hooks/post-commit; git init -q nested; mkdir .vscode frozen; echo '{}' >.vscode/settings.json
echo secret >.env; ln .env other; mkdir -p keys; echo secret >keys/k; chown -R ` + fmt.Sprint(owner) + `:` + fmt.Sprint(owner) + ` .`
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir, cmd.Env = dir, []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GIT_CONFIG_NOSYSTEM=1"}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

const workspacePolicy = "version: 1\nworkspace:\n  read_only: [/frozen]\n  hidden: [.env, /keys]\n"

// each of the attacks in one session, which may not end before the last one.
func attackScript(top string) string {
	var b strings.Builder
	for i, a := range attacks {
		fmt.Fprintf(&b, "cd %s/%d && (%s) >/dev/null 2>&1 </dev/null\n", top, i, a.script)
	}
	return b.String() + "true\n"
}

// planted returns the attacks that have left their file, under a folder that has a repository for each.
func planted(top string) (names []string) {
	for i, a := range attacks {
		if b, err := os.ReadFile(filepath.Join(top, fmt.Sprint(i), a.leaves)); err == nil && (strings.Contains(string(b), "planted") || strings.HasPrefix(string(b), "ref:")) {
			names = append(names, a.name)
		}
	}
	return names
}

// arena makes a repository for each attack.
func arena(t *testing.T, top string, owner uint32) {
	t.Helper()
	first := filepath.Join(top, "0")
	if err := os.Mkdir(first, 0o755); err != nil {
		t.Fatal(err)
	}
	repository(t, first, owner)
	for i := 1; i < len(attacks); i++ {
		if out, err := exec.Command("cp", "-a", first, filepath.Join(top, fmt.Sprint(i))).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
}

// TestAWorkspaceCannotStrikeBack makes each attack as root, as an ordinary user and in a container. The control is the same script without a
// sandbox, in which each of them leaves what it is after.
func TestAWorkspaceCannotStrikeBack(t *testing.T) {
	Require(t, needShim, needImage)
	// The policy's patterns are about a repository's top, which here lies one folder deeper.
	pol := strings.NewReplacer("/frozen", "frozen", "/keys", "keys").Replace(workspacePolicy)
	t.Run("control", func(t *testing.T) {
		top := t.TempDir()
		arena(t, top, 0)
		if out, err := exec.Command("sh", "-c", attackScript(top)).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if got := planted(top); len(got) != len(attacks) {
			t.Errorf("only %d of %d attacks work where nothing is protected: %q", len(got), len(attacks), got)
		}
	})
	eachPerson(t, func(t *testing.T, p person) {
		arena(t, p.workspace(), p.id)
		p.write(t, ownPolicy, pol)
		got := p.run(t, "--report", "--", "sh", "-c", attackScript(p.workspace())+"echo fine >fine; cat fine")
		if got.Code != 0 || got.Stdout != "fine\n" {
			t.Errorf("the session: %s", got)
		}
		if names := planted(p.workspace()); len(names) > 0 {
			t.Errorf("planted: %q", names)
		}
		contains(t, "the report", got.Stderr, "protected", "/.git/hooks/pre-commit: ")
	})
	t.Run("container", func(t *testing.T) {
		eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
			top := Workspace(t)
			arena(t, top, 0)
			got := d.Run(t, ctrd.Container{
				Image: agentImage, Runtime: ctrd.Cofferdam, Policy: Policy(named{t, t.Name()}, pol), Workspace: top,
				Args: []string{"sh", "-c", attackScript("/workspace") + "echo fine >/workspace/fine"},
			})
			if b, err := os.ReadFile(filepath.Join(top, "fine")); got.Code != 0 || string(b) != "fine\n" {
				t.Errorf("the session: %s, %v", got, err)
			}
			if names := planted(top); len(names) > 0 {
				t.Errorf("planted: %q", names)
			}
		})
	})
}

// What a policy hides is empty by every name.
func TestHiddenFilesAreEmpty(t *testing.T) {
	eachPerson(t, func(t *testing.T, p person) {
		repository(t, p.workspace(), p.id)
		look := `cat .env other keys/k /proc/self/root/$PWD/.env; ls keys; ln .env l; mv keys k2; cat l k2/k; echo x >.env; echo x >keys/x; git show HEAD:file`
		if got := p.run(t, "sh", "-c", look); strings.Count(got.Stdout, "secret") < 4 {
			t.Errorf("control: %s", got)
		}
		for _, undo := range [][2]string{{"k2", "keys"}, {"l", "l2"}} {
			_ = os.Rename(filepath.Join(p.workspace(), undo[0]), filepath.Join(p.workspace(), undo[1]))
		}
		_ = os.WriteFile(filepath.Join(p.workspace(), ".env"), []byte("secret\n"), 0o644)
		p.write(t, ownPolicy, workspacePolicy)
		if got := p.run(t, "sh", "-c", look); strings.Contains(got.Stdout, "secret") || !strings.Contains(got.Stdout, "1\n") {
			t.Errorf("%s", got)
		}
		if b, err := os.ReadFile(filepath.Join(p.workspace(), ".env")); err != nil || string(b) != "secret\n" {
			t.Errorf("the hidden file has %q, %v", b, err)
		}
	})
}

// git's everyday work, as it is outside, and what an ordinary program does with files.
const everyday = `set -e
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@test GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@test
echo 2 >file; git commit -qam two; git checkout -qb side; echo 3 >file; git commit -qam three; git checkout -q -; git merge -q side; git stash list
git worktree add -q wt; (cd wt; echo 4 >g; git add g; git commit -qm four); git worktree remove --force wt
git clone -q . origin; git -c protocol.file.allow=always submodule --quiet add ./origin sub; git commit -qam sub; git submodule --quiet update --init
git remote add other https://other.test/x; git remote remove other; git remote add other https://other.test/y; git config user.name me; git branch -q -D side
git init -q r; cd r; git commit -q --allow-empty -m r; git worktree add -q wt; (cd wt; git commit -q --allow-empty -m wt); cd ..; rm -rf r/wt; cp -a r r2; tar cf r.tar r; rm -rf r; tar xf r.tar
chmod 600 r2/.git/config; printf '[user]\n\tname = x\n' >>r2/.git/config; touch -d @1000000 r2/.git/config; cat r2/.git/config; for x in r r2; do git -C $x log --format=%s; git -C $x fsck; cat $x/.git/worktrees/*/commondir; done; stat -c %a:%Y r2/.git/config; rm -rf r r2 r.tar
git gc -q; git fsck; rm -rf origin; git init -q --bare bare; (cd bare; git symbolic-ref HEAD refs/heads/z); rm -rf bare
mkdir -p a/b/c; cp -a file a/b; mv a/b/file a/f2; ln a/f2 a/f3; ln -s f2 a/l; echo more >>a/l; sed -i s/more/less/ a/f2; touch -d @1000000 a/f3; chmod 700 a/f2
tar cf t.tar a; rm -r a; tar xf t.tar; rm t.tar; mktemp -p . >/dev/null; rm tmp.*; (echo out >/dev/stdout) >o; cat o; rm o; (echo err >/dev/stderr) 2>e; cat e; rm e; mkfifo p; rm p
: >u; flock u true; truncate -s 5 u; test -w u; install -m 755 file i; rm u i; cd a; echo rel >../rel; cd ..; git status --short; stat -c '%n %a %h' a/* rel; git log --format=%s
`

func TestEverydayWorkInAWorkspace(t *testing.T) {
	eachPerson(t, func(t *testing.T, p person) {
		outside := filepath.Join(p.home, "outside")
		if err := os.Mkdir(outside, 0o755); err != nil {
			t.Fatal(err)
		}
		repository(t, p.workspace(), p.id)
		repository(t, outside, p.id)
		control := p.command(t)
		control.Path, control.Args, control.Dir = "/bin/sh", []string{"sh", "-c", everyday}, outside
		want := finish(t, control)
		got := p.run(t, "sh", "-c", everyday)
		if want.Code != 0 || got.Code != 0 || got.Stdout != want.Stdout {
			t.Errorf("inside: %s\noutside: %s", got, want)
		}
	})
}

// A broker that is gone leaves the workspace read-only, and the agent alive. The names that it held are free for the broker of another sandbox.
func TestAWorkspaceWithoutItsBroker(t *testing.T) {
	eachPerson(t, func(t *testing.T, p person) {
		cmd := p.command(t, "run", "--name", "without-broker", "sh", "-c", "echo a >a; echo ready; read x; echo b >b; echo c >/tmp/c; cat a")
		in, out := talk(t, cmd)
		b := make([]byte, 64)
		if _, err := out.Read(b); err != nil {
			t.Fatal(err)
		}
		found, err := exec.Command("pgrep", "-f", "^cofferdam-broker run:without-broker").Output()
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(found)))
		if err != nil {
			t.Fatal(err)
		}
		holdNames(t, pid)
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if got := p.run(t, "timeout", "-s", "KILL", "10", "sh", "-c", "echo d >d"); got.Code != 0 {
			t.Errorf("another sandbox: %s", got)
		}
		fmt.Fprintln(in, "go")
		n, _ := out.Read(b)
		if err := cmd.Wait(); err != nil || string(b[:n]) != "a\n" {
			t.Errorf("the agent: %v, %q", err, b[:n])
		}
		if _, err := os.Stat(filepath.Join(p.workspace(), "b")); err == nil {
			t.Error("it was written without a broker")
		}
	})
}

// The folders above a workspace are the agent's own, in a home of its own. Moved, they give what lies in the workspace no other name.
func TestTheFoldersAboveAWorkspaceAreMoved(t *testing.T) {
	const policy = "version: 1\nworkspace:\n  read_only: [/ws/x]\n"
	for _, script := range []string{
		"mv src t; mkdir -p src/ws/k; mv t src/ws/k; cd src/ws/k/t/ws", // all lies deeper
		"mv ws/ws t; mv ws w; mv t ws; cd ws/ws",                       // and what lies in a folder of the workspace's name, higher
	} {
		eachPerson(t, func(t *testing.T, p person) {
			dir := filepath.Join(p.home, "src/ws")
			if strings.HasPrefix(script, "mv ws") {
				dir = filepath.Join(p.home, "ws/ws/ws")
			}
			for _, name := range []string{"ws", "free"} {
				if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for name, text := range map[string]string{"ws/x": "owner\n", ".cofferdam.yaml": policy} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			out, err := exec.Command("chown", "-R", fmt.Sprintf("%d:%d", p.id, p.id), filepath.Join(p.home, strings.Split(strings.TrimPrefix(dir, p.home+"/"), "/")[0])).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			cmd := p.command(t, "run", "sh", "-c", "echo before >free/before; cd; set -e; "+script+"; cat ws/x; for f in ws/x free/x; do (echo planted >$f) || true; done")
			cmd.Dir = dir
			if got := finish(t, cmd); got.Code != 0 || got.Stdout != "owner\n" {
				t.Errorf("%s", got)
			}
			for name, want := range map[string]string{"ws/x": "owner\n", "free/before": "before\n"} {
				if b, err := os.ReadFile(filepath.Join(dir, name)); string(b) != want {
					t.Errorf("%s: %q, %v", name, b, err)
				}
			}
		})
	}
}

// holdNames locks what the brokers of a workspace lock, as a broker would.
func holdNames(t *testing.T, broker int) {
	t.Helper()
	process, err := unix.PidfdOpen(broker, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(process)
	const shared = 7 // after the one workspace
	fd, err := unix.PidfdGetfd(process, shared, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Len: 1}); err != nil {
		t.Fatal(err)
	}
}
