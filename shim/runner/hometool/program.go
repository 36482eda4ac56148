package hometool

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Program looks for one program by its name, in those folders of PATH that lie in the home. It must be a program of one file: of what is
// part of something larger, the rest would be missing. The error wraps ErrNone if there is no such program.
func (h Home) Program(name string) (Found, error) {
	if name == "" || name == "." || name == ".." || strings.ContainsRune(name, '/') {
		return Found{}, fmt.Errorf("%q is no name of a tool; --read shows a path", name)
	}
	for _, dir := range filepath.SplitList(h.Getenv("PATH")) {
		dir = filepath.Clean(dir)
		if !within(dir, h.Folder) || dir == h.Folder {
			continue
		}
		at := filepath.Join(dir, name)
		real, err := filepath.EvalSymlinks(at)
		if absent(err) {
			continue
		}
		if err != nil {
			return Found{}, err
		}
		st, err := os.Stat(real)
		if err != nil {
			return Found{}, err
		}
		if !st.Mode().IsRegular() || st.Mode().Perm()&0o111 == 0 {
			continue // as shells do
		}
		by, err := interpreter(real)
		if err != nil {
			return Found{}, err
		}
		if by != "" && (real != at || within(by, h.Folder)) {
			return Found{}, fmt.Errorf("%s is a script for %s and part of something larger: ask for that", real, by)
		}
		return Found{Files: []string{at}}, nil
	}
	return Found{}, fmt.Errorf("%w: no known tool, and no program in a folder of PATH below %s", ErrNone, h.Folder)
}

// interpreter is what a script says that it is run by (execve(2)), or "".
func interpreter(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	line, err := bufio.NewReader(io.LimitReader(f, 256)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	rest, is := strings.CutPrefix(line, "#!")
	words := strings.Fields(rest)
	if !is || len(words) == 0 {
		return "", nil
	}
	return words[0], nil
}
