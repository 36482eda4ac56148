package broker

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// deskAt is a desk whose workspace is a folder that the test has made.
func deskAt(t *testing.T, dir string) *broker {
	t.Helper()
	b, _ := desk(t)
	top, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(top) })
	b.trees[0].at, b.trees[0].fd = dir, top
	return b
}

// edit writes a text in place, as who opens it with these flags, does something with the descriptor, and closes it.
func (b *broker) edit(t *testing.T, who credentials, path, text string, also func(fd int)) {
	t.Helper()
	r := b.request(t)
	r.who = who
	out := r.open(unix.AT_FDCWD, path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC, 0o644)
	if out.errno != 0 || out.file == 0 {
		t.Fatalf("open %s: %+v", path, out)
	}
	if _, err := unix.Write(out.file, []byte(text)); err != nil {
		t.Fatal(err)
	}
	also(out.file)
	out.close()
	r.closeOpened()
	b.settleAll(false)
}

func holds(t *testing.T, path, want string) {
	t.Helper()
	if b, err := os.ReadFile(path); err != nil || string(b) != want {
		t.Errorf("%s has %q (%v), want %q", path, b, err, want)
	}
}

func nothing(int) {}

// TestATextThatTookItsPlaceIsRemembered changes the owner of a text to one that its writer may not give it: what it says is there all the same, and
// the next one is judged against what there was before both.
func TestATextThatTookItsPlaceIsRemembered(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it changes owners")
	}
	const (
		core   = "[core]\n\tbare = false\n[remote \"up\"]\n\turl = https://good.test/x\n"
		first  = core + "[remote \"evil\"]\n\turl = https://evil.test/x\n"
		second = first + "[branch \"main\"]\n\tremote = evil\n"
	)
	for _, denied := range []bool{false, true} {
		b, dir := desk(t)
		b.oneID, b.own = false, credentials{rights: fileRights}
		who := credentials{rights: fileRights}
		if denied {
			who.rights = 0
		}
		name := filepath.Join(dir, ".git/config")
		write(t, name, core+"[branch \"main\"]\n\tremote = up\n")
		b.edit(t, who, name, first, func(fd int) {
			if err := unix.Fchown(fd, 1234, -1); err != nil {
				t.Fatal(err)
			}
		})
		var st unix.Stat_t
		if err := unix.Stat(name, &st); err != nil || (st.Uid == 1234) == denied {
			t.Errorf("denied %v: its owner is %d (%v)", denied, st.Uid, err)
		}
		holds(t, name, first)
		b.edit(t, who, name, second, nothing)
		holds(t, name, first)
	}
}

// TestATextThatHasNoRoomChangesNothing lets a file system be full in the middle of a text.
func TestATextThatHasNoRoomChangesNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it mounts a file system")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=32k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	const core, kept = "[core]\n\tbare = false\n", "[transfer]\n\tfsckObjects = true\n"
	b := deskAt(t, dir)
	name := filepath.Join(dir, ".git/config")
	write(t, name, core+kept)
	long := core + "[user]\n\tname = " + strings.Repeat("x", 4000) + "\n\temail = " + strings.Repeat("y", 4000) + "\n" + kept
	b.edit(t, credentials{}, name, long, nothing)
	holds(t, name, long) // the control
	b.edit(t, credentials{}, name, core+kept, nothing)
	write(t, filepath.Join(dir, "filler"), strings.Repeat("f", 24<<10)) // of eight pages the texts have one
	f, err := os.OpenFile(filepath.Join(dir, "filler"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.WriteString("f")
	}
	f.Close()
	b.edit(t, credentials{}, name, long, nothing)
	holds(t, name, core+kept)
}

const saves = 200

// saveText saves a text in place as an editor does, and looks each time what it then says.
func saveText(dir string) error {
	name, old := filepath.Join(dir, ".git/config"), 0
	for i := range saves {
		text := fmt.Sprintf("[core]\n\tbare = false\n[user]\n\tname = %d\n", i)
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			return err
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if string(b) != text {
			old++
		}
	}
	if old > 0 {
		return fmt.Errorf("%d of %d times it was another text", old, saves)
	}
	return nil
}

func writeForEver(dir string) error {
	for {
		if err := writeMany(dir); err != nil {
			return err
		}
	}
}

// TestWhoSavesATextSeesItAtOnce has an agent read what it has just saved, while other ones write files, and hold a draft of another text open.
func TestWhoSavesATextSeesItAtOnce(t *testing.T) {
	b, dir := desk(t)
	write(t, filepath.Join(dir, ".git/config"), "[core]\n\tbare = false\n")
	write(t, filepath.Join(dir, "other/.git/config"), "[core]\n\tbare = false\n")
	opened := make(chan os.Signal, 1)
	signal.Notify(opened, unix.SIGIO)
	t.Cleanup(func() { signal.Stop(opened); close(opened) })
	go b.yield(opened)
	r := b.request(t)
	draft := r.open(unix.AT_FDCWD, filepath.Join(dir, "other/.git/config"), unix.O_WRONLY, 0)
	if draft.errno != 0 || draft.file == 0 {
		t.Fatalf("%+v", draft)
	}
	var servers sync.WaitGroup
	serve := func(a *agentProcess) {
		servers.Go(func() {
			if err := b.serve(a.listener, 2); err != nil {
				t.Error(err)
			}
		})
	}
	var others []*agentProcess
	for i := range 2 {
		folder := filepath.Join(dir, fmt.Sprint(i))
		if err := os.Mkdir(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		a := agent(t, "write files for ever", folder)
		others = append(others, a)
		serve(a)
	}
	a := agent(t, "save a text", dir)
	serve(a)
	if err := a.wait(); err != nil {
		t.Error(err)
	}
	for _, a := range others {
		if err := a.Process.Kill(); err != nil {
			t.Error("it has ended: ", a.wait())
		}
		_ = a.Wait()
	}
	servers.Wait()
	draft.close()
	b.settleAll(false)
	if got := b.report.read().Changed; got < saves {
		t.Errorf("only %d files were written meanwhile", got)
	}
}

// TestWhatIsBeingWrittenIsNotRefused has calls read a text that is open for writing. They are to be made once more, when nobody has to wait for it.
func TestWhatIsBeingWrittenIsNotRefused(t *testing.T) {
	for what, row := range map[string]struct {
		text string
		call func(r *request, dir string) outcome
	}{
		"unlink": {"r/.git/config", func(r *request, dir string) outcome { return r.unlink(unix.AT_FDCWD, dir+"/r/.git/config", 0) }},
		"rename": {"r/.git/config", func(r *request, dir string) outcome {
			return r.rename(unix.AT_FDCWD, dir+"/new", unix.AT_FDCWD, dir+"/r/.git/config", 0)
		}},
		"rename a folder": {"r/.git/config", func(r *request, dir string) outcome {
			return r.rename(unix.AT_FDCWD, dir+"/r", unix.AT_FDCWD, dir+"/s", 0)
		}},
		"take a repository apart": {"bare/config", func(r *request, dir string) outcome {
			return r.unlink(unix.AT_FDCWD, dir+"/bare/refs", unix.AT_REMOVEDIR)
		}},
		"edit it": {"r/.git/config", func(r *request, dir string) outcome {
			return r.open(unix.AT_FDCWD, dir+"/r/.git/config", unix.O_RDWR, 0)
		}},
	} {
		b, dir := desk(t)
		write(t, filepath.Join(dir, "r/.git/config"), "[core]\n\tbare = false\n")
		write(t, filepath.Join(dir, "new"), "[core]\n\tbare = false\n[user]\n\tname = x\n")
		bare(t, filepath.Join(dir, "bare"), "[core]\n\tbare = true\n")
		if err := os.Remove(filepath.Join(dir, "bare/HEAD")); err != nil {
			t.Fatal(err)
		}
		r := b.request(t)
		draft := r.open(unix.AT_FDCWD, filepath.Join(dir, row.text), unix.O_WRONLY, 0)
		r.closeOpened()
		if draft.errno != 0 || draft.file == 0 {
			t.Fatalf("%s: %+v", what, draft)
		}
		call := func() outcome {
			r := b.request(t)
			defer r.closeOpened()
			return row.call(r, dir)
		}
		b.settleAll(false)
		if out := call(); !out.again || !out.leased {
			t.Errorf("%s: %+v", what, out)
		}
		b.settleAll(true)
		must(t, what, call())
		if refused := b.report.read().Refused; len(refused) > 0 {
			t.Errorf("%s: the report has %+v", what, refused)
		}
		draft.close()
	}
}

// TestALeaseIsTakenAgain has somebody read a text that is being written: he gets what is there, and who comes after the writer has ended still waits for what
// that one wrote.
func TestALeaseIsTakenAgain(t *testing.T) {
	const before, after = "[core]\n\tbare = false\n", "[core]\n\tbare = false\n[user]\n\tname = x\n"
	b, dir := desk(t)
	name := filepath.Join(dir, ".git/config")
	write(t, name, before)
	opened := make(chan os.Signal, 1)
	signal.Notify(opened, unix.SIGIO)
	t.Cleanup(func() { signal.Stop(opened); close(opened) })
	go b.yield(opened)
	r := b.request(t)
	draft := r.open(unix.AT_FDCWD, name, unix.O_WRONLY|unix.O_TRUNC, 0)
	r.closeOpened()
	if draft.errno != 0 || draft.file == 0 {
		t.Fatalf("%+v", draft)
	}
	holds(t, name, before)
	b.settleAll(false)
	if _, err := unix.Write(draft.file, []byte(after)); err != nil {
		t.Fatal(err)
	}
	draft.close()
	holds(t, name, after)
}
