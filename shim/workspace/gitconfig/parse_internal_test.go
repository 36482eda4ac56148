package gitconfig

import (
	"bytes"
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// require skips a test whose means are missing, or fails it if
// COFFERDAM_TEST_REQUIRE names them or says "all".
func require(t testing.TB, name string, ok bool) {
	t.Helper()
	if ok {
		return
	}
	for want := range strings.SplitSeq(os.Getenv("COFFERDAM_TEST_REQUIRE"), ",") {
		if want == name || want == "all" {
			t.Fatalf("missing: %s", name)
		}
	}
	t.Skipf("missing: %s", name)
}

// git returns a command of the real git that reads no configuration but what it is told to.
func git(t testing.TB, dir string, args ...string) *exec.Cmd {
	t.Helper()
	program, err := exec.LookPath("git")
	require(t, "git", err == nil)
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Join(dir, "no-home"), "GIT_CONFIG_NOSYSTEM=1", "GIT_CEILING_DIRECTORIES=" + dir, "LC_ALL=C",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b.test", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b.test",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=protocol.file.allow", "GIT_CONFIG_VALUE_0=always", // submodules from a local path
	}
	return cmd
}

var random = flag.Int("random", 500, "texts that TestParseRandom makes")

var texts = map[string]string{
	"nothing":                  "",
	"one":                      "[core]\n\tbare = false\n",
	"no value":                 "[core]\n\tbare\n",
	"no value at the end":      "[core]\n\tbare",
	"no value and blanks":      "[core]\n\tbare \t\n",
	"no value and comment":     "[core]\n\tbare # x\n",
	"no value and CR":          "[core]\n\tbare \r\n",
	"empty value":              "[core]\n\tbare =\n\tfilemode = # x\n\tx=\"\"",
	"cases":                    "[CoRe]\nBaRe=x\n[Branch \"MaiN\"]\nReMote=y\n",
	"dotted":                   "[Branch.MaiN]\nremote=y\n[a.b \"C.D\"]e=1\n",
	"odd sections":             "[.]\na=1\n[.a]\na=1\n[a.]\na=1\n[ \"a\"]\nb=1\n[-1]\na=1\n",
	"section without a name":   "[]\na=1\n",
	"key before sections":      "a=1\n[b]\nc=1\n",
	"one line":                 "[a]b=1\n[c \"d\"]e=2 [f]\n",
	"section after key":        "[a]\nb = 1 [c]\nd = 2\n",
	"two sections on a line":   "[a][b]c=1\n",
	"comment after section":    "[a] # x\nb=1 ; y\n;z\n  # w = \\\nc=2\n",
	"comment before section":   "# x [a]\n[b]c=1",
	"quotes":                   "[a]\nb = \"x;#\" y \"\"  \n",
	"quote open":               "[a]\nb = \"x\n\"\n",
	"quote over lines":         "[a]\nb = \"x\\\ny\"\n",
	"escapes":                  "[a]\nb = \\t\\b\\n\\\\\\\"\n",
	"escape unknown":           "[a]\nb = \\x\n",
	"escape CR":                "[a]\nb = x\\\r\ny\n",
	"escape lone CR":           "[a]\nb = x\\\ry\n",
	"escape at the end":        "[a]\nb = x\\",
	"continued":                "[a]\nb = x  \\\n  y\nc=\\\n\\\n z\\\n # w\n",
	"continued comment":        "[a]\nb = x # y \\\nc = z\n",
	"white space inside":       "[a]\nb =  x \t y\t\t \n",
	"CR inside":                "[a]\nb = x\ry\r\n",
	"CR in a section":          "[a\r\"b\"]\nc=1\n",
	"CR":                       "[a]\r\nb = c\r\n\r\n[d \"e\"]\r\nf\r\n",
	"CR at the end":            "[a]\nb = c\r",
	"CR in a subsection":       "[a \"b\r\"]\nc=1\n",
	"VT is no white space":     "[a]\n\vb = 1\n",
	"VT in a value":            "[a]\nb = \vx\v\n",
	"BOM":                      "\xef\xbb\xbf[a]\nb=1\n",
	"BOM alone":                "\xef\xbb\xbf",
	"BOM cut":                  "\xef\xbb[a]\nb=1\n",
	"BOM twice":                "\xef\xbb\xbf\xef\xbb\xbf[a]\nb=1\n",
	"BOM later":                "[a]\n\xef\xbb\xbfb=1\n",
	"subsection escapes":       "[a \"b\\\"\\\\\\n\\t\"]\nc=1\n",
	"subsection line":          "[a \"b\nc\"]\nd=1\n",
	"subsection escaped line":  "[a \"b\\\nc\"]\nd=1\n",
	"subsection bytes":         "[a \"\x01\xff]=[\"]\nd=1\n",
	"subsection empty":         "[a \"\"]\nd=1\n",
	"subsection unquoted":      "[a b]\nd=1\n",
	"subsection then blank":    "[a \"b\" ]\nd=1\n",
	"section blank":            "[a ]\nd=1\n",
	"section open":             "[a",
	"section with underscore":  "[a_b]\nc=1\n",
	"key with underscore":      "[a]\nb_c=1\n",
	"key with dot":             "[a]\nb.c=1\n",
	"key from a digit":         "[a]\n1b=1\n",
	"key with digits":          "[a]\nb-1=1\n",
	"key then tab":             "[a]\nb\t=\t1\n",
	"key then CR":              "[a]\nb\r=1\n",
	"value with equals":        "[a]\nb == =c=\n",
	"include is not followed":  "[include]\npath=x\n[includeIf \"gitdir:/\"]\npath=y\n",
	"bytes":                    "[a]\nb=\xff\xfe\x01\n",
	"high byte for a key":      "[a]\n\xc3\xa4=1\n",
	"a section by escape only": "[a \"\\]\"]\nb=1\n",
}

// compare holds parse against git: what git refuses is refused, and what is accepted is read the same, in the one of two readings that is git's.
func compare(t *testing.T, dir string, text []byte, verbatim bool) {
	t.Helper()
	file := filepath.Join(dir, "config")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := git(t, dir, "config", "--file", file, "--list", "-z").Output()
	entries, refused := parse(text)
	switch {
	case err != nil && errors.As(err, new(*exec.ExitError)):
		if refused == nil {
			t.Fatalf("git refuses what was read as %+v: %v", entries, err)
		}
		return
	case err != nil:
		t.Fatal(err)
	case bytes.IndexByte(text, 0) >= 0 || len(text) > maxSize:
		if refused == nil {
			t.Fatal("not refused")
		}
		return
	case refused != nil:
		t.Fatalf("git reads %q: %v", out, refused)
	}
	list := func(value func(entry) string) string {
		var b strings.Builder
		for _, e := range entries {
			b.WriteString(e.name)
			if !e.none {
				b.WriteString("\n" + value(e))
			}
			b.WriteByte(0)
		}
		return b.String()
	}
	want := list(func(e entry) string { return e.folded })
	if verbatim {
		want = list(func(e entry) string { return e.value })
	}
	if diff := cmp.Diff(string(out), want); diff != "" {
		t.Fatalf("(-git +parse):\n%s", diff)
	}
	for _, e := range entries {
		if line := strings.Count(string(text), "\n") + 1; e.line < 1 || e.line > line {
			t.Fatalf("line %d of %d", e.line, line)
		}
	}
}

// keepsSpace asks which of the two readings is that of the git at hand.
func keepsSpace(t testing.TB, dir string) bool {
	t.Helper()
	file := filepath.Join(dir, "space")
	if err := os.WriteFile(file, []byte("[a]\nb = x\ty\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := git(t, dir, "config", "--file", file, "a.b").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out) == "x\ty\n"
}

func TestParseAsGit(t *testing.T) {
	verbatim := keepsSpace(t, t.TempDir())
	for name, text := range texts {
		t.Run(name, func(t *testing.T) { compare(t, t.TempDir(), []byte(text), verbatim) })
	}
}

// TestParseRandom strings together what the grammar is made of: a fuzzer takes long to get there from bytes.
func TestParseRandom(t *testing.T) {
	parts := []string{
		"[", "]", "\"", "\\", "\n", "\r", "\r\n", " ", "\t", "#", ";", "=", ".", "-", "_", "a", "B", "1", "\v", "\f", "\xff", "\\n", "\\\"", "\\\n", "\\\r\n",
		"[a]\n", "[A \"B\"]\n", "[a.B]", "\nk = ", "\nk = v", "\nk", "\xef\xbb\xbf", "\"v\"",
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	dir := t.TempDir()
	verbatim := keepsSpace(t, dir)
	accepted := 0
	for range *random {
		text := ""
		if rnd.IntN(4) > 0 {
			text = "[a]\nk ="
		}
		for range 1 + rnd.IntN(12) {
			text += parts[rnd.IntN(len(parts))]
		}
		if _, err := parse([]byte(text)); err == nil {
			accepted++
		}
		if t.Run("", func(t *testing.T) { compare(t, dir, []byte(text), verbatim) }); t.Failed() {
			t.Fatalf("%q", text)
		}
	}
	if accepted < *random/10 {
		t.Errorf("only %d of %d texts were accepted", accepted, *random)
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range texts {
		f.Add([]byte(text))
	}
	f.Add([]byte("[a]\nb=\x00\n"))
	dir := f.TempDir()
	verbatim := keepsSpace(f, dir)
	f.Fuzz(func(t *testing.T, text []byte) { compare(t, dir, text, verbatim) })
}

// FuzzJudge looks for a text that may come and whose effect, as git reads it, is one of those that must not.
func FuzzJudge(f *testing.F) {
	for _, text := range texts {
		f.Add([]byte(text), []byte(text))
	}
	for _, a := range attacks {
		f.Add([]byte(a.old), []byte(a.new))
	}
	f.Fuzz(func(t *testing.T, before, after []byte) {
		if Judge(before, after, ".git") != nil {
			return
		}
		old, err := parse(before)
		if err != nil {
			t.Fatal(err)
		}
		now, err := parse(after)
		if err != nil {
			t.Fatal(err)
		}
		for _, prefix := range []string{"include", "alias.", "filter.", "credential.", "url.", "http.", "core.ssh", "core.hook", "core.editor", "gpg.", "protocol.a", "hook."} {
			if diff := cmp.Diff(with(old, prefix), with(now, prefix)); diff != "" {
				t.Fatalf("%s differs:\n%s", prefix, diff)
			}
		}
		if diff := cmp.Diff(with(old, "core.worktree"), with(now, "core.worktree")); diff != "" {
			t.Fatalf("a worktree elsewhere:\n%s", diff)
		}
		if err := Judge(after, after, ".git"); err != nil {
			t.Fatalf("the same text: %v", err)
		}
	})
}

func with(entries []entry, prefix string) (found []string) {
	for _, e := range entries {
		if strings.HasPrefix(e.name, prefix) {
			found = append(found, e.name, e.value, e.folded)
		}
	}
	return found
}
