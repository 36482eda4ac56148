package userns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"cofferdam.dev/cofferdam/shim/runner/pid1"
)

// IDs are ids beside the caller's own that the caller's user namespaces may have, as users and as groups (subuid(5), subgid(5)). Within
// them they have the same numbers as outside.
type IDs struct {
	Ranges []pid1.Range
	// Folder has newuidmap(1) and newgidmap(1), which give them out.
	Folder string
}

// helperFolders are where a system keeps programs that are set-user-ID. PATH does not count: see gitPrograms of the command line.
var helperFolders = []string{"/usr/bin", "/usr/local/bin", "/run/wrappers/bin"}

// The most that is taken of what the caller has: ids as those of any image, and ranges as a command line can name.
const (
	maxIDs    = 1 << 16
	maxRanges = 16
)

// NoIDsError says why there are no further ids, and what a person can do about it.
type NoIDsError struct{ Reason, Mend string }

func (e *NoIDsError) Error() string { return e.Reason }

// FindIDs looks for the caller's subordinate ids. The error is a *[NoIDsError] where a host has none for it.
func FindIDs(name string, uid uint32) (IDs, error) {
	i := slices.IndexFunc(helperFolders, func(dir string) bool {
		for _, program := range []string{"newuidmap", "newgidmap"} {
			if _, err := os.Stat(filepath.Join(dir, program)); err != nil {
				return false
			}
		}
		return true
	})
	if i < 0 {
		return IDs{}, &NoIDsError{"newuidmap and newgidmap are not there", "apt-get install uidmap"}
	}
	var both [2][]pid1.Range
	for k, file := range []string{"/etc/subuid", "/etc/subgid"} {
		text, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return IDs{}, err
		}
		if both[k], err = parseRanges(string(text), name, uid); err != nil {
			return IDs{}, fmt.Errorf("%s: %w", file, err)
		}
	}
	ranges := intersect(both[0], both[1])
	if len(ranges) == 0 {
		return IDs{}, &NoIDsError{
			fmt.Sprintf("/etc/subuid and /etc/subgid have no ids for %s that are the same", name),
			fmt.Sprintf("usermod --add-subuids 100000-165535 --add-subgids 100000-165535 %s, or other ids that nobody has", name),
		}
	}
	return IDs{bounded(ranges), helperFolders[i]}, nil
}

// parseRanges reads the lines NAME:FIRST:COUNT of one person, who stands there by name or number.
func parseRanges(text, name string, uid uint32) ([]pid1.Range, error) {
	var all []pid1.Range
	for line := range strings.Lines(text) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if len(fields) != 3 || fields[0] != name && fields[0] != strconv.FormatUint(uint64(uid), 10) {
			continue
		}
		first, err := strconv.ParseUint(fields[1], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%s: %q is not an id", name, fields[1])
		}
		count, err := strconv.ParseUint(fields[2], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%s: %q is not a number of ids", name, fields[2])
		}
		// 0 is nobody's to give, and the last number stands for none.
		if first == 0 || first+count > 1<<32-1 {
			return nil, fmt.Errorf("%s: %d ids from %d on are not there", name, count, first)
		}
		if count > 0 {
			all = append(all, pid1.Range{First: uint32(first), Count: uint32(count)})
		}
	}
	return all, nil
}

// intersect returns what is in a range of both, in order and without overlap.
func intersect(a, b []pid1.Range) []pid1.Range {
	var all []pid1.Range
	for _, x := range a {
		for _, y := range b {
			first, end := max(x.First, y.First), min(x.First+x.Count, y.First+y.Count)
			if first < end {
				all = append(all, pid1.Range{First: first, Count: end - first})
			}
		}
	}
	slices.SortFunc(all, func(x, y pid1.Range) int { return int(int64(x.First) - int64(y.First)) })
	var out []pid1.Range
	for _, r := range all {
		if n := len(out); n > 0 && r.First < out[n-1].First+out[n-1].Count {
			end := max(out[n-1].First+out[n-1].Count, r.First+r.Count)
			out[n-1].Count = end - out[n-1].First
			continue
		}
		out = append(out, r)
	}
	return out
}

func bounded(ranges []pid1.Range) []pid1.Range {
	left := uint32(maxIDs)
	var out []pid1.Range
	for _, r := range ranges[:min(len(ranges), maxRanges)] {
		if r.Count = min(r.Count, left); r.Count > 0 {
			out, left = append(out, r), left-r.Count
		}
	}
	return out
}

// Reserve takes the last id out, for somebody who shares it with no one.
func (ids IDs) Reserve() (id uint32, others []pid1.Range) {
	others = slices.Clone(ids.Ranges)
	n := len(others)
	others[n-1].Count--
	id = others[n-1].First + others[n-1].Count
	if others[n-1].Count == 0 {
		others = others[:n-1]
	}
	return id, others
}

// text is what the constructor takes: the helpers' folder, whether setgroups(2) stays, and the lines of a map.
func (ids IDs) text(groups bool) string {
	words := []string{ids.Folder, "deny"}
	if groups {
		words[1] = "allow"
	}
	for _, r := range ids.Ranges {
		words = append(words, fmt.Sprintf("%d %d %d", r.First, r.First, r.Count))
	}
	return strings.Join(words, " ")
}
