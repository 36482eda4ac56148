package broker

import (
	"bytes"
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
}

type place struct {
	tree *tree
	name string
}

// A change is of a configuration: from what somebody else wrote, or from nothing (nil), to what the agent made of it (nil: it was removed).
type change struct{ was, is []byte }

// Bounds of what is remembered. What is not is judged against what there is, which allows less.
const (
	maxChanges    = 256
	maxRemembered = 128 << 10 // bytes of one change's texts
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
	if ok && (known.is == nil) == errors.Is(err, unix.ENOENT) && bytes.Equal(known.is, now) {
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
	return func() { c.remember(place{e.tree, e.name()}, change{base, text}) }, nil
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
	return func() { gone(); c.remember(place{to.tree, to.name()}, change{nil, text}) }, nil
}

func (c *configs) remember(p place, ch change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil {
		c.known = map[place]change{}
	}
	_, has := c.known[p]
	switch {
	case len(ch.was)+len(ch.is) > maxRemembered:
		delete(c.known, p)
	case has || len(c.known) < maxChanges:
		c.known[p] = ch
	}
}

func judge(e entry, was, is []byte) error {
	dir := e.dir
	if dir == "." { // a bare repository; it is nobody's submodule
		dir = ".git"
	}
	return gitconfig.Judge(was, is, dir)
}
