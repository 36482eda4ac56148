package broker

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"sync"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/shim/workspace"
	"cofferdam.dev/cofferdam/shim/workspace/gitconfig"
)

// texts remembers what the texts that git obeys were before the agent changed them. A change is judged against that, and not against what the
// agent has made of it: what it added it may change and remove, and what it may not remove it cannot lose in two steps.
type texts struct {
	mu    sync.Mutex
	known map[place]change
	kept  int // bytes
}

type place struct {
	tree *tree
	name string
}

// A change is of one text: from what somebody else wrote, or from nothing (nil), to what the agent made of it.
type change struct {
	was []byte
	is  sum
}

// A sum is that of a text; there is none of nil: it was removed.
type sum struct {
	exists bool
	of     [sha256.Size]byte
}

func sumOf(text []byte) sum {
	if text == nil {
		return sum{}
	}
	return sum{true, sha256.Sum256(text)}
}

// Bounds of what is remembered. What would go beyond is refused: it would be judged, the next time, against what the agent has made.
const (
	maxChanges = 4096
	maxKept    = 32 << 20 // bytes of texts
)

// base is what a change at e, where there is now this text, is judged against. What is there and is not what the agent left was written by somebody else.
func (t *texts) base(e entry, now []byte) []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	known, ok := t.known[place{e.tree, e.name()}]
	if ok && known.is == sumOf(now) {
		return known.was
	}
	return now
}

// judge judges a text in the place of what is there; nil: that it goes. Once it has happened, the caller calls happened.
func (t *texts) judge(e entry, text []byte) (happened func(), err error) {
	now, err := read(e)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, err
	}
	return t.judgeHere(e, now, text)
}

// judgeHere is judge where now is there.
func (t *texts) judgeHere(e entry, now, text []byte) (happened func(), err error) {
	base := t.base(e, now)
	if err := judge(e, base, text); err != nil {
		return nil, err
	}
	return t.remember(place{e.tree, e.name()}, base, text)
}

// judgeMove judges that a text goes from one place and begins at another one, where it is the agent's.
func (t *texts) judgeMove(from, to entry) (happened func(), err error) {
	text, err := read(from)
	if err != nil {
		return nil, err
	}
	gone, err := t.judge(from, nil)
	if err != nil {
		return nil, err
	}
	if err := judge(to, nil, text); err != nil {
		return nil, err
	}
	came, err := t.remember(place{to.tree, to.name()}, nil, text)
	if err != nil {
		return nil, err
	}
	return func() { gone(); came() }, nil
}

// remember returns what remembers a change once it has happened.
func (t *texts) remember(p place, was, is []byte) (happened func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.known[p]; !ok && (len(t.known) >= maxChanges || t.kept+len(was) > maxKept) {
		return nil, errors.New("too many files of git's have been changed")
	}
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.known == nil {
			t.known = map[place]change{}
		}
		t.kept -= len(t.known[p].was)
		if delete(t.known, p); was == nil && is == nil {
			return // it came and went
		}
		t.known[p] = change{was, sumOf(is)}
		t.kept += len(was)
	}, nil
}

// judge judges a text in the place of another one; nil: of none, or that it goes.
func judge(e entry, was, is []byte) error {
	switch {
	case workspace.SameName(e.base, "config"), workspace.SameName(e.base, "config.worktree"):
		dir := e.dir
		if dir == "." { // a bare repository; it is nobody's submodule
			dir = ".git"
		}
		return gitconfig.Judge(was, is, dir)
	default:
		if is == nil || was != nil && bytes.Equal(was, is) {
			return nil
		}
		if workspace.SameName(e.base, "commondir") && e.has(e.dir, "config") {
			return errors.New("git would not read the configuration beside it any more")
		}
		return workspace.JudgeLink(e.name(), string(is), e.at)
	}
}
