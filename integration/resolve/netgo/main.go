//go:build linux

// Command netgo resolves names as Go programs without cgo do. Usage and output are those of libc.c; GO_TCP in the environment asks by TCP.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

func main() {
	r := &net.Resolver{PreferGo: true}
	if os.Getenv("GO_TCP") != "" {
		r.Dial = func(ctx context.Context, _, address string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", address)
		}
	}
	for _, name := range os.Args[1:] {
		start := time.Now()
		addrs, err := r.LookupHost(context.Background(), name)
		fmt.Print(name)
		var dns *net.DNSError
		switch {
		case errors.As(err, &dns) && dns.IsNotFound:
			fmt.Print(" not-found")
		case err != nil:
			fmt.Printf(" error:%v", err)
		}
		for _, a := range addrs {
			fmt.Print(" ", a)
		}
		fmt.Printf(" %dms\n", time.Since(start).Milliseconds())
	}
}
