//go:build linux

package integration

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cofferdam.dev/cofferdam/integration/ctrd"
)

// What comes to have a hidden name while a sandbox runs is covered: a file and a folder that were replaced, and one in a folder that is new. The control are the
// same files by a name that is not hidden.
func TestHiddenFilesThatComeLater(t *testing.T) {
	eachPerson(t, func(t *testing.T, p person) {
		p.write(t, ownPolicy, "version: 1\nworkspace:\n  hidden: [.env, /keys]\n")
		put := func(name, text string) {
			t.Helper()
			at := filepath.Join(p.workspace(), name)
			if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		move := func(from, to string) {
			t.Helper()
			if err := os.Rename(filepath.Join(p.workspace(), from), filepath.Join(p.workspace(), to)); err != nil {
				t.Fatal(err)
			}
		}
		put(".env", "secret\n")
		put("keys/k", "secret\n")
		cmd := p.command(t, "run", "sh", "-c", "while read x; do cat .env keys/k new/deep/.env new/deep/plain 2>/dev/null | tr '\\n' ' '; echo; done")
		in, out := talk(t, cmd)
		answers := bufio.NewScanner(out)
		ask := func() string {
			t.Helper()
			fmt.Fprintln(in, "look")
			if !answers.Scan() {
				t.Fatal(answers.Err())
			}
			return strings.TrimSpace(answers.Text())
		}
		if got := ask(); got != "" {
			t.Errorf("at first: %q", got)
		}
		put("editor", "replaced\n")
		move("editor", ".env")
		put("others/k", "replaced\n")
		move("keys", "old")
		move("others", "keys")
		put("new/deep/plain", "plain\n")
		put("new/deep/.env", "made\n")
		eventually(t, "all that is hidden is empty", func() bool { return ask() == "plain" })
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		for name, want := range map[string]string{".env": "replaced\n", "keys/k": "replaced\n", "new/deep/.env": "made\n"} {
			if b, err := os.ReadFile(filepath.Join(p.workspace(), name)); err != nil || string(b) != want {
				t.Errorf("outside %s has %q, %v", name, b, err)
			}
		}
	})
	t.Run("container", func(t *testing.T) {
		eachEngine(t, func(t *testing.T, d *ctrd.Daemon) {
			top := Workspace(t)
			put := func(name, text string) {
				t.Helper()
				if err := os.WriteFile(filepath.Join(top, name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			put(".env", "secret\n")
			box := d.StartContainer(t, ctrd.Container{
				Image: agentImage, Runtime: ctrd.Cofferdam, Policy: Policy(named{t, t.Name()}, "version: 1\nworkspace:\n  hidden: [.env]\n"), Workspace: top,
			})
			put("plain", "plain\n")
			put("editor", "replaced\n")
			if err := os.Rename(filepath.Join(top, "editor"), filepath.Join(top, ".env")); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the hidden file is empty", func() bool {
				got := box.Exec(t, "sh", "-c", "cd /workspace; cat .env plain")
				return got.Code == 0 && got.Stdout == "plain\n"
			})
		})
	})
}
