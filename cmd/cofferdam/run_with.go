//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"cofferdam.dev/cofferdam/proxy/policy"
	"cofferdam.dev/cofferdam/shim/runner"
	"cofferdam.dev/cofferdam/shim/runner/hometool"
	"cofferdam.dev/cofferdam/spec"
)

// homeTool is what --with names, and what there is of it.
type homeTool struct {
	name  string
	found hometool.Found
}

// tools finds what --with names, and adds it to what may be read.
func (f *runFlags) tools(r *runner.Request) (tools []homeTool, err error) {
	if len(f.with) > 0 && (f.rootfs != "" || f.bundle != "") {
		return nil, errors.New("--with: a root file system has tools of its own")
	}
	h := hometool.Home{Folder: r.Home, Getenv: os.Getenv}
	for _, name := range f.with {
		t := homeTool{name: name}
		if i := slices.IndexFunc(hometool.BuiltIn(), func(t hometool.Tool) bool { return t.Name == name }); i >= 0 {
			t.found, err = h.Find(hometool.BuiltIn()[i])
		} else {
			t.found, err = h.Program(name)
		}
		if errors.Is(err, hometool.ErrNone) {
			err = fmt.Errorf("%w; %s", err, inventory(h))
		}
		if err != nil {
			return nil, fmt.Errorf("--with %s: %w", name, err)
		}
		for _, at := range t.found.Files {
			if err := addTool(r, at); err != nil {
				return nil, fmt.Errorf("--with %s: %w", name, err)
			}
		}
		tools = append(tools, t)
	}
	return tools, nil
}

// addTool adds a part of a tool. The workspace may neither hold it, which could change it then, nor lie in it.
func addTool(r *runner.Request, at string) error {
	source, err := realPath(at, "")
	if err != nil {
		return err
	}
	overlap := func(a, b string) bool { return (policy.File{Path: a}).Holds(b) || (policy.File{Path: b}).Holds(a) }
	if w := r.Files[0]; overlap(at, w.Path) || overlap(source, w.Source) {
		return fmt.Errorf("%s and the workspace %s hold one another", at, w.Path)
	}
	rule := spec.FileRule{Path: at, Source: source, Access: spec.Read}
	if makeRoomFor(r, rule) {
		r.Files = append(r.Files, rule)
	}
	return nil
}

// bound holds a tool to what the administrator's policy lets flags name.
func (t homeTool) bound(p *policy.Policy) error {
	for _, at := range t.found.Files {
		if err := withinCeiling(at, p); err != nil {
			return fmt.Errorf("--with %s: %w", t.name, err)
		}
	}
	return nil
}

// inventory says what there is in a home.
func inventory(h hometool.Home) string {
	var here, not []string
	for _, t := range hometool.BuiltIn() {
		if _, err := h.Find(t); err == nil {
			here = append(here, t.Name)
		} else {
			not = append(not, t.Name)
		}
	}
	if len(here) == 0 {
		here = []string{"none"}
	}
	return fmt.Sprintf("here are %s; known, but not here: %s", strings.Join(here, ", "), strings.Join(not, ", "))
}

// addTo adds the tool's variables, and puts its folders before what PATH has, unless it has them.
func (t homeTool) addTo(env []string) []string {
	for _, e := range t.found.Env {
		env = setVariable(env, e)
	}
	path := defaultPath
	for _, e := range env {
		if value, ok := strings.CutPrefix(e, "PATH="); ok {
			path = value
		}
	}
	had := filepath.SplitList(path)
	more := slices.DeleteFunc(slices.Clone(t.found.Path), func(dir string) bool { return slices.Contains(had, dir) })
	if len(more) == 0 {
		return env
	}
	return setVariable(env, "PATH="+strings.Join(append(more, had...), string(filepath.ListSeparator)))
}

// defaultPath stands for a PATH that is not set.
const defaultPath = "/usr/local/bin:/usr/bin:/bin"
