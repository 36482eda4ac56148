package runner

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"cofferdam.dev/cofferdam/spec"
)

// unused are the fields of a rewritten spec that no part of the runner's description shows, each with the reason.
var unused = map[string]string{
	"ociVersion":                      "says which fields there may be",
	"process.terminal":                "the caller's streams say whether there is one",
	"process.consoleSize":             "the caller's terminal has one",
	"mounts.type":                     "a bind is known by its options",
	"linux.seccomp.syscalls.names":    "names that this architecture does not know are left out; see package seccomp",
	"linux.seccomp.syscalls.errnoRet": "likewise, of the rule for socketcall",
}

// TestEveryFieldIsCarriedOut changes each value of a spec that the rules leave as it is, one at a time: what comes of it must change too, or be refused. libcontainer
// takes some of a process from its configuration and some from who starts it, and says nothing of what it does not look at.
func TestEveryFieldIsCarriedOut(t *testing.T) {
	s := fullSpec(t)
	base := described(t, s)
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var tree any
	if err := json.Unmarshal(text, &tree); err != nil {
		t.Fatal(err)
	}
	changed := 0
	used := map[string]bool{}
	eachLeaf(tree, "", func(path string, undo func()) {
		defer undo()
		text, err := json.Marshal(tree)
		if err != nil {
			t.Fatal(err)
		}
		var s specs.Spec
		if err := json.Unmarshal(text, &s); err != nil {
			return // no such spec
		}
		changed++
		got, err := tryDescribe(&s)
		if err != nil || got != base {
			return
		}
		for prefix := range unused {
			if path == prefix || strings.HasPrefix(path, prefix+".") {
				used[prefix] = true
				return
			}
		}
		t.Errorf("%s is not carried out", path)
	})
	if changed < 100 {
		t.Errorf("only %d values were changed", changed)
	}
	for prefix := range unused {
		if !used[prefix] {
			t.Errorf("%s is carried out, or not in the spec: it need not be listed", prefix)
		}
	}
}

// fullSpec is a rewritten spec that has what a bundle can bring.
func fullSpec(t *testing.T) *specs.Spec {
	t.Helper()
	program := spec.Program{Args: []string{"sh", "-c", "true"}, Env: []string{"A=b"}, Cwd: "/w", Root: "/srv/root", Home: "/home/u", UID: 1000, GID: 1000}
	s := program.Spec()
	s.Hostname, s.Domainname = "host", "domain"
	s.Process.User.AdditionalGids = []uint32{7}
	s.Process.User.Umask = new(uint32(0o27))
	s.Process.Rlimits = append(s.Process.Rlimits, specs.POSIXRlimit{Type: "RLIMIT_NOFILE", Soft: 10, Hard: 20})
	s.Process.OOMScoreAdj = new(100)
	s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 5}
	s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 5}
	s.Process.Terminal, s.Process.ConsoleSize = true, &specs.Box{Height: 1, Width: 2}
	s.Linux.CgroupsPath = "/cofferdam/x"
	s.Annotations = map[string]string{"org.example.a": "b"}
	out, _, err := spec.Rewrite(s, spec.Sandbox{
		ID: "run:x", Files: []spec.FileRule{{Path: "/w", Source: "/home/u/w", Access: spec.Write}}, Network: spec.Network{Mode: spec.Proxied},
	}, spec.Host{Bundle: "/run/x/bundle", ResolvConf: "/run/x/resolv.conf", Arch: runtime.GOARCH})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func described(t *testing.T, s *specs.Spec) string {
	t.Helper()
	d, err := tryDescribe(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func tryDescribe(s *specs.Spec) (string, error) {
	d, err := describe(s, Request{Name: "x", Args: s.Process.Args})
	if err != nil {
		return "", err
	}
	var b strings.Builder
	dump(&b, reflect.ValueOf(d.config))
	dump(&b, reflect.ValueOf(d.process))
	dump(&b, reflect.ValueOf(d.start))
	return b.String(), nil
}

// dump prints a value with what its pointers lead to, in the order of fields.
func dump(b *strings.Builder, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			b.WriteByte('&')
			dump(b, v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fmt.Fprintf(b, "%s:", v.Type().Field(i).Name)
			dump(b, v.Field(i))
			b.WriteByte(';')
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			dump(b, v.Index(i))
			b.WriteByte(',')
		}
	case reflect.Map:
		var lines []string
		for _, k := range v.MapKeys() {
			var one strings.Builder
			dump(&one, k)
			dump(&one, v.MapIndex(k))
			lines = append(lines, one.String())
		}
		slices.Sort(lines)
		b.WriteString(strings.Join(lines, ","))
	case reflect.Func, reflect.Chan, reflect.UnsafePointer:
	case reflect.String:
		fmt.Fprintf(b, "%q", v.String())
	case reflect.Bool:
		fmt.Fprint(b, v.Bool())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		fmt.Fprint(b, v.Int())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		fmt.Fprint(b, v.Uint())
	default:
		panic(v.Kind())
	}
}

// eachLeaf changes each value of a JSON tree in turn, and calls f with its path and what takes the change back.
func eachLeaf(tree any, path string, f func(path string, undo func())) {
	visit := func(v any, at string, set func(any)) {
		back := func() { set(v) }
		switch v := v.(type) {
		case string:
			set(v + "x")
			f(at, back)
		case float64:
			set(v + 1)
			f(at, back)
		case bool:
			set(!v)
			f(at, back)
		default:
			eachLeaf(v, at, f)
		}
	}
	switch v := tree.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			visit(v[k], strings.TrimPrefix(path+"."+k, "."), func(to any) { v[k] = to })
		}
	case []any:
		for i := range v {
			visit(v[i], path, func(to any) { v[i] = to })
		}
	}
}
