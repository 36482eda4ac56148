package broker

import (
	"errors"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/shim/workspace"
)

// drafts are texts that decide about themselves ([workspace.Kind.IsText]) while they are being written. The writer has a memory file; once nobody
// has that open for writing any more, its text is judged, and takes its place or does not. So what lies there was judged as it lies there.
//
// No call tells that a file was closed. A draft is looked at with each call that is asked about, a moment later, and when somebody opens the file
// itself: there is a lease on that, so that who reads what was just written waits until it is there. Who opens the file before that is given it at once, as
// it is: then there is no lease until he has closed it, and a moment more. Where there is none to be had, as on some network file systems, the
// moment is all.
type drafts struct {
	n        atomic.Int32 // those that are not settled
	watched  atomic.Bool  // somebody looks again and again
	yielded  atomic.Bool  // a lease was given back since then
	settling sync.Mutex   // held from the look at a draft to its end

	mu   sync.Mutex // guards open
	open map[inode]*draft
}

// A draft is of the file that has the key's inode, and is empty until then if it was made for the draft.
type draft struct {
	entry             // with a descriptor of its own
	file  *os.File    // of the memory, for reading
	place *os.File    // itself, which nobody else has open while it is leased
	began unix.Stat_t // of the memory file
	who   credentials
	made  bool

	leased bool // to open the place is to wait for us; guarded by drafts.mu
}

// maxDrafts bounds those that are open at a time.
const maxDrafts = 64

// draft hands out a draft of the file at the entry, which is open as place, with this mode and text to begin with. The names are held.
func (r *request) draft(e entry, place int, mode uint32, text []byte, flags int, made bool) outcome {
	var st unix.Stat_t
	if err := unix.Fstat(place, &st); err != nil {
		return failed(err)
	}
	d := &r.drafts
	d.mu.Lock()
	defer d.mu.Unlock()
	key := inodeOf(st)
	if there, ok := d.open[key]; ok {
		return r.hand(int(there.file.Fd()), flags)
	}
	if len(d.open) == maxDrafts {
		return outcome{errno: unix.ENFILE}
	}
	memory, err := unix.MemfdCreate("draft", unix.MFD_CLOEXEC)
	if err != nil {
		return failed(err)
	}
	defer unix.Close(memory)
	if _, err := unix.Pwrite(memory, text, 0); err != nil {
		return failed(err)
	}
	out := r.hand(memory, flags) // while its mode lets everybody in
	if out.errno != 0 {
		return out
	}
	if err := r.keepDraft(key, e, place, memory, mode, made); err != nil {
		out.close()
		return failed(err)
	}
	if d.n.Add(1); d.watched.CompareAndSwap(false, true) {
		go r.watch()
	}
	return out
}

// hand opens a memory file for the caller.
func (r *request) hand(memory, flags int) outcome {
	fd, err := r.openAgain(memory, flags&allowedFlags&^(unix.O_CREAT|unix.O_EXCL|unix.O_DIRECT))
	if err != nil {
		return failed(err)
	}
	return outcome{file: fd, cloexec: flags&unix.O_CLOEXEC != 0}
}

func (r *request) keepDraft(key inode, e entry, place, memory int, mode uint32, made bool) error {
	d := &draft{entry: e, who: r.who, made: made}
	file, err := unix.Openat(r.proc, self(memory), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	d.file = os.NewFile(uintptr(file), e.base)
	if place, err = unix.FcntlInt(uintptr(place), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		d.file.Close()
		return err
	}
	d.place = os.NewFile(uintptr(place), e.base)
	if d.parent, err = unix.FcntlInt(uintptr(e.parent), unix.F_DUPFD_CLOEXEC, 0); err == nil {
		if err = unix.Fchmodat(r.proc, self(memory), mode&fileMode, 0); err == nil {
			err = unix.Fstat(file, &d.began)
		}
	}
	if err != nil {
		d.close()
		return err
	}
	d.lease()
	if r.drafts.open == nil {
		r.drafts.open = map[inode]*draft{}
	}
	r.drafts.open[key] = d
	return nil
}

// self is the name in /proc of a descriptor of this process.
func self(fd int) string { return "self/fd/" + strconv.Itoa(fd) }

func (d *draft) close() {
	d.file.Close()
	d.place.Close()
	unix.Close(d.parent)
}

// lease takes a lease on the place, if nobody else has it open.
func (d *draft) lease() {
	_, err := unix.FcntlInt(d.place.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
	d.leased = err == nil
}

// awaited reports whether somebody waits for the lease.
func (d *draft) awaited() bool {
	held, err := unix.FcntlInt(d.place.Fd(), unix.F_GETLEASE, 0)
	return err != nil || held != unix.F_WRLCK // then it is what the lease is to become (fcntl(2))
}

func (d *draft) yield() {
	_, _ = unix.FcntlInt(d.place.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	d.leased = false
}

// watch settles drafts whose writers make no further call that would.
func (b *broker) watch() {
	for wait := minWatch; ; wait = min(2*wait, maxWatch) {
		if b.drafts.yielded.Swap(false) {
			wait = minWatch
		}
		<-time.After(wait)
		b.settleAll(false)
		if b.drafts.n.Load() > 0 {
			continue
		}
		b.drafts.watched.Store(false)
		if b.drafts.n.Load() == 0 || !b.drafts.watched.CompareAndSwap(false, true) {
			return
		}
	}
}

// A draft that was held open takes effect as late as maxWatch, where nobody waits for it, and of which the lease was just given back, as minWatch.
const (
	minWatch = time.Millisecond
	maxWatch = 50 * time.Millisecond
)

// yield settles drafts when somebody waits for one.
func (b *broker) yield(opened <-chan os.Signal) {
	for range opened {
		b.settleAll(false)
	}
}

// settleAll is settle on a thread of its own.
func (b *broker) settleAll(all bool) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // it ends with its ids
		(&worker{broker: b, as: unknown}).settle(all)
	}()
	<-done
}

// settle has the drafts take effect that nobody writes to any more. For those that are still written to nobody is to wait: who opens such a place gets
// it, and, if all is set, whoever does so next.
func (w *worker) settle(all bool) {
	d := &w.drafts
	if d.n.Load() == 0 {
		return
	}
	d.settling.Lock()
	defer d.settling.Unlock()
	ready := map[inode]*draft{}
	d.mu.Lock()
	for key, draft := range d.open {
		awaited := draft.leased && draft.awaited() // first: who opens it once the writer has ended waits for what that one wrote
		switch {
		case w.finished(draft):
			ready[key] = draft
			delete(d.open, key)
		case awaited, draft.leased && all:
			draft.yield()
			d.yielded.Store(true)
		case !draft.leased && !all:
			draft.lease()
		}
	}
	d.mu.Unlock()
	if len(ready) == 0 {
		return
	}
	release, err := w.names.hold(true)
	defer release()
	for key, draft := range ready {
		if err == nil {
			w.commit(key, draft)
		}
		draft.close()
		d.n.Add(-1)
	}
}

// finished reports whether nobody has the memory file open for writing: only then is there a lease (fcntl(2)), and until the descriptor is closed nobody
// opens it.
func (w *worker) finished(d *draft) bool {
	var st unix.Stat_t
	if unix.Fstat(int(d.file.Fd()), &st) != nil {
		return false
	}
	if !w.oneID {
		owner := d.who // only its owner gets a lease
		owner.uid = int(st.Uid)
		if w.impersonate(owner) != nil {
			return false
		}
	}
	_, err := unix.FcntlInt(d.file.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	return err == nil
}

// commit has a draft take its place, or not. The names are locked.
func (w *worker) commit(key inode, d *draft) {
	if !w.oneID && w.impersonate(d.who) != nil {
		return
	}
	var folder unix.Stat_t
	if unix.Fstat(d.parent, &folder) != nil {
		return
	}
	var err error
	if d.tree, d.dir, err = w.locate(d.parent, folder); err != nil || d.tree == nil {
		return
	}
	st, err := d.stat()
	if err != nil || inodeOf(st) != key { // it was removed, or replaced
		return
	}
	v, happened := d.verdict(d.entry.name()), func() {}
	now, err := readText(d.place)
	var text []byte
	if err == nil {
		text, err = readText(d.file)
	}
	if err == nil {
		switch {
		case v.Kind.IsText():
			happened, err = w.texts.judgeHere(d.entry, now, text)
		case v.Kind != workspace.Free:
			err = errors.New(v.Reason)
		}
	}
	if err == nil {
		if err = replaceText(d.place, text); err != nil {
			_ = replaceText(d.place, now) // a part of a text says something else than the whole
		}
	}
	if err != nil {
		w.refuseText(d.entry, v, err)
		if d.made {
			_ = unix.Unlinkat(d.parent, d.base, 0)
		}
		return
	}
	happened() // before what may fail: the text is there
	w.copyAttributes(d)
	w.report.changed(d.entry.name())
}

// replaceText has a file hold a text.
func replaceText(f *os.File, text []byte) error {
	if _, err := f.WriteAt(text, 0); err != nil {
		return err
	}
	return f.Truncate(int64(len(text)))
}

// copyAttributes gives a text what the memory file has got: owner, mode and times, as far as its writer may.
func (w *worker) copyAttributes(d *draft) {
	var ended unix.Stat_t
	if unix.Fstat(int(d.file.Fd()), &ended) != nil {
		return
	}
	fd := int(d.place.Fd())
	if ended.Uid != d.began.Uid || ended.Gid != d.began.Gid {
		_ = unix.Fchownat(fd, "", int(ended.Uid), int(ended.Gid), unix.AT_EMPTY_PATH)
	}
	if mode := ended.Mode & fileMode; d.made || mode != d.began.Mode&fileMode {
		_ = unix.Fchmodat(w.proc, self(fd), mode, 0)
	}
	_ = unix.UtimesNanoAt(d.parent, d.base, []unix.Timespec{ended.Atim, ended.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}
