package netns

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/netns/netnstest"
)

func TestTeardown(t *testing.T) {
	gone := func(t *testing.T, dir string, box *os.File) {
		t.Helper()
		eventually(t, "eth0 is gone", func() bool { return slices.Equal(names(t, box), []string{"lo"}) })
		if got := entries(t, dir); len(got) != 0 {
			t.Errorf("left behind: %v", got)
		}
		mounts, err := os.ReadFile("/proc/self/mounts")
		must(t, err)
		if strings.Contains(string(mounts), dir) {
			t.Errorf("left mounted:\n%s", mounts)
		}
	}
	start := func(t *testing.T) (dir string, g *Gate, box *os.File) {
		t.Helper()
		dir, box = t.TempDir(), newNS(t)
		g, err := Setup(t.Context(), dir, "a")
		must(t, err)
		must(t, g.Attach(box))
		return dir, g, box
	}

	t.Run("twice", func(t *testing.T) {
		netnstest.Run(t, func(t *testing.T) {
			dir, g, box := start(t)
			must(t, g.Close())
			must(t, Teardown(dir, "a"))
			must(t, Teardown(dir, "a"))
			must(t, Teardown(filepath.Join(dir, "nowhere"), "a"))
			gone(t, dir, box)
		})
	})
	t.Run("while a listener holds the namespace", func(t *testing.T) {
		netnstest.Run(t, func(t *testing.T) {
			dir, g, box := start(t)
			l, err := g.Listen()
			must(t, err)
			defer l.Close()
			must(t, g.Close())
			must(t, Teardown(dir, "a"))
			if got := names(t, box); !slices.Equal(got, []string{"lo"}) { // at once
				t.Errorf("box has %v, want lo", got)
			}
			gone(t, dir, box)
		})
	})
	t.Run("while a connection holds the namespace", func(t *testing.T) {
		netnstest.Run(t, func(t *testing.T) {
			l := newLab(t)
			c, err := l.dial("tcp4", "8.8.8.8:443", plainTCP)
			must(t, err)
			defer c.Close()
			s := l.accept(t)
			defer s.Close()
			l.hush()
			must(t, l.g.Close())
			must(t, Teardown(l.dir, l.id))
			if got := names(t, l.box); !slices.Equal(got, []string{"lo"}) {
				t.Errorf("box has %v, want lo", got)
			}
		})
	})
	t.Run("after the box", func(t *testing.T) {
		netnstest.Run(t, func(t *testing.T) {
			dir, g, box := start(t)
			must(t, box.Close())
			eventually(t, "gate's end is gone", func() bool { return slices.Equal(names(t, g.ns), []string{"lo"}) })
			l, err := g.Listen() // so that Teardown looks for the veth
			must(t, err)
			defer l.Close()
			must(t, g.Close())
			must(t, Teardown(dir, "a"))
			if got := entries(t, dir); len(got) != 0 {
				t.Errorf("left behind: %v", got)
			}
		})
	})
	t.Run("of a pin without a namespace", func(t *testing.T) {
		netnstest.Run(t, func(t *testing.T) {
			dir := t.TempDir()
			must(t, os.WriteFile(filepath.Join(dir, "a"), nil, 0o600)) // killed before the mount
			if _, err := Setup(t.Context(), dir, "a"); !errors.Is(err, ErrExists) {
				t.Errorf("Setup: %v, want ErrExists", err)
			}
			got, err := List(dir)
			must(t, err)
			if !slices.Equal(got, []string{"a"}) {
				t.Errorf("List = %v, want a", got)
			}
			must(t, Teardown(dir, "a"))
			if got := entries(t, dir); len(got) != 0 {
				t.Errorf("left behind: %v", got)
			}
		})
	})
	t.Run("of a pin that was mounted twice", func(t *testing.T) {
		netnstest.Run(t, func(t *testing.T) {
			dir, g, box := start(t)
			must(t, g.Close())
			must(t, unix.Mount(filepath.Join(dir, "a"), filepath.Join(dir, "a"), "", unix.MS_BIND, ""))
			must(t, Teardown(dir, "a"))
			gone(t, dir, box)
		})
	})
	for _, signal := range []string{"maker killed", "maker killed, its child holds the listeners"} {
		t.Run(signal, func(t *testing.T) {
			netnstest.Run(t, func(t *testing.T) {
				dir, box := t.TempDir(), newNS(t)
				orphan := strings.Contains(signal, "child")
				maker := startMaker(t, dir, box, orphan)
				must(t, maker.Process.Kill())
				_ = maker.Wait()
				// The control: it outlives its maker.
				if got, want := names(t, box), []string{"lo", "eth0"}; !slices.Equal(got, want) {
					t.Errorf("box has %v, want %v", got, want)
				}
				got, err := List(dir)
				must(t, err)
				if !slices.Equal(got, []string{"a"}) {
					t.Errorf("List = %v, want a", got)
				}
				must(t, Teardown(dir, "a"))
				gone(t, dir, box)
			})
		})
	}
}

// makerDir asks the test binary to be the process that makes a sandbox.
const makerDir = "NETNS_TEST_MAKER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(makerDir); dir != "" {
		if err := maker(dir, os.NewFile(3, "box"), os.Getenv("NETNS_TEST_ORPHAN") != ""); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// maker makes the sandbox "a", says so and waits to be killed.
func maker(dir string, box *os.File, orphan bool) error {
	g, err := Setup(context.Background(), dir, "a")
	if err != nil {
		return err
	}
	if err := g.Attach(box); err != nil {
		return err
	}
	l, err := g.Listen()
	if err != nil {
		return err
	}
	if orphan {
		child := exec.Command("sleep", "1000")
		child.ExtraFiles = []*os.File{l.TCP, l.DNS}
		if err := child.Start(); err != nil {
			return err
		}
		fmt.Println("child", child.Process.Pid)
	}
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func startMaker(t *testing.T, dir string, box *os.File, orphan bool) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), makerDir+"="+dir)
	if orphan {
		cmd.Env = append(cmd.Env, "NETNS_TEST_ORPHAN=1")
	}
	cmd.ExtraFiles = []*os.File{box}
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	must(t, err)
	t.Cleanup(func() { stdin.Close() })
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		var pid int
		if _, err := fmt.Sscanf(lines.Text(), "child %d", &pid); err == nil {
			t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
			continue
		}
		if lines.Text() != "ready" {
			t.Fatalf("maker: %s", lines.Text())
		}
		return cmd
	}
	t.Fatalf("maker said nothing: %v", cmd.Wait())
	return nil
}
