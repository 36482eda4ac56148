package broker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/shim/workspace"
)

// desk is a broker without a listener: a test makes the requests, and so their order.
func desk(t *testing.T) (*broker, string) {
	t.Helper()
	dir := t.TempDir()
	proc, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	top, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(proc); unix.Close(top) })
	judge, err := workspace.NewJudge(workspace.Rules{})
	if err != nil {
		t.Fatal(err)
	}
	b := &broker{proc: proc, oneID: true, report: newRecorder(), trees: []*tree{{at: dir, fd: top, judge: judge}}}
	b.aliases.trees = b.trees
	return b, dir
}

// request is one of this process's own.
func (b *broker) request(t *testing.T) *request {
	t.Helper()
	dir, err := unix.Open("/proc/self", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	status, err := unix.Open("/proc/self/status", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorker(b, -1)
	c := caller{uint32(os.Getpid()), dir, status}
	t.Cleanup(func() { c.forget(); w.closeOpened() })
	return &request{worker: w, caller: c, began: b.names.moves()}
}

// must is for a step that is allowed.
func must(t *testing.T, what string, out outcome) {
	t.Helper()
	if out.errno != 0 || out.resume || out.again {
		t.Fatalf("%s: %+v", what, out)
	}
	out.close()
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// TestANameIsJudgedWhereItLeads has a folder get a name that protects what lies in it, between the moment in which a call that makes
// something there was looked up, and its turn.
func TestANameIsJudgedWhereItLeads(t *testing.T) {
	for _, row := range []struct {
		becomes, made string
		call          func(r *request, e entry) outcome
	}{
		{".git", "config", func(r *request, e entry) outcome { return r.create(e, unix.O_WRONLY|unix.O_CREAT, 0o644) }},
		{".cargo", "config.toml", func(r *request, e entry) outcome { return r.create(e, unix.O_WRONLY|unix.O_CREAT, 0o644) }},
		{".github", "workflows", func(r *request, e entry) outcome {
			return r.make(e, making{folder: true}, func(workspace.Verdict, credentials) outcome { return done(unix.Mkdirat(e.parent, e.base, 0o755)) })
		}},
	} {
		for _, moved := range []bool{false, true} {
			t.Run(fmt.Sprint(row.becomes, "/", row.made, " moved ", moved), func(t *testing.T) {
				b, dir := desk(t)
				if err := os.Mkdir(filepath.Join(dir, "d"), 0o755); err != nil {
					t.Fatal(err)
				}
				waiting, now := b.request(t), "d"
				e, ok := waiting.target(unix.AT_FDCWD, filepath.Join(dir, "d", row.made))
				if !ok {
					t.Fatal("it is not found")
				}
				if moved {
					now = row.becomes
					must(t, "rename", b.request(t).rename(unix.AT_FDCWD, filepath.Join(dir, "d"), unix.AT_FDCWD, filepath.Join(dir, now), 0))
				}
				out := row.call(waiting, e)
				if out.again != moved {
					t.Errorf("got %+v", out)
				}
				out.close()
				if _, err := os.Lstat(filepath.Join(dir, now, row.made)); (err == nil) == moved {
					t.Errorf("it is there, or not: %v", err)
				}
			})
		}
	}
}

// TestAFileHasNoOtherNameMeanwhile takes the other name of a protected file away while a call is under way that opens it by that name.
func TestAFileHasNoOtherNameMeanwhile(t *testing.T) {
	for _, protected := range []bool{false, true} {
		for _, known := range []bool{false, true} { // before its names are counted, or after
			b, dir := desk(t)
			name, other := "plain", filepath.Join(dir, "other")
			if protected {
				name = ".bashrc"
			}
			write(t, filepath.Join(dir, name), "text")
			if err := os.Link(filepath.Join(dir, name), other); err != nil {
				t.Fatal(err)
			}
			waiting := b.request(t)
			fd, err := unix.Open(other, unix.O_PATH|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			waiting.close(fd)
			before, err := b.identify(fd)
			if err != nil {
				t.Fatal(err)
			}
			must(t, "unlink", b.request(t).unlink(unix.AT_FDCWD, other, 0))
			o, err := b.identify(fd)
			if err != nil || o.Nlink != 1 {
				t.Fatalf("%+v %v", o, err)
			}
			if known {
				o = before
			}
			out := waiting.openObject(o, unix.O_WRONLY, false)
			if (out.errno == unix.EROFS) != protected || (out.file != 0) == protected {
				t.Errorf("%s, known %v: got %+v", name, known, out)
			}
			out.close()
		}
	}
}

// bare makes a repository of the owner's, with the entries that one needs.
func bare(t *testing.T, dir, config string) {
	t.Helper()
	write(t, filepath.Join(dir, "HEAD"), "ref: refs/heads/main\n")
	write(t, filepath.Join(dir, "config"), config)
	for _, name := range []string{"refs", "objects", "hooks"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAGitDirectoryStaysOne takes one apart, so that what was protected in it would be free. It may be, if all of that might go.
func TestAGitDirectoryStaysOne(t *testing.T) {
	const core = "[core]\n\tbare = true\n"
	for _, row := range []struct {
		name, config, hook string
		may                bool
	}{
		{"of nothing", core, "pre-push.sample", true},
		{"with a remote", core + "[remote \"origin\"]\n\turl = https://good.test/x\n", "pre-push.sample", false},
		{"with a hook", core, "pre-push", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			b, dir := desk(t)
			repo := filepath.Join(dir, "bare")
			bare(t, repo, row.config)
			write(t, filepath.Join(repo, "hooks", row.hook), "#!/bin/sh\n")
			must(t, "remove HEAD", b.request(t).unlink(unix.AT_FDCWD, repo+"/HEAD", 0)) // it still is one
			for what, call := range map[string]func() outcome{
				"rmdir":  func() outcome { return b.request(t).unlink(unix.AT_FDCWD, repo+"/refs", unix.AT_REMOVEDIR) },
				"rename": func() outcome { return b.request(t).rename(unix.AT_FDCWD, repo+"/objects", unix.AT_FDCWD, dir+"/o", 0) },
			} {
				if out := call(); (out.errno == 0) != row.may {
					t.Errorf("%s: %+v", what, out)
				}
			}
		})
	}
}

// TestAConfigurationIsNotSetAside has git find another one than that which lies there, by what says where a worktree's is.
func TestAConfigurationIsNotSetAside(t *testing.T) {
	b, dir := desk(t)
	write(t, filepath.Join(dir, ".git/HEAD"), "ref: refs/heads/main\n")
	write(t, filepath.Join(dir, ".git/modules/worktrees/m/config"), "[core]\n")
	write(t, filepath.Join(dir, ".git/worktrees/w/HEAD"), "ref: refs/heads/main\n")
	write(t, filepath.Join(dir, "new"), "../..\n")
	move := func(to string) outcome {
		return b.request(t).rename(unix.AT_FDCWD, filepath.Join(dir, "new"), unix.AT_FDCWD, filepath.Join(dir, to), 0)
	}
	for _, to := range []string{".git/commondir", ".git/modules/worktrees/m/commondir"} {
		if out := move(to); out.errno != unix.EROFS {
			t.Errorf("%s: %+v", to, out)
		}
	}
	mkdir := func(name string) outcome { return b.request(t).mkdir(unix.AT_FDCWD, filepath.Join(dir, name), 0o755) }
	if out := mkdir(".git/worktrees/w/objects"); out.errno != unix.EROFS {
		t.Errorf("objects of a worktree: %+v", out)
	}
	must(t, "a worktree's refs", mkdir(".git/worktrees/w/refs"))
	must(t, "a worktree's commondir", move(".git/worktrees/w/commondir"))
}

// TestATextMakesAGitDirectory puts the text in its place that is the last of what a worktree's folder needs, beside what was written there while it was
// none; and takes one away to be a text somewhere else.
func TestATextMakesAGitDirectory(t *testing.T) {
	for _, row := range []struct {
		config string
		may    bool
	}{{"[transfer]\n\tfsckObjects = true\n", false}, {"[user]\n\tname = x\n", true}} {
		b, dir := desk(t)
		write(t, filepath.Join(dir, ".git/worktrees/w/HEAD"), "ref: refs/heads/x\n")
		write(t, filepath.Join(dir, ".git/worktrees/w/config.worktree"), row.config)
		write(t, filepath.Join(dir, "new"), "../..\n")
		move := func(from, to string) outcome {
			return b.request(t).rename(unix.AT_FDCWD, filepath.Join(dir, from), unix.AT_FDCWD, filepath.Join(dir, to), 0)
		}
		if out := move("new", ".git/worktrees/w/commondir"); (out.errno == 0) != row.may {
			t.Errorf("with %q: %+v", row.config, out)
		}
		write(t, filepath.Join(dir, ".git/worktrees/v/HEAD"), "")
		write(t, filepath.Join(dir, ".git/worktrees/v/commondir"), "../..\n")
		write(t, filepath.Join(dir, ".git/worktrees/v/config.worktree"), row.config)
		if out := move(".git/worktrees/v/HEAD", ".git/config"); (out.errno == 0) != row.may {
			t.Errorf("out of one with %q: %+v", row.config, out)
		}
	}
}

// TestNoGitDirectoryLiesBehindAnotherOne makes the folder of a working tree one that git takes for a repository once .git is none.
func TestNoGitDirectoryLiesBehindAnotherOne(t *testing.T) {
	for _, last := range []string{"HEAD", "refs", "objects"} {
		for _, other := range []string{".git", "git"} {
			b, dir := desk(t)
			write(t, filepath.Join(dir, other, "HEAD"), "ref: refs/heads/main\n")
			var out outcome
			for _, name := range append(slices.DeleteFunc([]string{"HEAD", "refs", "objects"}, func(s string) bool { return s == last }), last) {
				if out = b.request(t).mkdir(unix.AT_FDCWD, filepath.Join(dir, name), 0o755); out.errno != 0 {
					break
				}
			}
			if (out.errno == unix.EROFS) != (other == ".git") {
				t.Errorf("%s last, beside %s: %+v", last, other, out)
			}
		}
	}
}

// TestAGitDirectoryMoves moves one that is known by what it holds, and folders with some in them.
func TestAGitDirectoryMoves(t *testing.T) {
	b, dir := desk(t)
	bare(t, filepath.Join(dir, "a/.git/modules/m"), "[core]\n\tbare = true\n")
	bare(t, filepath.Join(dir, "a/b.git"), "[core]\n\tbare = true\n")
	move := func(from, to string) outcome {
		return b.request(t).rename(unix.AT_FDCWD, filepath.Join(dir, from), unix.AT_FDCWD, filepath.Join(dir, to), 0)
	}
	must(t, "a folder", move("a", "c"))
	must(t, "the directory", move("c/b.git", "c/d"))
	write(t, filepath.Join(dir, "plain/config"), "[core]\n\tfsmonitor = x\n")
	if out := move("plain", "c/.git"); out.errno == 0 {
		t.Errorf("over one: %+v", out)
	}
	write(t, filepath.Join(dir, "c/d/hooks/pre-push"), "#!/bin/sh\n")
	if out := move("c", "e"); out.errno != unix.EROFS {
		t.Errorf("with a hook: %+v", out)
	}
}

// TestConfigurationsAreRememberedOrStay fills what the broker remembers: beyond that a change would be judged against what the agent has made.
func TestConfigurationsAreRememberedOrStay(t *testing.T) {
	b, dir := desk(t)
	const core = "[core]\n\tbare = false\n"
	write(t, filepath.Join(dir, ".git/config"), core)
	replace := func(text string) outcome {
		write(t, filepath.Join(dir, "new"), text)
		return b.request(t).rename(unix.AT_FDCWD, filepath.Join(dir, "new"), unix.AT_FDCWD, filepath.Join(dir, ".git/config"), 0)
	}
	for i := range maxChanges {
		happened, err := b.texts.remember(place{b.trees[0], fmt.Sprint(i)}, nil, []byte("x"))
		if err != nil {
			t.Fatal(i, err)
		}
		happened()
	}
	if out := replace(core + "[user]\n\tname = x\n"); out.errno != unix.EROFS {
		t.Errorf("one more: %+v", out)
	}
	happened, err := b.texts.remember(place{b.trees[0], "0"}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	happened() // gone again: it takes no room
	must(t, "the room of one that went", replace(core+"[user]\n\tname = x\n"))
}

// TestAWalkEndsWherePathsDo bounds what one folder in another costs.
func TestAWalkEndsWherePathsDo(t *testing.T) {
	b, dir := desk(t)
	name := strings.Repeat("d", 255)
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	for i := 0; err == nil && i <= maxPath/len(name)+1; i++ {
		if err = unix.Mkdirat(fd, name, 0o755); err == nil {
			next, oerr := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			unix.Close(fd)
			fd, err = next, oerr
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	if out := b.request(t).rename(unix.AT_FDCWD, filepath.Join(dir, name), unix.AT_FDCWD, filepath.Join(dir, "e"), 0); out.errno != unix.ENAMETOOLONG {
		t.Errorf("got %+v", out)
	}
}

// TestWhatWasJudgedIsMoved has one thread move a file into a place where no link may be, while another one puts links in the file's place.
func TestWhatWasJudgedIsMoved(t *testing.T) {
	b, dir := desk(t)
	write(t, filepath.Join(dir, ".git/HEAD"), "ref: refs/heads/main\n")
	from, to, link := filepath.Join(dir, "s"), filepath.Join(dir, ".git/x"), filepath.Join(dir, "l")
	move := func(from, to string) outcome {
		r := &request{worker: newWorker(b, -1), began: b.names.moves()}
		defer r.closeOpened()
		return r.rename(unix.AT_FDCWD, from, unix.AT_FDCWD, to, 0)
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-end:
				return
			default:
				_ = os.Symlink("/tmp", link)
				move(link, from)
			}
		}
	}()
	moved := 0
	for until := time.Now().Add(2 * time.Second); time.Now().Before(until); {
		_ = os.Remove(from)
		_ = os.WriteFile(from, nil, 0o644)
		if move(from, to).errno == 0 {
			moved++
		}
		if st, err := os.Lstat(to); err == nil && !st.Mode().IsRegular() {
			t.Errorf("a link is there after %d moves", moved)
			break
		}
		_ = os.Remove(to)
	}
	close(end)
	<-ended
	if moved == 0 {
		t.Error("nothing was moved")
	}
}

// TestNoLinkComesMeanwhile makes things while another call is between its look at a name and what it does to what has it.
func TestNoLinkComesMeanwhile(t *testing.T) {
	b, dir := desk(t)
	for what, row := range map[string]struct {
		waits bool
		call  func(r *request, name string) outcome
	}{
		"folder": {false, func(r *request, name string) outcome { return r.mkdir(unix.AT_FDCWD, name, 0o755) }},
		"link":   {true, func(r *request, name string) outcome { return r.symlink("x", unix.AT_FDCWD, name) }},
	} {
		r, made := b.request(t), make(chan outcome, 1)
		release, err := b.names.hold(false)
		if err != nil {
			t.Fatal(err)
		}
		go func() { made <- row.call(r, filepath.Join(dir, what)) }()
		waited, patience := false, 10*time.Second
		if row.waits {
			patience = 200 * time.Millisecond
		}
		select {
		case out := <-made:
			made <- out
		case <-time.After(patience):
			waited = true
		}
		release()
		must(t, what, <-made)
		if waited != row.waits {
			t.Errorf("%s: waited %v", what, waited)
		}
	}
}

// TestALeaseMakesNobodyWait has an agent take a lease (fcntl(2)) on what a call is to open: until it is given back all calls would wait that want to
// have the names for themselves.
func TestALeaseMakesNobodyWait(t *testing.T) {
	b, dir := desk(t)
	name := filepath.Join(dir, "file")
	write(t, name, "text")
	open := func(flags int) outcome {
		r := b.request(t)
		defer r.closeOpened()
		return r.open(unix.AT_FDCWD, name, flags, 0)
	}
	held, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(held), unix.F_SETLEASE, unix.F_RDLCK); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if out := open(unix.O_WRONLY); !out.again || time.Since(began) > 5*time.Second {
		t.Errorf("with a lease: %+v after %s", out, time.Since(began))
	}
	unix.Close(held)
	out := open(unix.O_WRONLY | unix.O_APPEND)
	if out.errno != 0 || out.file == 0 {
		t.Fatalf("without: %+v", out)
	}
	if flags, err := unix.FcntlInt(uintptr(out.file), unix.F_GETFL, 0); err != nil || flags&(unix.O_NONBLOCK|unix.O_APPEND|unix.O_ACCMODE) != unix.O_APPEND|unix.O_WRONLY {
		t.Errorf("its flags are %#x (%v)", flags, err)
	}
	out.close()
}

// TestWhatCannotBeLookedAtMayBeThere asks for entries of a folder whose path is as long as one can be.
func TestWhatCannotBeLookedAtMayBeThere(t *testing.T) {
	b, dir := desk(t)
	write(t, filepath.Join(dir, "d/HEAD"), "")
	for long, want := range map[string]bool{"d": false, strings.Repeat("d/", maxPath/2-2) + "d": true} {
		if got := b.trees[0].isGit(long); got != want {
			t.Errorf("a folder with a path of %d bytes is a git directory: %v", len(long), got)
		}
	}
}

// TestWhatLiesAboveIsMoved moves the workspace below the place where it was, as an agent can do whose home holds it. By its new paths
// nothing is to be judged by other names than its own.
func TestWhatLiesAboveIsMoved(t *testing.T) {
	for _, moved := range []bool{false, true} {
		b, dir := desk(t)
		bare(t, filepath.Join(dir, "repository"), "[core]\n\tbare = true\n")
		write(t, filepath.Join(dir, "repository/hooks/pre-push"), "owner's")
		write(t, filepath.Join(dir, "plain"), "text")
		now := dir
		if moved {
			now = filepath.Join(dir, "below/workspace")
			err := errors.Join(os.Rename(dir, dir+"-away"), os.MkdirAll(filepath.Dir(now), 0o755), os.Rename(dir+"-away", now))
			if err != nil {
				t.Fatal(err)
			}
		}
		for _, row := range []struct {
			name  string
			flags int
			want  outcome
		}{
			{"repository/hooks/pre-push", unix.O_WRONLY, outcome{errno: unix.EROFS}},
			{"repository/hooks/post-update", unix.O_WRONLY | unix.O_CREAT, outcome{errno: unix.EROFS}},
			{"repository/hooks/../hooks/post-update", unix.O_WRONLY | unix.O_CREAT, outcome{errno: unix.EROFS}},
			{"plain", unix.O_WRONLY, outcome{}},
			{"new", unix.O_WRONLY | unix.O_CREAT, outcome{}},
		} {
			out := b.request(t).open(unix.AT_FDCWD, now+"/"+row.name, row.flags, 0o755)
			want := row.want
			if moved {
				want = resumed
			}
			if out.errno != want.errno || out.resume != want.resume || (out.file != 0) != (want == outcome{}) {
				t.Errorf("moved %v, %s: got %+v", moved, row.name, out)
			}
			out.close()
		}
	}
}
