package broker

import (
	"os"
	"path/filepath"
	"strings"
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
	b.settleAll(true)
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
