//go:build linux

// Command demo shows an agent in a container between its two walls: `make run-containerd`.
//
// It starts a private containerd in a world of its own (integration/world), writes a policy, makes an image on the spot, runs agent.sh in a
// container with Cofferdam as the runtime, and checks from outside what has become of each of its attempts: by files, by what a web server
// and other ears on this host have heard, by the kernel's tables, and by the decision log. Then the same call is made with the stock runtime,
// which shows that the attempts are real and that the ears are not deaf.
//
// Everything that the demonstration calls the host's is made for it: a home with a secret in it, services on every address. Packets go to
// addresses of this machine only. Limits: root; ping and raw packets are tried over IPv4 only.
//
// Exit status: 0 every promise is kept, 1 one is not, 125 the demonstration could not be held.
package main

import (
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"cofferdam.dev/cofferdam/hack/image"
	"cofferdam.dev/cofferdam/integration/ctrd"
	"cofferdam.dev/cofferdam/integration/world"
)

const (
	exitLeak    = 1
	exitFailure = 125

	prefix    = "cofferdam-demo-" // of the run's folder and cgroups
	imageName = "cofferdam.test/demo:1"
)

//go:embed agent.sh
var agentScript []byte

var binaries = []string{"cofferdam", "cofferdam-broker", "cofferdam-proxy", "containerd-shim-cofferdam-v1"}

// artefacts is what is prepared before the world is entered.
type artefacts struct {
	Archive string // of the image
	Bin     string // folder of binaries
	Engine  ctrd.Engine
}

func main() {
	bin := flag.String("bin", "bin", "folder with the binaries that make build makes")
	runtime := flag.String("runtime", ctrd.Cofferdam, "containerd runtime; with another one the demonstration must fail")
	flag.Parse()
	code, err := run(*bin, *runtime)
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		code = exitFailure
	}
	os.Exit(code)
}

func run(bin, runtime string) (int, error) {
	return world.Run(world.Config{
		Prefix: prefix,
		Etc: map[string]string{ // no query may leave this machine, and under the stock runtime both names can be reached
			"/etc/resolv.conf": "# the demonstration asks nobody\n",
			"/etc/hosts":       "127.0.0.1 localhost web.test other.test\n",
		},
	}, func(dir string) (string, error) {
		a, err := prepare(dir, bin)
		if err != nil {
			return "", err
		}
		data, err := json.Marshal(a)
		return string(data), err
	}, func() int {
		dir, data, _ := world.Inside()
		var a artefacts
		err := json.Unmarshal([]byte(data), &a)
		kept := false
		if err == nil {
			kept, err = show(a, filepath.Base(dir), runtime)
		}
		switch {
		case err != nil:
			fmt.Fprintln(os.Stderr, "demo:", err)
			return exitFailure
		case !kept:
			return exitLeak
		default:
			return 0
		}
	})
}

// prepare finds what the demonstration needs and makes the image in dir. It changes nothing else.
func prepare(dir, bin string) (a artefacts, err error) {
	if os.Geteuid() != 0 {
		return a, errors.New("needs root, for namespaces, mounts and containerd")
	}
	// A shell of su has the PATH of a user, without the folder that holds runc.
	if err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"); err != nil {
		return a, err
	}
	a.Bin = filepath.Join(dir, "bin") // the folder that was named may be hidden in the world
	if err := copyBinaries(bin, a.Bin); err != nil {
		return a, fmt.Errorf("%w; make build makes it", err)
	}
	found := map[string]string{}
	for _, program := range []string{"containerd", "runc", "busybox"} {
		if found[program], err = exec.LookPath(program); err != nil {
			return a, fmt.Errorf("%w; hack/packages.sh run installs it on Debian", err)
		}
	}
	a.Engine = ctrd.Engine{Name: "demo", Dir: filepath.Dir(found["containerd"])}
	for _, program := range []string{"ctr", "containerd-shim-runc-v2"} {
		if _, err := exec.LookPath(filepath.Join(a.Engine.Dir, program)); err != nil {
			return a, fmt.Errorf("%w; it belongs beside containerd", err)
		}
	}

	probe := filepath.Join(dir, "probe")
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", probe, "cofferdam.dev/cofferdam/integration/probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return a, fmt.Errorf("build the probe: %w: %s", err, out)
	}
	data, err := os.ReadFile(probe)
	if err != nil {
		return a, err
	}
	img, err := image.Agent(imageName, found["busybox"], image.File{Path: "/usr/local/bin/probe", Data: data, Mode: 0o755})
	if err != nil {
		return a, err
	}
	a.Archive = filepath.Join(dir, "image.tar")
	f, err := os.Create(a.Archive)
	if err != nil {
		return a, err
	}
	return a, errors.Join(img.Write(f), f.Close())
}

func copyBinaries(from, to string) error {
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	for _, name := range binaries {
		data, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, name), data, 0o755); err != nil {
			return err
		}
	}
	return nil
}
