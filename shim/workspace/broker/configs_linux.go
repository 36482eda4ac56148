package broker

import (
	"crypto/sha256"
	"errors"
	"sync"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/shim/workspace/gitconfig"
)

// configs remembers what git configurations were before the agent changed them. A change is judged against that, and not against what the
// agent has made of it: what it added it may change and remove, and what it may not remove it cannot lose in two steps.
type configs struct {
	mu    sync.Mutex
	known map[place]change
	kept  int // bytes
}

type place struct {
	tree *tree
	name string
}

// A change is of a configuration: from what somebody else wrote, or from nothing (nil), to what the agent made of it.
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

// base is what a change at e is judged against. What is there and is not what the agent left was written by somebody else.
func (c *configs) base(e entry) ([]byte, error) {
	now, err := read(e)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	known, ok := c.known[place{e.tree, e.name()}]
	if ok && known.is == sumOf(now) {
		return known.was, nil
	}
	return now, nil
}

// judge judges a text in the place of what is there; nil: that it goes. Once it has happened, the caller calls happened.
func (c *configs) judge(e entry, text []byte) (happened func(), err error) {
	base, err := c.base(e)
	if err != nil {
		return nil, err
	}
	if err := judge(e, base, text); err != nil {
		return nil, err
	}
	return c.remember(place{e.tree, e.name()}, base, text)
}

// judgeMove judges that a configuration goes from one place and begins at another one, where it is the agent's.
func (c *configs) judgeMove(from, to entry) (happened func(), err error) {
	text, err := read(from)
	if err != nil {
		return nil, err
	}
	gone, err := c.judge(from, nil)
	if err != nil {
		return nil, err
	}
	if err := judge(to, nil, text); err != nil {
		return nil, err
	}
	came, err := c.remember(place{to.tree, to.name()}, nil, text)
	if err != nil {
		return nil, err
	}
	return func() { gone(); came() }, nil
}

// remember returns what remembers a change once it has happened.
func (c *configs) remember(p place, was, is []byte) (happened func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.known[p]; !ok && (len(c.known) >= maxChanges || c.kept+len(was) > maxKept) {
		return nil, errors.New("too many git configurations have been changed")
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.known == nil {
			c.known = map[place]change{}
		}
		c.kept -= len(c.known[p].was)
		if delete(c.known, p); was == nil && is == nil {
			return // it came and went
		}
		c.known[p] = change{was, sumOf(is)}
		c.kept += len(was)
	}, nil
}

func judge(e entry, was, is []byte) error {
	dir := e.dir
	if dir == "." { // a bare repository; it is nobody's submodule
		dir = ".git"
	}
	return gitconfig.Judge(was, is, dir)
}
