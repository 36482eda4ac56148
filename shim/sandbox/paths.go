package sandbox

import (
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"path/filepath"
	"strings"

	"cofferdam.dev/cofferdam/proxy/record"
)

// Paths are the folders and files on the host that Cofferdam uses. None of them is ever mounted into a container but the one
// generated resolv.conf (I5).
type Paths struct {
	Config   string // the administrator's configuration file
	Policies string // NAME.yaml files, written by the administrator
	User     string // the policy of who calls cofferdam run; empty: none
	State    string // one folder per sandbox; gone with the sandbox
	Pins     string // GATE namespaces, one bind mount per sandbox
	Logs     string // one decision log per sandbox; outlives the sandbox
	Cache    string // facts about OCI runtime binaries that cost a process to learn
}

// DefaultPaths returns the paths of an installation that runs as root.
func DefaultPaths() Paths {
	return Paths{
		Config:   "/etc/cofferdam/config.yaml",
		Policies: "/etc/cofferdam/policies",
		State:    "/run/cofferdam/sandboxes",
		Pins:     "/run/cofferdam/netns",
		Logs:     "/var/log/cofferdam",
		Cache:    "/run/cofferdam/runtimes.json",
	}
}

// UserPaths returns the paths of one person's own sandboxes, below the folders that the XDG base directory specification names for what
// ends with a login (runtime), what a program keeps (state) and what a person configures (config). The administrator's configuration file is
// the host's.
func UserPaths(runtime, state, config string) Paths {
	p := DefaultPaths()
	runtime = filepath.Join(runtime, "cofferdam")
	p.Policies = filepath.Join(config, "cofferdam/policies")
	p.User = UserPolicy(config)
	p.State = filepath.Join(runtime, "sandboxes")
	p.Pins = filepath.Join(runtime, "netns")
	p.Cache = filepath.Join(runtime, "runtimes.json")
	p.Logs = filepath.Join(state, "cofferdam/log")
	return p
}

// UserPolicy is a person's policy, below the folder of what a person configures.
func UserPolicy(config string) string { return filepath.Join(config, "cofferdam", PolicyFile) }

// AdminPolicy is the administrator's policy, a ceiling for every sandbox, if it is there.
func (p Paths) AdminPolicy() string { return filepath.Join(filepath.Dir(p.Config), PolicyFile) }

const maxIdentifier = 76 // bytes; containerd's own limit, pkg/identifiers

// checkIdentifier accepts what containerd accepts as the name of a namespace or a container: letters and digits, in groups that are
// separated by single dots, underscores or dashes.
func checkIdentifier(s string) error {
	alnum := func(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' }
	ok := len(s) > 0 && len(s) <= maxIdentifier
	for i := 0; ok && i < len(s); i++ {
		inside := i > 0 && i < len(s)-1 && alnum(s[i-1]) && alnum(s[i+1])
		ok = alnum(s[i]) || inside && (s[i] == '.' || s[i] == '_' || s[i] == '-')
	}
	if !ok {
		return fmt.Errorf("identifier %q: want at most %d letters and digits, in groups separated by one of . _ -", s, maxIdentifier)
	}
	return nil
}

// ID returns the name of the sandbox of one container: both parts are containerd identifiers, in which a colon cannot occur, so
// two containers never share an ID and the ID is a safe file name.
func ID(namespace, container string) (string, error) {
	for _, part := range []string{namespace, container} {
		if err := checkIdentifier(part); err != nil {
			return "", err
		}
	}
	return namespace + ":" + container, nil
}

// checkID keeps a string from the command line from naming anything but a sandbox's own files.
func checkID(id string) error {
	namespace, container, _ := strings.Cut(id, ":")
	if _, err := ID(namespace, container); err != nil {
		return fmt.Errorf("sandbox id %q: want NAMESPACE:CONTAINER: %w", id, err)
	}
	return nil
}

// Bundle is where a sandbox that no engine asked for has its own bundle; it goes with the sandbox.
func (p Paths) Bundle(id string) string { return filepath.Join(p.dir(id), "bundle") }

func (p Paths) dir(id string) string        { return filepath.Join(p.State, id) }
func (p Paths) lock(id string) string       { return filepath.Join(p.dir(id), "lock") }
func (p Paths) stateFile(id string) string  { return filepath.Join(p.dir(id), "state.json") }
func (p Paths) resolvConf(id string) string { return filepath.Join(p.dir(id), "resolv.conf") }
func (p Paths) complaints(id string) string { return filepath.Join(p.dir(id), "proxy.stderr") }
func (p Paths) names(id string) string      { return filepath.Join(p.dir(id), "names") }

// listener is a socket of a sandbox. A socket's path has at most 107 bytes (unix(7)), and an ID may be longer.
func (p Paths) listener(id string) string {
	h := fnv.New128a()
	h.Write([]byte(id))
	return filepath.Join(filepath.Dir(p.State), "ask", hex.EncodeToString(h.Sum(nil)))
}

// shared is for files by which sandboxes with the same workspace take turns.
func (p Paths) shared() string { return filepath.Join(filepath.Dir(p.State), "shared") }

// Log returns the path of a sandbox's decision log, whose further files have a number after it, see record.Segments.
func (p Paths) Log(id string) string { return filepath.Join(p.Logs, id+logSuffix) }

const logSuffix = ".jsonl"

// LogID returns the sandbox that a file in Logs belongs to, by the file's name; false if the name is not one of a log.
func LogID(name string) (id string, ok bool) {
	log, ok := record.SegmentOf(name, logSuffix)
	return strings.TrimSuffix(log, logSuffix), ok
}
