//go:build linux

// Command netgo resolves names as Go programs without cgo do. Usage and output are those of libc.c; GO_TCP in the environment asks by TCP.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
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
		fmt.Printf(" %dms", time.Since(start).Milliseconds())
		if len(addrs) > 0 && os.Getenv("ASK") != "" {
			fmt.Print(" ", ask(name, addrs[len(addrs)-1]))
		}
		fmt.Println()
	}
}

// ask asks a host by HTTP at that address, and returns the status of the answer, 0 if there is none.
func ask(host, address string) int {
	req, err := http.NewRequest(http.MethodHead, "http://"+address, nil)
	if err != nil {
		return 0
	}
	req.Host = host
	res, err := (&http.Client{Timeout: 5 * time.Second}).Do(req)
	if err != nil {
		return 0
	}
	res.Body.Close()
	return res.StatusCode
}
