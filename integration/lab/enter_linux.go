package lab

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"cofferdam.dev/cofferdam/integration/world"
)

// Artefacts is what was prepared outside the lab, where there is a network: paths of what could be made, and why others could not.
type Artefacts struct {
	Dir     string            // a folder of this run, world-readable, removed at its end
	Paths   map[string]string // by name
	Missing map[string]string // reason by name
}

const runPrefix = "cofferdam-it-"

// RunPrefix starts the name of every cgroup that a run may leave behind when it is killed: use it for containerd namespaces.
const RunPrefix = runPrefix

const resolver = "9.9.9.9"

// Main runs m inside the lab and returns the exit code. prepare is called once, outside, with an empty folder; it reports what it could not
// make in Missing. Without root, m runs outside: Inside tells.
func Main(m *testing.M, prepare func(a *Artefacts)) int {
	if world.Outside() && (os.Geteuid() != 0 || listing()) {
		return m.Run()
	}
	code, err := world.Run(world.Config{
		Prefix: runPrefix,
		Net:    true,
		Etc: map[string]string{
			"/etc/resolv.conf":   "nameserver " + resolver + "\n",
			"/etc/hosts":         "127.0.0.1 localhost\n::1 localhost\n",
			"/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
		},
	}, func(dir string) (string, error) {
		a := Artefacts{Dir: dir, Paths: map[string]string{}, Missing: map[string]string{}}
		prepare(&a)
		encoded, err := json.Marshal(a)
		return string(encoded), err
	}, func() int {
		code := m.Run()
		if l := current; l != nil {
			l.close()
		}
		return code
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		return 1
	}
	return code
}

// Inside reports whether this process is in the lab, and what was prepared for it.
func Inside() (Artefacts, bool) {
	var a Artefacts
	_, data, ok := world.Inside()
	if !ok || json.Unmarshal([]byte(data), &a) != nil {
		return a, false
	}
	return a, true
}

func listing() bool {
	for _, arg := range os.Args[1:] {
		if strings.HasPrefix(strings.TrimLeft(arg, "-"), "test.list") {
			return true
		}
	}
	return false
}
