package conformance

var identity = []Need{
	{ID: "id.name", Does: "a name for one's own user", Script: `id -un`},
	{ID: "id.change", Does: "becoming another user: su, setpriv, gosu", Who: Root, Script: `
		test "$(setpriv --reuid 33 --regid 33 --clear-groups id -u)" = 33
		test "$(su -s /bin/sh www-data -c 'id -un')" = www-data`},
	{ID: "id.files", Does: "files that only another user may read, and that root may", Who: Root, Script: `
		chmod 755 .; echo x >f; chown 33:33 f; chmod 600 f; cat f
		setpriv --reuid 34 --regid 34 --clear-groups cat f && exit 1; true`},
	{ID: "id.sudo", Does: "sudo, and other set-user-ID programs", Who: Root, Never: "no program gives more rights than its caller has", Script: `
		cp "$(command -v id)" who; chmod 4755 who; chmod 755 .
		test "$(setpriv --reuid 33 --regid 33 --clear-groups ./who -u)" = 0`},
}

var kernel = []Need{
	{ID: "kernel.events", Does: "epoll, eventfd, timerfd, signalfd", Script: python(`
import ctypes, os, select, signal, struct
c = ctypes.CDLL(None, use_errno=True)
e, event = select.epoll(), os.eventfd(0)
timer = c.timerfd_create(1, 0)
assert timer >= 0 and c.timerfd_settime(timer, 0, struct.pack("4q", 0, 0, 0, 10_000_000), None) == 0
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
signals = c.signalfd(-1, struct.pack("16Q", 1 << (signal.SIGUSR1 - 1), *[0] * 15), 0)
assert signals >= 0
for fd in (event, timer, signals): e.register(fd, select.EPOLLIN)
os.eventfd_write(event, 1); os.kill(os.getpid(), signal.SIGUSR1)
seen = set()
while len(seen) < 3:
    got = e.poll(5); assert got
    for fd, _ in got: seen.add(fd); os.read(fd, 128)`)},
	{ID: "kernel.aio", Does: "asynchronous I/O of the kernel (io_setup)", Script: python(`
import ctypes
ctx = ctypes.c_ulong(0)
assert ctypes.CDLL(None).syscall(206, 16, ctypes.byref(ctx)) == 0`)},
	{ID: "kernel.random", Does: "random numbers, by call and by device", Script: `
		python3 -c 'import os; assert len(os.getrandom(64)) == 64'
		test "$(head -c 64 /dev/urandom | wc -c)" = 64; : </dev/random; echo >/dev/null; head -c 1 /dev/zero >x`},
	{ID: "kernel.clone3", Does: "clone3, by the C library's other way: it is told that there is none", Script: python(`
import ctypes
c = ctypes.CDLL(None, use_errno=True)
assert c.syscall(435, 0, 0) == -1 and ctypes.get_errno() == 38`)},
	{ID: "kernel.seccomp", Does: "a seccomp filter of the program's own", Script: python(`
import ctypes, os, struct
c = ctypes.CDLL(None, use_errno=True)
assert c.prctl(38, 1, 0, 0, 0) == 0
program = struct.pack("HBBI", 0x20, 0, 0, 0) + struct.pack("HBBI", 0x15, 0, 1, 110) + struct.pack("HBBI", 6, 0, 0, 0x50000 | 7) + struct.pack("HBBI", 6, 0, 0, 0x7fff0000)
text = ctypes.create_string_buffer(program)
assert c.syscall(317, 1, 0, ctypes.byref(ctypes.create_string_buffer(struct.pack("HxxxxxxQ", 4, ctypes.addressof(text))))) == 0, ctypes.get_errno()
assert c.syscall(110) == -1 and ctypes.get_errno() == 7 # getppid`)},
	{ID: "kernel.landlock", Does: "Landlock rules of the program's own", Script: python(`
import ctypes, os, struct
c = ctypes.CDLL(None, use_errno=True)
if c.syscall(444, 0, 0, 1) < 1: raise SystemExit(0) # of a kernel that has it
rules = c.syscall(444, struct.pack("Q", 1 << 2), 8, 0) # read files
assert rules >= 0 and c.prctl(38, 1, 0, 0, 0) == 0 and c.syscall(446, rules, 0) == 0
try: open("/etc/passwd"); raise SystemExit("it does not hold")
except PermissionError: pass`)},
	{ID: "kernel.proc", Does: "/proc and /sys as tools read them: ps, free, nproc, lscpu, uptime", Script: `
		ps aux >x; free >x; nproc >x; uptime >x; lscpu >x
		test -r /proc/self/maps -a -r /proc/meminfo -a -r /proc/cpuinfo -a -r /sys/devices/system/cpu/online`},
	{ID: "kernel.persona", Does: "programs without address randomisation: setarch -R, debuggers, sanitizers", Script: `test "$(setarch -R cat /proc/self/personality)" = 00040000`},
	{ID: "kernel.userns", Does: "namespaces of one's own: bubblewrap, rootless containers, sandboxes of browsers", Never: "they open much of the kernel to everybody; a browser takes --no-sandbox here, where it has another one around it", Script: `unshare -Ur true`},
	{ID: "kernel.uring", Does: "io_uring", Never: "it makes calls that no filter sees; libraries fall back to epoll", Script: python(`
import ctypes
assert ctypes.CDLL(None).syscall(425, 4, ctypes.create_string_buffer(120)) >= 0`)},
	{ID: "kernel.bpf", Does: "BPF, perf events, userfaultfd: profilers of the whole machine", Never: "they look beyond the container", Script: python(`
import ctypes
import struct
attr = ctypes.create_string_buffer(struct.pack("IIQ", 1, 64, 0), 128) # a software event, perf_event_open(2)
assert ctypes.CDLL(None).syscall(298, attr, 0, -1, -1, 0) >= 0`)},
	{ID: "kernel.32bit", Does: "32-bit programs", Never: "the other entries of the kernel have calls that no filter sees", Needs: []string{"gcc"}, Script: `
		printf 'int main(void) { int r; __asm__("int $0x80" : "=a"(r) : "a"(20)); return r > 0 ? 0 : 1; }' >x.c
		gcc -o x x.c; ./x`},
	{ID: "kernel.sysctl", Does: "writing kernel settings below /proc/sys", Never: "most are the host's", Script: `echo 1 >/proc/sys/net/ipv4/ip_forward`},
}

var terminals = []Need{
	{ID: "tty.pty", Does: "pseudoterminals: script, tmux, expect", Script: python(`
import os, pty
pid, fd = pty.fork()
if pid == 0:
    os.execvp("sh", ["sh", "-c", "test -t 0 && tty && stty size && echo done"])
out = b""
try:
    while True: out += os.read(fd, 1000)
except OSError: pass
assert b"/dev/pts/" in out and b"done" in out, out
assert os.waitpid(pid, 0)[1] == 0`)},
	{ID: "tty.jobs", Does: "job control: stop, background, foreground, ^C", Script: python(`
import os, pty, time
pid, fd = pty.fork()
if pid == 0: os.execvp("bash", ["bash", "--norc", "-i"])
out = b""
def until(says):
    global out
    while says not in out: out += os.read(fd, 1000)
def foreground(other):
    while (os.tcgetpgrp(fd) != pid) != other: time.sleep(0.01)
os.write(fd, b"sh -c 'echo be\"\"gun; exec sleep 30'\n"); until(b"begun"); foreground(True)
os.write(fd, b"\x1a"); until(b"Stopped"); foreground(False)
os.write(fd, b"echo ag''ain; fg\n"); until(b"again"); foreground(True)
os.write(fd, b"\x03"); foreground(False)
os.write(fd, b"echo st''atus $?; exit\n"); until(b"status 130")`)},
	{ID: "tty.size", Does: "window sizes and their signal", Script: python(`
import fcntl, os, pty, signal, struct, termios
m, s = pty.openpty()
fcntl.ioctl(m, termios.TIOCSWINSZ, struct.pack("4H", 40, 100, 0, 0))
assert os.get_terminal_size(s) == (100, 40)`)},
	{ID: "tty.inject", Does: "putting characters into a terminal's input (TIOCSTI)", Never: "a shell outside may read them as typed", Script: python(`
import fcntl, os, pty, termios
pid, fd = pty.fork()
if pid == 0:
    try: fcntl.ioctl(0, termios.TIOCSTI, b"x")
    except OSError: os._exit(1)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0`)},
}
