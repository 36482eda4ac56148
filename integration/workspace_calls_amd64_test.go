//go:build linux && amd64

package integration

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// calls are ways, with this architecture's numbers of system calls, to a protected place that are no write by its name: a hook of the owner's, HOOK, or one to come, NEW. "free" is a file of the agent's. Each is
// the body of a function, which raises an error if it has no effect.
var calls = []struct {
	name, body string
	root       bool // the control needs root
}{
	{"an overlay in a user namespace", `
user_namespace()
for d in ("low", "work"): os.mkdir(d)
call(165, b"none", b"low", b"overlay", 0, b"lowerdir=low,upperdir=.git/hooks,workdir=work,userxattr")
write("low/pre-push")`, false},
	{"a bind mount in a user namespace", `
user_namespace()
os.mkdir("s"); call(165, b".git/hooks", b"s", b"", 4096, 0)
write("s/pre-push")`, false},
	{"a root folder of its own in a user namespace", `
user_namespace()
os.chroot("."); write("/" + NEW)`, false},
	{"a process in a user namespace", `
pid = call(56, 0x10000000 | 17, 0, 0, 0, 0)
if pid == 0: os._exit(0)
os.waitpid(pid, 0)`, false},
	{"a mount", `call(165, b"none", b".git/hooks", b"tmpfs", 0, 0); write(NEW); call(166, b".git/hooks", 2)`, true},
	{"a copy of the mount", `os.close(call(428, -100, b".", 1))`, true},
	{"io_uring", `os.close(call(425, 4, bytes(120)))`, false},
	{"a file handle", `
h = ctypes.create_string_buffer(struct.pack("Ii", 120, 0) + bytes(120)); m = ctypes.c_int()
call(303, -100, HOOK.encode(), h, ctypes.byref(m), 0)
os.write(call(304, os.open("free", os.O_RDWR), h, os.O_WRONLY), b"planted")`, true},
	{"a link of a descriptor", `call(265, os.open("free", os.O_RDWR), b"", -100, NEW.encode(), 0x1000)`, true},
	{"a link of a descriptor by /proc", `call(265, -100, b"/proc/self/fd/%d" % os.open("free", os.O_RDWR), -100, NEW.encode(), 0x400)`, false},
	{"a link of a file without a name", `call(265, -100, b"/proc/self/fd/%d" % os.open(".git", os.O_TMPFILE | os.O_RDWR), -100, NEW.encode(), 0x400)`, false},
	{"a descriptor to read, opened again", `os.write(os.open("/proc/self/fd/%d" % os.open(HOOK, os.O_RDONLY), os.O_WRONLY), b"planted")`, false},
	{"by the number of the process", `os.write(os.open("/proc/%d/fd/%d" % (os.getpid(), os.open(HOOK, os.O_RDONLY)), os.O_WRONLY), b"planted")`, false},
	{"a descriptor of the path, opened again", `os.write(os.open("/proc/thread-self/fd/%d" % os.open(HOOK, os.O_PATH), os.O_RDWR), b"planted")`, false},
	{"a descriptor of another process's, opened again", `
a, b = socket.socketpair(); socket.send_fds(a, [b"x"], [os.open(HOOK, os.O_PATH)]); fds = socket.recv_fds(b, 1, 1)[1]
os.write(os.open("/dev/fd/%d" % fds[0], os.O_WRONLY), b"planted")`, false},
	{"a descriptor that another process opens again", `
fd = os.open(HOOK, os.O_PATH); parent = os.getpid(); pid = os.fork()
if pid == 0:
    try: os.write(os.open("/proc/%d/fd/%d" % (parent, fd), os.O_WRONLY), b"planted")
    except OSError: os._exit(1)
    os._exit(0)
if os.waitpid(pid, 0)[1]: raise OSError("the child failed")`, false},
	{"truncating by a descriptor to read", `call(76, b"/proc/self/fd/%d" % os.open(HOOK, os.O_RDONLY), 0)`, false},
	{"an attribute", `os.setxattr(HOOK, "user.x", b"y")`, false},
	{"an attribute by a descriptor", `os.setxattr(os.open(HOOK, os.O_RDONLY), "user.x", b"y")`, false},
	{"an attribute by setxattrat", `
v = ctypes.create_string_buffer(b"y")
call(463, -100, HOOK.encode(), 0, b"user.x", struct.pack("QII", ctypes.addressof(v), 1, 0), 16)`, false},
	{"taking an attribute", `os.removexattr(HOOK, "user.owner")`, false},
	{"taking an attribute by removexattrat", `call(466, -100, HOOK.encode(), 0, b"user.owner")`, false},
	{"an access control list", `os.setxattr(HOOK, "system.posix_acl_access", acl())`, false},
	{"an access control list of the folder", `os.setxattr(".git/hooks", "system.posix_acl_default", acl())`, false},
	{"a capability of a file", `os.setxattr("free", "security.capability", struct.pack("<5I", 0x02000001, 2**32 - 1, 0, 0, 0))`, true},
	{"a capability of an open file", `os.setxattr(os.open("free", os.O_RDWR), "security.capability", struct.pack("<5I", 0x02000001, 2**32 - 1, 0, 0, 0))`, true},
	{"the mode", `os.chmod(HOOK, 0o777)`, false},
	{"the mode by a descriptor", `os.fchmod(os.open(HOOK, os.O_RDONLY), 0o777)`, false},
	{"the mode by a descriptor and /proc", `os.chmod("/proc/self/fd/%d" % os.open(HOOK, os.O_PATH), 0o777)`, false},
	{"the times", `os.utime(HOOK, (1, 1))`, false},
	{"the times by a descriptor", `os.utime(os.open(HOOK, os.O_RDONLY), (1, 1))`, false},
	{"a flag of the file", `flag(os.open(HOOK, os.O_RDONLY), 0x40)`, false},
	{"a file that nobody can change any more", `fd = os.open("free", os.O_RDWR); flag(fd, 0x10); flag(fd, 0)`, true},
	{"a file that can only grow", `fd = os.open(HOOK, os.O_RDONLY); flag(fd, 0x20); flag(fd, 0)`, true},
	{"set-user-ID", `os.chmod("free", 0o4755); special("free")`, false},
	{"set-user-ID by a descriptor", `os.fchmod(os.open("free", os.O_RDWR), 0o4755); special("free")`, false},
	{"set-group-ID by a descriptor and /proc", `os.chmod("/proc/self/fd/%d" % os.open("free", os.O_RDWR), 0o2755); special("free")`, false},
	{"set-user-ID by the number of the process", `os.chmod("/proc/%d/fd/%d" % (os.getpid(), os.open("free", os.O_RDWR)), 0o4755); special("free")`, false},
	{"set-user-ID from the beginning", `os.close(os.open("new", os.O_CREAT | os.O_WRONLY, 0o4755)); special("new")`, false},
	{"a root folder of a process", `os.chroot("."); write("/" + NEW)`, true},
}

// callScript makes each call in a process of its own, in a folder that has its number, and prints which of them had an effect.
func callScript(top string) string {
	var b strings.Builder
	b.WriteString(`
import ctypes, fcntl, os, socket, stat, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
HOOK, NEW = ".git/hooks/post-commit", ".git/hooks/pre-push"
def call(number, *args):
    r = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    if r < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return r
def write(path):
    with open(path, "w") as f: f.write("planted")
def user_namespace():
    uid, gid = os.getuid(), os.getgid()
    call(272, 0x10020000)
    for name, text in ("setgroups", "deny"), ("uid_map", "0 %d 1" % uid), ("gid_map", "0 %d 1" % gid):
        with open("/proc/self/" + name, "w") as f: f.write(text)
def acl():
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in ((1, 7, 2**32-1), (2, 7, os.getuid()), (4, 7, 2**32-1), (16, 7, 2**32-1), (32, 7, 2**32-1)))
def flag(fd, bits):
    fcntl.ioctl(fd, 0x40086602, struct.pack("l", bits))
def special(path):
    if not os.stat(path).st_mode & (stat.S_ISUID | stat.S_ISGID): raise OSError("it has not got the bit")
def attempt(i, name, do):
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            os.chdir("` + top + `/%d" % i)
            do()
            print(name, flush=True)
        except OSError as e:
            print(name, e, file=sys.stderr, flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
`)
	for i, c := range calls {
		fmt.Fprintf(&b, "def call%d():\n    %s\nattempt(%d, %q, call%d)\n", i, strings.ReplaceAll(strings.TrimPrefix(c.body, "\n"), "\n", "\n    "), i, c.name, i)
	}
	return b.String()
}

// shelf makes a repository for each call.
func shelf(t *testing.T, top string, owner uint32) {
	t.Helper()
	for i := range calls {
		dir := filepath.Join(top, fmt.Sprint(i))
		if i > 0 {
			if out, err := exec.Command("cp", "-a", filepath.Join(top, "0"), dir).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			continue
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		repository(t, dir, owner)
		hook := filepath.Join(dir, ".git/hooks/post-commit")
		if err := unix.Setxattr(hook, "user.owner", []byte("x"), 0); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "free"), []byte("free"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(filepath.Join(dir, "free"), int(owner), int(owner)); err != nil {
			t.Fatal(err)
		}
	}
}

// protectedState says what the hooks of each call's repository are.
func protectedState(t *testing.T, top string) (states []string) {
	t.Helper()
	for i := range calls {
		h := sha256.New()
		dir := filepath.Join(top, fmt.Sprint(i), ".git/hooks")
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			st, err := os.Lstat(path)
			if err != nil {
				return err
			}
			names := make([]byte, 4096)
			n, err := unix.Listxattr(path, names)
			if err != nil {
				return err
			}
			var text []byte
			if st.Mode().IsRegular() {
				if text, err = os.ReadFile(path); err != nil {
					return err
				}
			}
			fmt.Fprintf(h, "%q %v %v %q %q\n", strings.TrimPrefix(path, dir), st.Mode(), st.ModTime(), names[:n], text)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		states = append(states, fmt.Sprintf("%x", h.Sum(nil)))
	}
	return states
}

// TestNoCallReachesAProtectedPlace makes each of the calls as root and as an ordinary user. The control is the same script
// without a sandbox.
func TestNoCallReachesAProtectedPlace(t *testing.T) {
	Require(t, "python")
	eachPerson(t, func(t *testing.T, p person) {
		outside := filepath.Join(p.home, "outside")
		if err := os.Mkdir(outside, 0o755); err != nil {
			t.Fatal(err)
		}
		shelf(t, outside, p.id)
		control := p.command(t)
		control.Path, control.Args, control.Dir = "/usr/bin/python3", []string{"python3", "-c", callScript(outside)}, outside
		had := finish(t, control)
		for _, c := range calls {
			if !slices.Contains(strings.Split(had.Stdout, "\n"), c.name) && (p.id == 0 || !c.root) {
				t.Errorf("the control of %q has no effect", c.name)
			}
		}
		if t.Failed() {
			t.Logf("%s", had)
		}
		shelf(t, p.workspace(), p.id)
		before := protectedState(t, p.workspace())
		if got := p.run(t, "/usr/bin/python3", "-c", callScript(p.workspace())); got.Code != 0 || got.Stdout != "" {
			t.Errorf("what had an effect: %s", got)
		}
		for i, state := range protectedState(t, p.workspace()) {
			if state != before[i] {
				t.Errorf("%s: the hooks are not what they were", calls[i].name)
			}
		}
	})
}
