package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"cofferdam.dev/cofferdam/spec"
)

// The tests below play the container with their own process: /proc/self/root is the host's root, so that a path "in the container" is a
// path of the test's folder.

func TestSourcesAreResolvedOnceAndComparedByInode(t *testing.T) {
	dir := t.TempDir()
	folder, other := filepath.Join(dir, "project"), filepath.Join(dir, "other")
	for _, d := range []string{folder, other} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(folder, link); err != nil {
		t.Fatal(err)
	}
	host := spec.Host{Protected: []string{"/"}}
	s, err := openSources([]spec.FileRule{{Path: folder, Source: link, Access: spec.Write}}, host)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := s.rules[0].Source; got != folder {
		t.Errorf("source %s, want the resolved %s", got, folder)
	}
	written, err := s.verify(os.Getpid())
	if err != nil || len(written) != 1 {
		t.Errorf("nothing changed, yet: %v, %v", written, err)
	}
	for _, f := range written {
		f.Close()
	}
	if err := os.Rename(folder, folder+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(other, folder); err != nil {
		t.Fatal(err)
	}
	var refused *spec.RefusedError
	if _, err := s.verify(os.Getpid()); !errors.As(err, &refused) {
		t.Errorf("the folder was swapped for a link to another, and verify says %v", err)
	}
}

func TestSourcesThatAreRefused(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	keys := filepath.Join(dir, "home", ".ssh")
	if err := os.MkdirAll(keys, 0o700); err != nil {
		t.Fatal(err)
	}
	sneaky := filepath.Join(dir, "sneaky")
	if err := os.Symlink(keys, sneaky); err != nil {
		t.Fatal(err)
	}
	host := spec.Host{Protected: []string{"/", filepath.Join(dir, "home")}, Trees: []string{keys}}
	for name, source := range map[string]string{
		"a file":                         file,
		"a home":                         filepath.Join(dir, "home"),
		"what contains a home":           dir,
		"a folder of keys":               keys,
		"a link to a folder of keys":     sneaky,
		"a folder that does not exist":   filepath.Join(dir, "none"),
		"the root folder":                "/",
		"the root folder by another way": "/proc/self/root",
	} {
		t.Run(name, func(t *testing.T) {
			if s, err := openSources([]spec.FileRule{{Path: "/workspace", Source: source, Access: spec.Write}}, host); err == nil {
				s.Close()
				t.Errorf("%s: accepted", source)
			}
		})
	}
}
