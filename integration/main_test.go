//go:build linux

package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"cofferdam.dev/cofferdam/hack/image"
	"cofferdam.dev/cofferdam/integration/ctrd"
	"cofferdam.dev/cofferdam/integration/lab"
	"cofferdam.dev/cofferdam/integration/outcome"
	"cofferdam.dev/cofferdam/netns/netnstest"
)

// agentImage is the image of every container here: busybox and the probe.
const agentImage = "cofferdam.test/agent:1"

// Names of what a test can require, besides the engines' names.
const (
	needRoot  = "root"
	needShim  = "shim"  // our binaries
	needImage = "image" // agentImage
	needCNI   = "cni"   // the reference plugins
	needLoad  = "load"  // the client of the proxy's benchmarks

	needFaults = "faults" // our binaries with the points of package fault

	needLandlock  = "landlock"  // of the kernel
	needResolvers = "resolvers" // programs with different ones
)

func TestMain(m *testing.M) {
	code := lab.Main(m, prepare)
	if _, inside := lab.Inside(); inside {
		if err := writeResults(); err != nil {
			fmt.Fprintln(os.Stderr, "FAIL: the table of attacks:", err)
			code = max(code, 1)
		}
		if left := shutdown(); len(left) > 0 {
			fmt.Fprintf(os.Stderr, "FAIL: the test run leaves behind:\n\t%s\n", strings.Join(left, "\n\t"))
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// prepare runs outside the lab, where Go modules can be fetched.
func prepare(a *lab.Artefacts) {
	var mu sync.Mutex // guards a
	done := func(name, path string, err error) {
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			a.Missing[name] = err.Error()
			return
		}
		a.Paths[name] = path
	}
	engine := func(want string, e ctrd.Engine, err error) { done(want, e.Dir, err) }
	var wg sync.WaitGroup
	wg.Go(func() {
		e, err := ctrd.Installed()
		engine("deb", e, err)
	})
	wg.Go(func() {
		cache, err := cacheDir()
		if err != nil {
			done("v2", "", err)
			return
		}
		e, err := ctrd.Build(cache, ctrd.V2)
		engine("v2", e, err)
	})
	wg.Go(func() {
		bin := filepath.Join(a.Dir, "bin")
		err := release(bin)
		done(needShim, bin, err)
		if err == nil {
			bin, faulty := bin, filepath.Join(a.Dir, "faulty")
			done(needFaults, faulty, withFaults(faulty, bin))
		}
	})
	wg.Go(func() {
		archive := filepath.Join(a.Dir, "agent.tar")
		done(needImage, archive, makeImage(a.Dir, archive))
	})
	wg.Go(func() {
		dir := filepath.Join(a.Dir, "resolvers")
		done(needResolvers, dir, resolverPrograms(dir))
	})
	wg.Go(func() { done(needLoad, filepath.Join(a.Dir, "load"), build(a.Dir, "./integration/load")) })
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno == 0 {
		done(needLandlock, fmt.Sprint("ABI ", abi), nil)
	} else {
		done(needLandlock, "", errno)
	}
	const plugins = "/usr/lib/cni" // of Debian's containernetworking-plugins
	_, err := os.Stat(filepath.Join(plugins, "macvlan"))
	done(needCNI, plugins, err)
	findTools(done)
	wg.Wait()
}

func cacheDir() (string, error) {
	if dir := os.Getenv("COFFERDAM_CACHE"); dir != "" {
		return dir, nil
	}
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "cofferdam"), err
}

// release builds our binaries into dir as they are released.
func release(dir string) error {
	cmd := exec.Command("../hack/build.sh", dir, "./cmd/cofferdam", "./cmd/cofferdam-broker", "./cmd/cofferdam-init", "./cmd/cofferdam-proxy", "./cmd/containerd-shim-cofferdam-v1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// withFaults builds into dir those of our binaries that have fault points, and puts the others of bin beside them.
func withFaults(dir, bin string) error {
	cmd := exec.Command("../hack/build.sh", dir, "./cmd/cofferdam", "./cmd/containerd-shim-cofferdam-v1")
	cmd.Env = append(os.Environ(), "TAGS=faults")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w: %s", err, strings.TrimSpace(string(out)))
	}
	for _, name := range []string{"cofferdam-broker", "cofferdam-init", "cofferdam-proxy"} {
		if err := os.Link(filepath.Join(bin, name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// build builds commands of this module into dir, static.
func build(dir string, packages ...string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	cmd := exec.Command("go", append([]string{"build", "-trimpath", "-o", dir + "/"}, packages...)...)
	cmd.Dir = ".." // the tests of a package run in its folder
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

func makeImage(dir, archive string) error {
	if err := build(dir, "./integration/probe"); err != nil {
		return err
	}
	probe, err := os.ReadFile(filepath.Join(dir, "probe"))
	if err != nil {
		return err
	}
	img, err := image.Agent(agentImage, "/bin/busybox",
		image.File{Path: "/usr/local/bin/probe", Data: probe, Mode: 0o755},
		image.File{Path: "/usr/local/bin/probe-suid", Data: probe, Mode: 0o4755},
	)
	if err != nil {
		return err
	}
	f, err := os.Create(archive)
	if err != nil {
		return err
	}
	return errors.Join(img.Write(f), f.Close())
}

// Require skips the test unless root and all of needs are there, and says what is missing. COFFERDAM_TEST_REQUIRE, a comma list of needs or
// "all", turns the skip into a failure (netnstest).
func Require(t testing.TB, needs ...string) {
	t.Helper()
	a, inside := lab.Inside()
	for _, need := range append([]string{needRoot}, needs...) {
		reason := a.Missing[need]
		switch {
		case need == needRoot && inside, reason == "" && a.Paths[need] != "":
			continue
		case need == needRoot:
			reason = "the lab makes namespaces and mounts"
		case reason == "":
			reason = "nothing prepares it"
		}
		netnstest.Skip(t, need, reason)
	}
}

// engines are the daemons of this run by name, each started by the first test that asks for it.
var (
	enginesMu sync.Mutex
	engines   = map[string]*ctrd.Daemon{}
	pristine  lab.Snapshot // before the first engine
)

// Engine returns the shared containerd called name (deb or v2), with the image in it.
func Engine(t testing.TB, name string) *ctrd.Daemon { return engineWith(t, name, name, needShim) }

// engineWith returns the shared containerd called name, which is of one of the engines, and has the binaries that were prepared as ours.
func engineWith(t testing.TB, name, engine, ours string) *ctrd.Daemon {
	t.Helper()
	Require(t, engine, needImage)
	a, _ := lab.Inside()
	lab.Get(t)
	enginesMu.Lock()
	defer enginesMu.Unlock()
	if d := engines[name]; d != nil {
		return d
	}
	if len(engines) == 0 {
		pristine = lab.Take()
	}
	var path []string
	if bin := a.Paths[ours]; bin != "" {
		path = append(path, bin)
	}
	d, err := ctrd.New(ctrd.Engine{Name: name, Dir: a.Paths[engine]}, filepath.Base(a.Dir)+"-"+name, path...)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Import(a.Paths[needImage]); err != nil {
		t.Fatal(err)
	}
	engines[name] = d
	return d
}

// eachEngine runs test once per engine.
func eachEngine(t *testing.T, test func(t *testing.T, d *ctrd.Daemon)) {
	for _, name := range []string{"deb", "v2"} {
		t.Run(name, func(t *testing.T) { test(t, Engine(t, name)) })
	}
}

// notOfASandbox are leftovers that no sandbox can be blamed for: what Cofferdam keeps for the next one, and the streams of ctr, which nobody
// removes under any runtime once containerd itself has deleted the task of a dead shim.
var notOfASandbox = []string{"file /run/cofferdam/runtimes.json", "file /run/cofferdam/sandboxes/.lock", "file /run/containerd/fifo/"}

// shutdown ends the engines and returns what they leave behind.
func shutdown() (left []string) {
	enginesMu.Lock()
	defer enginesMu.Unlock()
	for _, d := range engines {
		forgotten, err := d.Stop()
		for _, id := range forgotten {
			left = append(left, "container "+id)
		}
		if err != nil {
			left = append(left, err.Error())
		}
	}
	if len(engines) == 0 {
		return nil
	}
	return append(left, lab.Leftovers(pristine, notOfASandbox...)...)
}

// Policy writes a policy of the administrator, which lasts as long as the test, and returns its name.
func Policy(t testing.TB, yaml string) string {
	t.Helper()
	const dir = "/etc/cofferdam/policies" // an overlay: the host never sees it
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	name := strings.ToLower(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, t.Name()))
	file := filepath.Join(dir, name+".yaml")
	if err := os.WriteFile(file, []byte(yaml), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(file) })
	return name
}

// Contained starts a container under Cofferdam, with a workspace and the given policy.
func Contained(t testing.TB, d *ctrd.Daemon, policy string, flags ...string) *ctrd.Running {
	t.Helper()
	Require(t, needShim)
	return d.StartContainer(t, ctrd.Container{
		Image: agentImage, Runtime: ctrd.Cofferdam, Policy: policy, Workspace: Workspace(t), Flags: flags,
	})
}

// Uncontained starts a container under the stock runtime, in UPLINK and with every privilege: the wall is down. It is the control of the
// escape tests.
func Uncontained(t testing.TB, d *ctrd.Daemon, flags ...string) *ctrd.Running {
	t.Helper()
	return d.StartContainer(t, ctrd.Container{
		Image: agentImage, Runtime: ctrd.Stock, Workspace: Workspace(t), Flags: append([]string{"--net-host", "--privileged"}, flags...),
	})
}

// Workspace returns a folder of the host that an agent may be given. Unlike the folder of t.TempDir it can be reached by every user.
func Workspace(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "workspace")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// ProbeIn makes one attempt as a privileged process of the host that has entered the network namespace at path, e.g. /proc/PID/ns/net: what
// could be done from inside by somebody who had broken every other wall.
func ProbeIn(t testing.TB, path string, attempt ...string) outcome.Outcome {
	t.Helper()
	a, _ := lab.Inside()
	var out []byte
	err := lab.DoIn(path, func() error {
		var err error
		out, err = exec.Command(filepath.Join(a.Dir, "probe"), attempt...).Output()
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			err = nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	o, err := outcome.Parse(out)
	if err != nil {
		t.Fatal(err)
	}
	return o
}
