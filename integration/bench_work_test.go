//go:build linux

package integration

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// chores are what an agent does all day, as shell commands in a workspace of furnish. What is before one is done outside, and not timed.
var chores = []struct {
	name, before, command string
	rounds                int
}{
	{"git status of 20000 files", "", "git -C repository status --porcelain", 20},
	{"build of 20 C files", "", `for f in source/*.c; do gcc -O1 -c "$f" -o "${f%.c}.o" || exit; done; gcc source/*.o -o source/program`, 8},
	{"walk through 50000 files", "", "! grep -rF no-such-text tree", 8},
	{"git clone of 5000 files", "rm -rf clone", "git clone -q small clone", 5},
	{"tar x of 5000 files", "rm -rf out; mkdir out", "tar xf small.tar -C out", 5},
	{"cp -a of 5000 files", "rm -rf copy", "cp -a small/tree copy", 5},
	{"rm -rf of 5000 files", "rm -rf copy; cp -a small/tree copy", "rm -rf copy", 5},
}

// BenchmarkWork times chores in one sandbox and, in turn, outside of it, as the same person in the same folder. The start of the sandbox is
// not in it: see BenchmarkRun.
func BenchmarkWork(b *testing.B) {
	Require(b, "git", "gcc", needShim)
	for _, one := range people {
		b.Run(one.name, func(b *testing.B) {
			p := newPerson(b, one.name, one.id)
			furnish(b, p)
			loop := []string{"sh", "-c", `while read -r chore; do (eval "$chore") </dev/null >/dev/null && echo done || exit; done`}
			plain := p.command(b, "run")
			plain.Path, plain.Args = "/bin/sh", loop
			outside := worker(b, plain)
			inside := worker(b, p.command(b, append([]string{"run"}, loop...)...))
			for _, chore := range chores {
				b.Run(chore.name, func(b *testing.B) {
					each := func(inOrOut func(*testing.B, string) time.Duration) time.Duration {
						if chore.before != "" {
							outside(b, chore.before)
						}
						return inOrOut(b, chore.command)
					}
					each(outside)
					each(inside)
					for b.Loop() {
						var theirs, ours []time.Duration
						var ratios []float64
						for range chore.rounds {
							o, i := each(outside), each(inside)
							theirs, ours, ratios = append(theirs, o), append(ours, i), append(ratios, float64(i)/float64(o))
						}
						b.ReportMetric(float64(median(theirs).Microseconds())/1000, "outside-ms")
						b.ReportMetric(float64(median(ours).Microseconds())/1000, "inside-ms")
						b.ReportMetric(float64(median(ours))/float64(median(theirs)), "ratio")
						b.ReportMetric(median(ratios), "paired-ratio")
					}
					b.ReportMetric(0, "ns/op")
				})
			}
		})
	}
}

// worker starts a command that does the chores that it reads, line by line, and returns what has it do one and tells how long it took.
func worker(b *testing.B, cmd *exec.Cmd) func(b *testing.B, chore string) time.Duration {
	b.Helper()
	cmd.Stderr = os.Stderr
	in, out := talk(b, cmd)
	b.Cleanup(func() {
		in.Close()
		_ = cmd.Wait() // its context has ended before
	})
	lines := bufio.NewReader(out)
	return func(b *testing.B, chore string) time.Duration {
		b.Helper()
		began := time.Now()
		if _, err := io.WriteString(in, chore+"\n"); err != nil {
			b.Fatal(err)
		}
		if line, err := lines.ReadString('\n'); line != "done\n" {
			b.Fatalf("%s: %q, %v", chore, line, err)
		}
		return time.Since(began)
	}
}

// furnish fills the person's workspace with what chores need. It lies in memory: what a disk takes, inside as outside, is not what is measured.
func furnish(b *testing.B, p person) {
	b.Helper()
	if err := unix.Mount("workspace", p.workspace(), "tmpfs", 0, ""); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = unix.Unmount(p.workspace(), unix.MNT_DETACH) })
	write := func(files int, name, text string) { // a hundred in a folder
		for i := range files {
			file := filepath.Join(p.workspace(), fmt.Sprintf(name, i/100, i))
			if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(fmt.Sprintf(text, i)), 0o644)); err != nil {
				b.Fatal(err)
			}
		}
	}
	write(20000, "repository/%03d/%d", "this is file %d\n")
	write(50000, "tree/%03d/%d", strings.Repeat("some text to look through\n", 100)+"%d\n")
	write(5000, "small/tree/%03d/%d", "this is file %d\n")
	write(20, "source/%[2]d.c", "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\nint part%d(const char *s) { return printf(\"%%s\\n\", s) + atoi(s); }\n")
	main := filepath.Join(p.workspace(), "source/main.c")
	if err := os.WriteFile(main, []byte("int part7(const char *);\nint main(void) { return part7(\"1\"); }\n"), 0o644); err != nil {
		b.Fatal(err)
	}
	if out, err := exec.Command("chown", "-R", fmt.Sprintf("%d:%d", p.id, p.id), p.home).CombinedOutput(); err != nil {
		b.Fatalf("chown: %v: %s", err, out)
	}
	git := p.command(b, "run")
	git.Path, git.Args = "/bin/sh", []string{"sh", "-ec", `tar cf small.tar -C small tree
for d in repository small; do git init -q $d; git -C $d config gc.auto 0; git -C $d add -A; git -C $d -c user.name=x -c user.email=x commit -qm x; done`}
	if out, err := git.CombinedOutput(); err != nil {
		b.Fatalf("make a repository: %v: %s", err, out)
	}
}
