// Package process is the contract between a proxy process and the parent that
// starts it: which file descriptors it inherits, what it is told, and how it
// says that it is ready. Both sides import it, so it stays free of HTTP, TLS
// and DNS code.
//
// The parent (the shim or the command line) opens two sockets inside the
// sandbox's GATE namespace and keeps them. [Command] describes a process that
// inherits them, has an empty environment and no capabilities, and lives in the
// parent's own network namespace (UPLINK). If that process dies the parent
// describes and starts another one with the same sockets; connections that
// arrive in between wait in the listener's queue.
//
// The file descriptors of the child, in one place for both sides:
//
//	0, 1  /dev/null
//	2     whatever the parent gave as cmd.Stderr
//	3     TCP listener in GATE; a connection's local address is its original destination
//	4     UDP socket on port 53 in GATE, any destination address
//	5     Config as JSON, read to its end, then closed (a memfd)
//	6     stream socket to the record log, which the parent keeps (record.Log)
//	7     names file: the append-only map of synthetic addresses, opened with O_RDWR|O_APPEND
//	8     ready pipe, write end: "ready\n" or one line of error text, then closed
//	9     stream socket on which changes come, see [Update]
//
// [Inherit] is the child's side. It gives up the process's privileges before it
// returns. The binary then confines itself, with package confine, to the files
// and system calls that it needs; both before anything is read from the agent
// (I9). That is a package of its own because the parent does not need it.
package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"cofferdam.dev/cofferdam/proxy/upstream"
)

// The numbers of the inherited file descriptors.
const (
	fdTCP = 3 + iota
	fdDNS
	fdConfig
	fdLog
	fdNames
	fdReady
	fdUpdates
	fdEnd // the first one that is not inherited
)

// DefaultPool is the block of synthetic addresses when Config names none. It
// is routed nowhere and looks like global unicast: the guards inside agents
// refuse the ranges that are set aside for tests and documentation.
var DefaultPool = netip.MustParsePrefix("28.0.0.0/14")

// BoxAddr is the agent's address in every sandbox.
var BoxAddr = netip.AddrFrom4([4]byte{10, 200, 0, 2})

// GateAddr is the proxy's own address in every sandbox: the agent's router, its
// name server, and where it finds an HTTP and a SOCKS proxy.
var GateAddr = netip.AddrFrom4([4]byte{10, 200, 0, 1})

// Config is what the parent tells the process. It travels as JSON; unknown
// fields are errors on the other side. The zero Config denies everything.
type Config struct {
	// Sandbox is the sandbox's ID, repeated in every record. Required.
	Sandbox string

	// Policy is the policy's name, for records and error texts.
	Policy string

	// Layers is the policy as policy.MarshalLayers writes it, which only the
	// process itself reads. Empty denies everything.
	Layers json.RawMessage

	// Pool holds the synthetic addresses; the zero Prefix is DefaultPool. It
	// must not change while the sandbox lives, or its names file is refused.
	Pool netip.Prefix

	// Resolver lists DNS servers in UPLINK, tried in order; empty means those
	// of the host's resolv.conf.
	Resolver []netip.AddrPort

	// Proxy is the HTTP proxy in UPLINK that carries what is allowed; nil: none.
	Proxy *upstream.Proxy

	// Box is the agent's address, the only peer that is served; the zero Addr
	// is BoxAddr. Only tests on loopback need another.
	Box netip.Addr

	// Gate is the proxy's own address as the agent sees it; the zero Addr is
	// GateAddr.
	Gate netip.Addr

	// Processors is how many the process uses at once at most; 0: all that there
	// are. What it does for an agent is bounded like the agent.
	Processors int
	// AllowRoot lets the process run as uid 0 of a user namespace that maps a
	// single id, where there is no other uid to take. It gives up all
	// capabilities itself. In the initial user namespace it is refused.
	AllowRoot bool
}

// Files are the descriptors that the child inherits. The parent keeps its own
// copies and may use them again for the next process, but for Log
// and Updates: see [Command].
type Files struct {
	TCP   *os.File // listener
	DNS   *os.File // UDP socket
	Log   *os.File // stream socket, for this process alone
	Names *os.File // O_RDWR|O_APPEND

	// Updates is a stream socket for new policies, for this process alone.
	Updates *os.File
}

// MemoryLimit is the soft limit of memory, as of runtime/debug.SetMemoryLimit,
// for a process whose policy has a text of that many bytes. A rule takes several
// times as much as its text, and more while it is parsed: close to the limit the
// runtime would do little else than collect garbage.
func MemoryLimit(policy int) int64 {
	return 256<<20 + 16*int64(policy)
}

func (f Files) validate() error {
	var missing []string
	for _, file := range []struct {
		name string
		file *os.File
	}{{"TCP", f.TCP}, {"DNS", f.DNS}, {"Log", f.Log}, {"Names", f.Names}, {"Updates", f.Updates}} {
		if file.file == nil {
			missing = append(missing, file.name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("missing files: %s", strings.Join(missing, ", "))
	}
	return nil
}

func (c Config) validate() error {
	if c.Sandbox == "" {
		return errors.New("missing sandbox ID")
	}
	if c.Processors < 0 {
		return fmt.Errorf("%d processors", c.Processors)
	}
	return nil
}

// withDefaults fills in what Config documents as its zero values.
func (c Config) withDefaults() Config {
	if !c.Pool.IsValid() {
		c.Pool = DefaultPool
	}
	if !c.Box.IsValid() {
		c.Box = BoxAddr
	}
	if !c.Gate.IsValid() {
		c.Gate = GateAddr
	}
	return c
}

// Ready tells the parent that the process serves, or with err that it will
// not, and closes the pipe.
func Ready(pipe *os.File, err error) error {
	text := readyText
	if err != nil {
		text = "error: " + strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	_, werr := pipe.WriteString(text + "\n")
	return errors.Join(werr, pipe.Close())
}

const readyText = "ready"
