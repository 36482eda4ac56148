package conformance

var files = []Need{
	{ID: "file.sqlite", Does: "an SQLite database, with locks and a write-ahead log", Script: sqlite},
	{ID: "file.locks", Does: "flock, fcntl and open-file locks", Script: locks},
	{ID: "file.watch", Does: "inotify", Script: watch},
	{ID: "file.sockets", Does: "sockets and fifos in /tmp; as root in /run", Script: `
		mkfifo fifo; echo x >fifo & test "$(cat fifo)" = x
		` + python(`
import os, socket
socket.socket(socket.AF_UNIX).bind("/run/x.sock" if os.getuid() == 0 and os.access("/run", os.W_OK) else "x.sock")`)},
	{ID: "file.unnamed", Does: "files without a name (O_TMPFILE), and giving them one", Script: python(`
import ctypes, os
fd = os.open(".", os.O_TMPFILE | os.O_RDWR); os.write(fd, b"x")
assert ctypes.CDLL(None).linkat(-100, b"/proc/self/fd/%d" % fd, -100, b"named", 0x400) == 0
assert open("named").read() == "x"`)},
	{ID: "file.chroot", Does: "chroot", Who: Root, Needs: []string{"chroot"}, Script: `
		mkdir -p root/bin; cp /bin/busybox root/bin/ 2>/dev/null || cp /usr/bin/busybox root/bin/
		test "$(chroot root /bin/busybox ls /)" = bin`},
	{ID: "file.owner", Does: "owners, modes, set-user-ID bits on files of the image: tar --same-owner", Who: Root, Script: `
		touch a; chown 1:1 a; chmod 4755 a
		tar -cf t.tar a; rm a; tar --same-owner -xpf t.tar
		test "$(stat -c %u:%g:%a a)" = 1:1:4755`},
	{ID: "file.xattr", Does: "extended attributes user.* on files of an image", Who: Root, Script: xattr},
	{ID: "file.mount", Does: "mounting: FUSE, tmpfs, bind mounts", Never: "mounts are the wall", Script: `mount -t tmpfs none .`},
	{ID: "file.device", Does: "device nodes", Never: "a node is the host's device", Script: `mknod null c 1 3`},
	{ID: "file.filecaps", Does: "file capabilities: setcap", Never: "they would count outside, and give nothing inside", Script: python(`
import os
open("f", "w")
os.setxattr("f", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))`)},
}

var workspace = []Need{
	{ID: "workspace.sqlite", Does: "an SQLite database, with locks and a write-ahead log", Where: Workspace, Script: sqlite},
	{ID: "workspace.locks", Does: "flock, fcntl and open-file locks", Where: Workspace, Script: locks},
	{ID: "workspace.watch", Does: "inotify: development servers see what is changed", Where: Workspace, Script: watch},
	{ID: "workspace.mmap", Does: "shared mappings that are written to", Where: Workspace, Script: python(`
import mmap
f = open("f", "w+b"); f.truncate(1 << 20)
m = mmap.mmap(f.fileno(), 0); m[1000:1004] = b"text"; m.flush(); m.close()
assert open("f", "rb").read()[1000:1004] == b"text"`)},
	{ID: "workspace.sparse", Does: "sparse and big files, holes, preallocation", Where: Workspace, Script: `
		truncate -s 10G f; test "$(stat -c %b f)" -lt 1000
		fallocate -l 1M g; fallocate -p -o 0 -l 4096 g; test "$(stat -c %s g)" = 1048576
		printf x | dd of=f bs=1 seek=5000000000 conv=notrunc 2>/dev/null; test "$(stat -c %s f)" = 10737418240`},
	{ID: "workspace.links", Does: "hard and symbolic links, long names, names of any bytes, upper and lower case", Where: Workspace, Script: `
		echo x >a; ln a b; ln -s a c; test "$(cat b c)" = "x
x"; test "$(stat -c %h a)" = 2
		touch "$(printf '%0255d' 1)" "$(printf 'new\nline \377')" A
		test "$(ls | wc -l)" -ge 6; rm A; test -e a`},
	{ID: "workspace.fifo", Does: "fifos", Where: Workspace, Script: `mkfifo fifo; echo x >fifo & test "$(cat fifo)" = x`},
	{ID: "workspace.modes", Does: "modes, times, renames of folders, executables that are built and run", Where: Workspace, Script: `
		printf '#!/bin/sh\necho ran\n' >run; chmod 755 run; test "$(./run)" = ran
		touch -d @1000000000 run; test "$(stat -c %Y run)" = 1000000000
		mkdir -p d/e/f; mv d g; test -d g/e/f; rm -r g`},
	{ID: "workspace.exchange", Does: "atomic replacement: rename over a file, RENAME_EXCHANGE, RENAME_NOREPLACE", Where: Workspace, Script: python(`
import ctypes, os
c = ctypes.CDLL(None, use_errno=True)
for n in "ab": open(n, "w").write(n)
assert c.renameat2(-100, b"a", -100, b"b", 2) == 0 and open("a").read() == "b"
assert c.renameat2(-100, b"a", -100, b"b", 1) == -1 and ctypes.get_errno() == 17
os.replace("a", "b"); assert open("b").read() == "b" and not os.path.exists("a")`)},
	{ID: "workspace.xattr", Does: "extended attributes user.*", Where: Workspace, Script: xattr},
	{ID: "workspace.direct", Does: "O_DIRECT, O_SYNC, fsync, sync_file_range", Where: Workspace, Script: `
		dd if=/dev/zero of=f bs=4096 count=16 oflag=direct,sync conv=fsync 2>/dev/null
		dd if=f of=/dev/null bs=4096 iflag=direct 2>/dev/null; sync f`},
	{ID: "workspace.chown", Does: "owners of files: tar --same-owner", Who: Root, Where: Workspace, Script: `
		touch a; chown 1:1 a; tar -cf t.tar a; rm a; tar --same-owner -xpf t.tar
		test "$(stat -c %u:%g a)" = 1:1`},
	{ID: "workspace.build", Does: "compilers and parallel builds: gcc, make -j, ar, shared libraries", Needs: []string{"gcc", "make"}, Where: Workspace, Script: `
		for i in 1 2 3 4 5 6 7 8; do echo "int f$i(void) { return $i; }" >f$i.c; done
		printf 'int f1(void), f8(void);\nint main(void) { return f1() + f8() == 9 ? 0 : 1; }\n' >main.c
		printf 'all: main\nlibf.so: f1.o f2.o f3.o f4.o f5.o f6.o f7.o f8.o\n\tgcc -shared -o $@ $^\n%%.o: %%.c\n\tgcc -fPIC -c -o $@ $<\nmain: main.c libf.so\n\tgcc -o $@ main.c -L. -lf -Wl,-rpath,$(CURDIR)\n' >Makefile
		make -s -j8; ./main`},
	{ID: "workspace.git", Does: "git: init, commit, branch, merge, worktree, stash", Needs: []string{"git"}, Where: Workspace, Script: `
		export HOME=/tmp GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@a.test GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@a.test
		git init -q -b main repo; cd repo; echo a >a; git add a; git commit -qm a
		git checkout -qb side; echo b >b; git add b; git commit -qm b; git checkout -q main; git merge -q side
		git worktree add -q tree side; echo c >>a; git stash -q; git stash pop -q; git diff --quiet && exit 1; true`},
	{ID: "workspace.worktree", Does: "a worktree beside a repository that is itself in a folder of the workspace", Needs: []string{"git"}, Where: Workspace, Never: "its .git file would lead to a folder that is not above it; inside of the repository it works", Script: `
		export HOME=/tmp GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@a.test GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@a.test
		git init -q -b main repo; cd repo; git commit -q --allow-empty -m a; git worktree add -q ../tree`},
	{ID: "workspace.socket", Does: "Unix sockets", Where: Workspace, Never: "one could be mistaken for a program's of the host; /tmp takes them", Script: python(`
import socket
socket.socket(socket.AF_UNIX).bind("x.sock")`)},
	{ID: "workspace.suid", Does: "set-user-ID files", Where: Workspace, Never: "they would be programs of the host's", Script: `touch f; chmod 4755 f; test -u f`},
	{ID: "workspace.unnamed", Does: "files without a name (O_TMPFILE)", Where: Workspace, Never: "what they become when they are given a name cannot be judged; programs fall back to a name", Script: python(`
import os
os.open(".", os.O_TMPFILE | os.O_RDWR)`)},
	{ID: "workspace.lease", Does: "file leases", Where: Workspace, Never: "whoever opens the file outside would wait", Script: python(`
import fcntl
f = open("f", "w"); fcntl.fcntl(f, fcntl.F_SETLEASE, fcntl.F_WRLCK)`)},
}

const watch = `python3 - <<'END'
import ctypes, os, select, struct
c = ctypes.CDLL(None)
fd = c.inotify_init1(os.O_NONBLOCK)
assert c.inotify_add_watch(fd, b".", 0x382) > 0 # modify, moved to, create, delete
open("new", "w").write("x"); os.rename("new", "moved"); os.unlink("moved")
seen = 0
while seen & 0x382 != 0x382:
    assert select.select([fd], [], [], 5)[0], hex(seen)
    data = os.read(fd, 4096)
    while data:
        _, mask, _, n = struct.unpack("iIII", data[:16]); seen |= mask; data = data[16 + n:]
END
`

const locks = `python3 - <<'END'
import fcntl, os, struct
f, g = open("f", "w+"), open("f", "r+")
fcntl.flock(f, fcntl.LOCK_EX)
try: fcntl.flock(g, fcntl.LOCK_EX | fcntl.LOCK_NB); raise SystemExit("two have it")
except BlockingIOError: pass
fcntl.lockf(f, fcntl.LOCK_EX)
if os.fork() == 0:
    try: fcntl.lockf(g, fcntl.LOCK_EX | fcntl.LOCK_NB); os._exit(1)
    except BlockingIOError: os._exit(0)
assert os.wait()[1] == 0
fcntl.lockf(f, fcntl.LOCK_UN)
fcntl.fcntl(f, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)) # F_OFD_SETLK
END
`

const sqlite = `python3 - <<'END'
import sqlite3
for mode in ("delete", "wal"):
    a = sqlite3.connect(mode + ".db"); assert a.execute("pragma journal_mode=" + mode).fetchone()[0] == mode
    a.execute("create table t (x)"); a.executemany("insert into t values (?)", [(i,) for i in range(1000)]); a.commit()
    b = sqlite3.connect(mode + ".db"); assert b.execute("select sum(x) from t").fetchone()[0] == 499500
    a.execute("begin immediate")
    try: sqlite3.connect(mode + ".db", timeout=0).execute("begin immediate"); raise SystemExit("two write")
    except sqlite3.OperationalError: pass
    a.close()
END
`

const xattr = `python3 - <<'END'
import os
open("f", "w"); os.setxattr("f", "user.key", b"value")
assert os.getxattr("f", "user.key") == b"value" and os.listxattr("f") == ["user.key"]
os.removexattr("f", "user.key"); assert os.listxattr("f") == []
END
`
