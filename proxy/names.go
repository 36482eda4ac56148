package proxy

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"sync"

	"cofferdam.dev/cofferdam/proxy/policy"
)

// errNamesFull is returned when no further name gets an address.
var errNamesFull = errors.New("too many names")

// maxNames bounds the names of one sandbox, and so the file and the maps.
const maxNames = 1 << 16

// names maps host names to synthetic addresses, one for one. A mapping is never
// changed or dropped, because clients keep addresses for as long as they run. It
// is written to the names file before the address is given out, one line
// "address name" each, so that it outlives the process.
type names struct {
	pool netip.Prefix
	most int // names

	mu     sync.RWMutex // guards the rest
	file   *os.File
	broken error // a failed write; final, since the file's last line may be torn
	byName map[policy.Name]netip.Addr
	byAddr map[netip.Addr]policy.Name
	last   netip.Addr
}

// torn ends a line whose writer was killed within it. No name has such a byte.
const torn = "!"

// openNames restores the mappings of a file that is opened for reading and
// appending. A torn last line is ended with a mark, since a confined process
// cannot cut it off, and passed over from then on: its address was not given
// out. Anything else that is not a mapping is an error.
func openNames(file *os.File, pool netip.Prefix) (*names, error) {
	if !pool.IsValid() || !pool.Addr().Is4() || pool.Bits() > 24 {
		return nil, fmt.Errorf("pool %v is not an IPv4 prefix of at most 24 bits", pool)
	}
	pool = pool.Masked()
	n := &names{
		pool: pool, most: maxNames, file: file, last: pool.Addr(),
		byName: make(map[policy.Name]netip.Addr), byAddr: make(map[netip.Addr]policy.Name),
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("names file: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(file, maxNames*300))
	if err != nil {
		return nil, fmt.Errorf("names file: %w", err)
	}
	if len(data) > 0 && data[len(data)-1] != '\n' {
		if _, err := file.WriteString(torn + "\n"); err != nil {
			return nil, fmt.Errorf("names file: end torn line: %w", err)
		}
		data = append(data, torn+"\n"...)
	}
	number := 0
	for line := range strings.Lines(string(data)) {
		number++
		if strings.HasSuffix(line, torn+"\n") {
			continue
		}
		if err := n.restore(strings.TrimSuffix(line, "\n")); err != nil {
			return nil, fmt.Errorf("names file: line %d: %w", number, err)
		}
	}
	return n, nil
}

func (n *names) restore(line string) error {
	addrText, nameText, _ := strings.Cut(line, " ")
	addr, err := netip.ParseAddr(addrText)
	if err != nil {
		return fmt.Errorf("%q is not a mapping", line)
	}
	name, err := policy.ParseWireName(nameText)
	if err != nil || name.String() != nameText {
		return fmt.Errorf("%q is not a mapping", line)
	}
	_, nameTaken := n.byName[name]
	_, addrTaken := n.byAddr[addr]
	switch {
	case !n.pool.Contains(addr):
		return fmt.Errorf("%s is not in %s", addr, n.pool)
	case nameTaken || addrTaken:
		return fmt.Errorf("%q is mapped twice", line)
	}
	n.byName[name], n.byAddr[addr] = addr, name
	if n.last.Less(addr) {
		n.last = addr
	}
	return nil
}

// contains reports whether the address is one of the pool, given out or not.
func (n *names) contains(addr netip.Addr) bool { return n.pool.Contains(addr) }

// name returns the name that the address stands for, or the zero Name.
func (n *names) name(addr netip.Addr) policy.Name {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.byAddr[addr]
}

// address returns the address that stands for the name, a new one if need be.
func (n *names) address(name policy.Name) (netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if addr, ok := n.byName[name]; ok {
		return addr, nil
	}
	if n.broken != nil {
		return netip.Addr{}, n.broken
	}
	addr := n.next()
	if !n.pool.Contains(addr) || len(n.byName) >= n.most {
		return netip.Addr{}, errNamesFull
	}
	if _, err := fmt.Fprintf(n.file, "%s %s\n", addr, name); err != nil {
		n.broken = fmt.Errorf("names file: %w", err)
		return netip.Addr{}, n.broken
	}
	n.byName[name], n.byAddr[addr], n.last = addr, name, addr
	return addr, nil
}

// count is the number of names that have an address.
func (n *names) count() int {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return len(n.byName)
}

// next is the address after the last one. Those that end in 0 or 255 look like
// networks and broadcasts to some programs, and are left out.
func (n *names) next() netip.Addr {
	addr := n.last.Next()
	for addr.IsValid() {
		if last := addr.As4()[3]; last != 0 && last != 255 {
			break
		}
		addr = addr.Next()
	}
	return addr
}
