package policy

import (
	"hash/maphash"
	"slices"
)

// index finds the rules of a pattern by its key. It is a hash table with open
// addressing and linear probing instead of a map, because in a large policy a
// lookup takes as long as its cache misses: here a key that is absent costs one,
// and one that is present two, the slot, and then key and rule side by side.
type index struct {
	seed  maphash.Seed
	slots []slot // a power of two of them, at most half of them used
}

type slot struct {
	key   string
	first *Rule // of the chain of rules with that key; nil if the slot is free
	tag   uint64
}

// key is the name of an exact pattern, and the base of a wildcard with the dot
// before it: what ends in that is below the base.
func (p Pattern) key() string {
	if p.Wildcard {
		return "." + p.Base.s
	}
	return p.Base.s
}

// newIndex chains the rules by pattern, in their order.
func newIndex(rules []*Rule) index {
	size := 2
	for size < 2*len(rules) {
		size *= 2
	}
	x := index{maphash.MakeSeed(), make([]slot, size)}
	for _, r := range slices.Backward(rules) { // each goes to the front of its chain
		key := r.Pattern.key()
		s := x.slot(key)
		if s.first == nil {
			s.key, s.tag = key, maphash.String(x.seed, key)
		}
		r.next, s.first = s.first, r
	}
	return x
}

// find returns the first rule of the key's chain, nil if there is none.
func (x *index) find(key string) *Rule { return x.slot(key).first }

// slot returns the slot of the key, or the free one where it belongs.
func (x *index) slot(key string) *slot {
	tag := maphash.String(x.seed, key)
	for i := tag; ; i++ {
		s := &x.slots[i&uint64(len(x.slots)-1)]
		if s.first == nil || s.tag == tag && s.key == key {
			return s
		}
	}
}
