package hometool

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Found is what there is of a tool.
type Found struct {
	// Files are folders and regular files to be shown, each at its own place. None lies in another.
	Files []string
	// Path are the folders that belong into PATH, before what it has.
	Path []string
	// Env are KEY=VALUE.
	Env []string
	// Out says what was left out since it leads out of the tool's folders.
	Out []string
}

// A Home is whose tools are looked for.
type Home struct {
	Folder string
	// Getenv returns what the caller has set.
	Getenv func(key string) string
}

// ErrNone says that there is nothing of a tool.
var ErrNone = errors.New("nothing is there")

// patterns are those of the list, if there is one.
func (p Part) patterns() []string {
	before, list, is := strings.Cut(strings.TrimSuffix(p.Pattern, "}"), "{")
	if !is {
		return []string{p.Pattern}
	}
	var all []string
	for name := range strings.SplitSeq(list, ",") {
		all = append(all, before+name)
	}
	return all
}

// folder is where the place is, or "".
func (h Home) folder(p Place) string {
	if p.Variable != "" {
		if dir := h.Getenv(p.Variable); filepath.IsAbs(dir) {
			return filepath.Clean(dir)
		}
	}
	if p.Folder == "" {
		return ""
	}
	return filepath.Join(h.Folder, p.Folder)
}

// Folders are where the tool is looked for.
func (h Home) Folders(t Tool) []string {
	var all []string
	for _, p := range t.Places {
		if dir := h.folder(p); dir != "" {
			all = append(all, dir)
		}
	}
	return all
}

// Find looks for what is listed of a tool. The error wraps ErrNone if there is nothing.
func (h Home) Find(t Tool) (Found, error) {
	var roots []string // where the tool's folders really are
	for _, dir := range h.Folders(t) {
		real, err := filepath.EvalSymlinks(dir)
		if absent(err) {
			continue
		}
		if err != nil {
			return Found{}, err
		}
		if home, err := filepath.EvalSymlinks(h.Folder); err == nil && within(home, real) {
			return Found{}, fmt.Errorf("%s is or holds the home", dir) // no link in there would lead out of it
		}
		roots = append(roots, real)
	}
	var f Found
	own := false // there is something that is no other tool's
	for _, p := range t.Places {
		dir := h.folder(p)
		if dir == "" {
			continue
		}
		had := len(f.Files)
		for _, part := range p.Parts {
			for _, pattern := range part.patterns() {
				if err := f.add(dir, pattern, roots); err != nil {
					return Found{}, err
				}
			}
		}
		own = own || !p.Shared && len(f.Files) > had
	}
	if !own {
		looked := strings.Join(append([]string{"looked in " + strings.Join(h.Folders(t), ", ")}, f.Out...), "; ")
		return Found{}, fmt.Errorf("%w: %s", ErrNone, looked)
	}
	f.Files = slices.DeleteFunc(f.Files, func(at string) bool {
		return slices.ContainsFunc(f.Files, func(other string) bool { return at != other && within(at, other) })
	})
	slices.Sort(f.Files)
	f.Files = slices.Compact(f.Files)
	for _, p := range t.Places {
		if err := f.settle(h, p); err != nil {
			return Found{}, err
		}
	}
	return f, nil
}

// add adds what a pattern matches.
func (f *Found) add(dir, pattern string, roots []string) error {
	names, err := fs.Glob(os.DirFS(dir), pattern)
	if err != nil {
		return fmt.Errorf("look for %s in %s: %w", pattern, dir, err)
	}
	for _, name := range names {
		at := filepath.Join(dir, name)
		real, err := filepath.EvalSymlinks(at)
		if absent(err) { // a link to nowhere
			continue
		}
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(roots, func(root string) bool { return within(real, root) }) {
			f.Out = append(f.Out, at+" leads to "+real)
			continue
		}
		st, err := os.Stat(real)
		if err != nil {
			return err
		}
		if st.IsDir() || st.Mode().IsRegular() {
			f.Files = append(f.Files, at)
		}
	}
	return nil
}

// settle sets PATH and other variables as the place needs them.
func (f *Found) settle(h Home, p Place) error {
	dir := h.folder(p)
	if dir == "" || !slices.ContainsFunc(f.Files, func(at string) bool { return within(at, dir) }) {
		return nil
	}
	if p.Told {
		f.Env = append(f.Env, p.Variable+"="+dir)
	}
	for _, key := range slices.Sorted(maps.Keys(p.Variables)) {
		if at := filepath.Join(dir, p.Variables[key]); slices.ContainsFunc(f.Files, func(file string) bool { return within(file, at) }) {
			f.Env = append(f.Env, key+"="+at)
		}
	}
	for _, pattern := range p.Path {
		names, err := fs.Glob(os.DirFS(dir), pattern)
		if err != nil {
			return fmt.Errorf("look for %s in %s: %w", pattern, dir, err)
		}
		for _, name := range names {
			f.addPath(filepath.Join(dir, name))
		}
	}
	if p.Versions == "" {
		return nil
	}
	names, err := fs.Glob(os.DirFS(dir), p.Versions)
	if err != nil {
		return fmt.Errorf("look for %s in %s: %w", p.Versions, dir, err)
	}
	chosen := filepath.SplitList(h.Getenv("PATH"))
	if !slices.ContainsFunc(names, func(name string) bool { return slices.Contains(chosen, filepath.Join(dir, name)) }) {
		if name := choose(names, alias(filepath.Join(dir, p.Aliases), "default")); name != "" {
			f.addPath(filepath.Join(dir, name))
		}
	}
	return nil
}

// addPath adds a folder to PATH, if something of it is shown.
func (f *Found) addPath(dir string) {
	if slices.ContainsFunc(f.Files, func(at string) bool { return within(dir, at) || filepath.Dir(at) == dir }) && !slices.Contains(f.Path, dir) {
		f.Path = append(f.Path, dir)
	}
}

// alias follows a name through a folder of files that each hold another name, or a version.
func alias(dir, name string) string {
	for range 8 { // nvm's own are two deep
		if !filepath.IsLocal(name) {
			return ""
		}
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return name
		}
		name, _, _ = strings.Cut(strings.TrimSpace(string(text)), "\n")
	}
	return ""
}

// choose returns the newest of the folders ".../VERSION/bin" whose version is the wanted one or begins with it, or the newest of all.
func choose(names []string, want string) string {
	version := func(name string) string { return strings.TrimPrefix(path.Base(path.Dir(name)), "v") }
	newest := func(names []string) string {
		if len(names) == 0 {
			return ""
		}
		return slices.MaxFunc(names, func(a, b string) int { return compareVersions(version(a), version(b)) })
	}
	want = strings.TrimPrefix(want, "v")
	var fit []string
	for _, name := range names {
		if v := version(name); v == want || strings.HasPrefix(v, want+".") {
			fit = append(fit, name)
		}
	}
	return cmp.Or(newest(fit), newest(names))
}

// compareVersions compares numbers between dots.
func compareVersions(a, b string) int {
	numbers := func(v string) []int {
		var all []int
		for field := range strings.SplitSeq(v, ".") {
			n, _ := strconv.Atoi(field) // what is none counts as the oldest
			all = append(all, n)
		}
		return all
	}
	return slices.Compare(numbers(a), numbers(b))
}

func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) }

func within(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }
