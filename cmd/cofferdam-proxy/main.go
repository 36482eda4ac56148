//go:build linux

// Command cofferdam-proxy is the proxy of one sandbox. It is started by
// cofferdam, never by hand: everything it works with is inherited, as package
// process describes. It must be built with CGO_ENABLED=0, and refuses to run
// otherwise.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"cofferdam.dev/cofferdam/proxy"
	"cofferdam.dev/cofferdam/proxy/confine"
	"cofferdam.dev/cofferdam/proxy/policy"
	"cofferdam.dev/cofferdam/proxy/process"
	"cofferdam.dev/cofferdam/proxy/record"
)

func main() {
	cfg, files, ready, err := process.Inherit() // first of all: it gives up privileges
	if err == nil {
		err = confined(cfg) // then what is left of files and system calls
	}
	if n := cfg.Processors; n > 0 && n < runtime.GOMAXPROCS(0) {
		runtime.GOMAXPROCS(n)
	}
	if err == nil {
		err = run(cfg, files, ready)
	} else if ready != nil {
		process.Ready(ready, err)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "cofferdam-proxy: sandbox %q: %v\n", cfg.Sandbox, err)
		os.Exit(1)
	}
}

// confined takes from this process what a proxy does not need. A kernel that cannot do all of it does what it can, and a line on standard
// error, which the parent keeps, says what is missing.
func confined(cfg process.Config) error {
	lacking, err := confine.Self()
	if lacking != "" {
		fmt.Fprintf(os.Stderr, "cofferdam-proxy: sandbox %q: not enforced: %s\n", cfg.Sandbox, lacking)
	}
	return err
}

// run serves the sandbox until SIGTERM or SIGINT.
func run(cfg process.Config, files process.Files, ready *os.File) error {
	// Before the parent is told, since from then on it may end us.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	server, updates, err := assemble(cfg, files)
	if werr := process.Ready(ready, err); err == nil {
		err = werr
	}
	if err != nil {
		return err
	}
	go receive(updates, server, stop) // ends with the process
	return server.Serve(ctx)
}

// receive puts into force what the parent sends. Without the stream, or with something else on it, this proxy would go on
// with a policy that nobody can change any more: it ends, and the parent starts another one.
func receive(updates net.Conn, server *proxy.Server, stop func()) {
	defer stop()
	err := process.ReceiveUpdates(updates, func(u process.Update, text []byte) error {
		switch u {
		case process.NewPolicy:
			p, err := parse(text)
			if err != nil {
				return err
			}
			server.SetPolicy(p)
			return nil
		case process.NewResolvConf:
			server.SetResolvConf(text)
			return nil
		}
		return fmt.Errorf("update %q is not known", byte(u))
	})
	if err != nil {
		fmt.Fprintf(os.Stderr, "cofferdam-proxy: %v\n", err)
	}
}

// parse reads the layers of a policy; none are the one that denies everything.
func parse(text []byte) (*policy.Policy, error) {
	debug.SetMemoryLimit(process.MemoryLimit(len(text)))
	layers, err := policy.UnmarshalLayers(text)
	if err != nil {
		return nil, err
	}
	return policy.ParseLayers(layers)
}

// assemble makes a server of what was inherited, and the stream on which its policy may be replaced.
func assemble(cfg process.Config, files process.Files) (server *proxy.Server, updates net.Conn, err error) {
	allowed, err := parse(cfg.Layers)
	if err != nil {
		return nil, nil, err
	}
	if updates, err = net.FileConn(files.Updates); err != nil {
		return nil, nil, fmt.Errorf("policy stream: %w", err)
	}
	files.Updates.Close() // net has a duplicate
	log, err := net.FileConn(files.Log)
	if err != nil {
		return nil, nil, fmt.Errorf("record log: %w", err)
	}
	files.Log.Close()
	records := record.NewWriter(log, cfg.Sandbox, cfg.Policy)
	listener, err := net.FileListener(files.TCP)
	if err != nil {
		return nil, nil, fmt.Errorf("tcp listener: %w", err)
	}
	files.TCP.Close()
	tcp, ok := listener.(*net.TCPListener)
	if !ok {
		return nil, nil, fmt.Errorf("tcp listener: file descriptor is of %s", listener.Addr().Network())
	}
	packets, err := net.FilePacketConn(files.DNS)
	if err != nil {
		return nil, nil, fmt.Errorf("dns socket: %w", err)
	}
	files.DNS.Close()
	dns, ok := packets.(*net.UDPConn)
	if !ok {
		return nil, nil, fmt.Errorf("dns socket: file descriptor is of %s", packets.LocalAddr().Network())
	}
	server, err = proxy.New(proxy.Config{
		Policy: allowed, Records: records,
		TCP: tcp, DNS: dns, Names: files.Names,
		Pool: cfg.Pool, Box: cfg.Box, Gate: cfg.Gate, Resolver: cfg.Resolver, Proxy: cfg.Proxy,
	})
	return server, updates, err
}
