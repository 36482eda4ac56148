//go:build linux

package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/integration/attack"
	"cofferdam.dev/cofferdam/integration/ctrd"
)

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

// attacks on the workspace, from the table.
var attacks = slices.DeleteFunc(attack.All(), func(a attack.Attack) bool { return a.Wall != attack.Workspace })

// each of the attacks in one session, which may not end before the last one.
func attackScript(top string) string {
	var b strings.Builder
	for i, a := range attacks {
		fmt.Fprintf(&b, "cd %s/%d && (%s) >/dev/null 2>&1 </dev/null\n", top, i, a.Script)
	}
	return b.String() + "true\n"
}

// planted returns the attacks that have left their file, under a folder that has a repository for each.
func planted(top string) map[string]bool {
	ids := map[string]bool{}
	for i, a := range attacks {
		if b, err := os.ReadFile(filepath.Join(top, fmt.Sprint(i), a.Leaves)); err == nil && (strings.Contains(string(b), "planted") || strings.HasPrefix(string(b), "ref:")) {
			ids[a.ID] = true
		}
	}
	return ids
}

// judge has each attack be one that works where nothing is protected, and none that has left its file.
func judge(t *testing.T, front string, control, left map[string]bool) {
	t.Helper()
	for _, a := range attacks {
		r := attack.Result{ID: a.ID, Front: front, Outcome: "nothing was planted", Control: "it was planted"}
		if left[a.ID] {
			r.Outcome, r.Failed = "ESCAPED", true
			t.Errorf("%s: %s is planted", a.ID, a.Leaves)
		}
		if !control[a.ID] {
			r.Control, r.Failed = failed, true
			t.Errorf("%s: the control leaves nothing", a.ID)
		}
		keep(r)
	}
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

// TestAWorkspaceCannotStrikeBack makes each attack on a workspace on every front. The control is the same script without a sandbox, in which
// each of them leaves what it is after.
func TestAWorkspaceCannotStrikeBack(t *testing.T) {
	Require(t, needShim, needImage)
	// The policy's patterns are about a repository's top, which here lies one folder deeper.
	pol := strings.NewReplacer("/frozen", "frozen", "/keys", "keys").Replace(workspacePolicy)
	top := t.TempDir()
	arena(t, top, 0)
	if out, err := exec.Command("sh", "-c", attackScript(top)).CombinedOutput(); err != nil {
		t.Fatalf("the control: %v: %s", err, out)
	}
	control := planted(top)
	eachPersonAndRanged(t, func(t *testing.T, p person) {
		arena(t, p.workspace(), p.id)
		p.write(t, ownPolicy, pol)
		got := p.run(t, "--report", "--", "sh", "-c", attackScript(p.workspace())+"echo fine >fine; cat fine")
		if got.Code != 0 || got.Stdout != "fine\n" {
			t.Errorf("the session: %s", got)
		}
		judge(t, "run-"+p.name, control, planted(p.workspace()))
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
			judge(t, "shim-"+d.Engine.Name, control, planted(top))
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
