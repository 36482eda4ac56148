package conformance

// python runs a program.
func python(program string) string { return "python3 - <<'END'\n" + program + "\nEND\n" }

var processes = []Need{
	{ID: "process.many", Does: "200 processes at once", Script: `
		all=; i=0; while [ $i -lt 200 ]; do sleep 60 & all="$all $!"; i=$((i+1)); done
		kill -0 $all; kill $all; wait || true`},
	{ID: "process.threads", Does: "500 threads", Script: python(`
import threading
go = threading.Event()
all = [threading.Thread(target=go.wait) for _ in range(500)]
for t in all: t.start()
go.set()
for t in all: t.join()`)},
	{ID: "process.groups", Does: "process groups, sessions, orphans that are reaped", Script: python(`
import os, signal, time
pid = os.fork()
if pid == 0:
    os.setsid()
    os.setpgid(0, 0) if os.getpgrp() != os.getpid() else None
    if os.fork() == 0: time.sleep(30)
    time.sleep(30)
while os.getpgid(pid) != pid: time.sleep(0.01)
os.killpg(pid, signal.SIGTERM)
assert os.waitpid(pid, 0)[1] == signal.SIGTERM
orphan, w = os.pipe()
if os.fork() == 0:
    parent = os.getpid()
    if os.fork() == 0:
        while os.getppid() == parent: time.sleep(0.01)
        os.write(w, str(os.getppid()).encode())
    os._exit(0)
os.wait()
assert os.read(orphan, 9) == b"1"`)},
	{ID: "process.signals", Does: "signals, masks, queued values, alarms, interval timers", Script: python(`
import os, signal, time
got = []
for s in (signal.SIGUSR1, signal.SIGALRM, signal.SIGCHLD, signal.SIGRTMIN + 3): signal.signal(s, lambda s, _: got.append(s))
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2]); os.kill(os.getpid(), signal.SIGUSR2)
assert signal.SIGUSR2 in signal.sigpending() and signal.sigwait([signal.SIGUSR2]) == signal.SIGUSR2
os.kill(os.getpid(), signal.SIGUSR1); os.kill(os.getpid(), signal.SIGRTMIN + 3)
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
while got.count(signal.SIGALRM) < 3: time.sleep(0.02)
assert signal.SIGUSR1 in got and signal.SIGRTMIN + 3 in got`)},
	{ID: "process.ptrace", Does: "a debugger on one's own processes: strace, gdb", Needs: []string{"strace"}, Script: `
		strace -f -o out sh -c '/bin/echo traced; exit 3' && exit 1 || test $? = 3
		grep -q 'write(1, "traced' out
		sleep 30 & pid=$!
		strace -o out2 -p $pid & until grep -q 'TracerPid:.*[1-9]' /proc/$pid/status; do sleep 0.05; done; kill $pid; wait || true
		grep -q 'killed by SIGTERM' out2`},
	{ID: "process.pidfd", Does: "pidfds", Script: python(`
import os, signal, select
pid = os.fork()
if pid == 0: signal.pause()
fd = os.pidfd_open(pid)
signal.pidfd_send_signal(fd, signal.SIGKILL)
assert select.select([fd], [], [], 5)[0]
assert os.waitid(os.P_PIDFD, fd, os.WEXITED).si_status == signal.SIGKILL`)},
	{ID: "process.limits", Does: "resource limits, lowered and read; niceness", Script: python(`
import os, resource
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
assert hard >= 1024
resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 128
assert os.nice(5) == 5
os.sched_setaffinity(0, os.sched_getaffinity(0))
os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))`)},
	{ID: "process.core", Does: "core dumps", Never: "a crash may not start the program of the host that takes them", Script: python(`
import resource
_, hard = resource.getrlimit(resource.RLIMIT_CORE)
resource.setrlimit(resource.RLIMIT_CORE, (1 << 16, hard))`)},
	{ID: "process.realtime", Does: "real-time scheduling", Never: "real-time tasks are not bound by the limit of processors", Script: python(`
import os
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))`)},
	{ID: "process.clock", Does: "setting the clock", Never: "it is the host's", Script: python(`
import time
time.clock_settime_ns(time.CLOCK_REALTIME, time.time_ns())`)},
	{ID: "process.zones", Does: "time zones and locales", Script: `
		test "$(TZ=America/New_York date -d @0 +%H%z)" = 19-0500
		LC_ALL=C.UTF-8 locale charmap | grep -qx UTF-8`},
	{ID: "process.subreaper", Does: "child subreapers, death signals, process names", Script: python(`
import ctypes
c = ctypes.CDLL(None, use_errno=True)
for option, value in ((36, 1), (1, 15), (4, 1), (38, 1)): # subreaper, pdeathsig, dumpable, no_new_privs
    assert c.prctl(option, value, 0, 0, 0) == 0, option
name = ctypes.create_string_buffer(b"renamed")
assert c.prctl(15, name, 0, 0, 0) == 0 and open("/proc/self/comm").read() == "renamed\n"`)},
}

var memory = []Need{
	{ID: "memory.shm", Does: "POSIX shared memory and semaphores, /dev/shm", Script: python(`
import multiprocessing, os
from multiprocessing import shared_memory
m = shared_memory.SharedMemory(create=True, size=1 << 20)
m.buf[0] = 7
lock, n = multiprocessing.Lock(), multiprocessing.Value("i", 0)
def work():
    for _ in range(100):
        with lock: n.value += 1
all = [multiprocessing.Process(target=work) for _ in range(4)]
for p in all: p.start()
for p in all: p.join()
assert n.value == 400 and os.path.exists("/dev/shm/" + m.name.lstrip("/"))
m.close(); m.unlink()`)},
	{ID: "memory.sysv", Does: "System V shared memory, semaphores and queues", Script: `
		id=$(ipcmk -M 65536 | tr -dc 0-9); ipcrm -m $id
		id=$(ipcmk -S 3 | tr -dc 0-9); ipcrm -s $id
		id=$(ipcmk -Q | tr -dc 0-9); ipcrm -q $id`},
	{ID: "memory.mmap", Does: "shared and private mappings of files, mprotect with PROT_EXEC (JIT compilers), madvise, mlock of a little", Script: python(`
import ctypes, mmap, os
f = open("f", "w+b"); f.truncate(1 << 20)
a, b = mmap.mmap(f.fileno(), 0), mmap.mmap(f.fileno(), 0)
a[5] = 9
assert b[5] == 9
a.madvise(mmap.MADV_DONTNEED)
a.flush()
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
c = ctypes.CDLL(None)
at = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(code)))
assert c.mprotect(at, 4096, 5) == 0 and c.mlock(at, 4096) == 0`)},
	{ID: "memory.memfd", Does: "memfds with seals", Script: python(`
import fcntl, os
fd = os.memfd_create("x", os.MFD_ALLOW_SEALING)
os.write(fd, b"text")
fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
try: os.write(fd, b"more"); raise SystemExit("it is not sealed")
except PermissionError: pass`)},
	{ID: "memory.peer", Does: "reading and writing the memory of one's own processes", Script: python(`
import ctypes, os
c = ctypes.CDLL(None, use_errno=True)
class iovec(ctypes.Structure): _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]
here, there = ctypes.create_string_buffer(b"other", 8), ctypes.create_string_buffer(b"mine", 8)
r, w = os.pipe()
pid = os.fork()
if pid == 0: os.read(r, 1); os._exit(0)
got = c.process_vm_readv(pid, ctypes.byref(iovec(ctypes.addressof(here), 8)), 1, ctypes.byref(iovec(ctypes.addressof(there), 8)), 1, 0)
assert got == 8 and here.value == b"mine", ctypes.get_errno()
os.write(w, b"x"); os.wait()`)},
	{ID: "memory.futex", Does: "robust futexes, membarrier, restartable sequences", Script: python(`
import ctypes
c = ctypes.CDLL(None, use_errno=True)
assert c.syscall(324, 0, 0, 0) > 0 # membarrier: query
head, size = ctypes.c_void_p(), ctypes.c_size_t()
assert c.syscall(274, 0, ctypes.byref(head), ctypes.byref(size)) == 0 # get_robust_list
assert c.syscall(334, 0, 0, 0, 0) == -1 and ctypes.get_errno() != 38 # rseq is there, and wants arguments`)},
	{ID: "memory.keys", Does: "kernel keyrings", Never: "keyrings are not all of one container", Script: python(`
import ctypes
assert ctypes.CDLL(None).syscall(250, 0, -4, 1) >= 0 # keyctl`)},
}
