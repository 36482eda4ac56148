//go:build linux

// Command load is the client of the proxy's benchmarks, the hostile one that it is measured beside, and the server of both. A client runs in
// the network namespace of an agent and prints what it measured as one JSON object; with "hold" it prints a line once its connections are
// open, and keeps them until standard input ends.
//
//	load bulk [-n BYTES] ADDRESS          asks the bulk server for that many bytes: MiB per second
//	load connect [-c CLIENTS] ADDRESS     connects, sends a byte, awaits one, for -for: connections per second, microseconds
//	load echo [-n COUNT] ADDRESS          sends a byte and awaits it, over one connection: microseconds
//	load requests [-c CLIENTS] ADDRESS    keep-alive GETs by net/http, for -for: requests per second, microseconds
//	load hold [-n COUNT] [-http] ADDRESS  connections that were used once and idle
//	load flood [-kind KIND] NAME          takes what it can get, for -for: how often a second (flood.go)
//	load serve ADDRESS                    is the server at an IP address, until standard input ends (serve.go)
package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"
)

// result is what is printed: times in microseconds, of which 99 in a hundred are no longer than P99. What a command does not measure is zero.
type result struct{ Rate, Median, P99 float64 }

type load struct {
	address, via, host string
	n                  int64
	clients            int
	span               time.Duration
	http               bool
	kind               string
}

func main() {
	var l load
	flags := flag.NewFlagSet("load", flag.ExitOnError)
	flags.StringVar(&l.via, "via", "", "ask the HTTP proxy at this `address` for a tunnel")
	flags.StringVar(&l.host, "host", "", "the Host of requests, the address if empty")
	flags.Int64Var(&l.n, "n", 1, "how many, or how much")
	flags.IntVar(&l.clients, "c", 1, "clients at once")
	flags.DurationVar(&l.span, "for", time.Second, "how long")
	flags.BoolVar(&l.http, "http", false, "hold connections that carried a request")
	flags.StringVar(&l.kind, "kind", "", "what a flood is of")
	commands := map[string]func() (result, error){
		"bulk": l.bulk, "connect": l.connect, "echo": l.echo, "requests": l.requests, "hold": l.hold,
		"flood": l.flood, "serve": l.serve,
	}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: load bulk|connect|echo|requests|hold|flood|serve [FLAGS] ADDRESS")
		os.Exit(2)
	}
	flags.Parse(os.Args[2:])
	if l.address = flags.Arg(0); l.host == "" {
		l.host = l.address
	}
	r, err := commands[os.Args[1]]()
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(r)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

// patience ends what hangs.
const patience = 20 * time.Second

// dial connects to the address, through a tunnel if asked for one.
func (l *load) dial(ctx context.Context) (net.Conn, error) {
	to := l.address
	if l.via != "" {
		to = l.via
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp4", to)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(patience))
	if l.via == "" {
		return conn, nil
	}
	fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", l.address)
	// The server behind it waits for the first byte: what comes is the answer's, and no more.
	if err := readAnswer(conn, http.MethodConnect); err != nil {
		conn.Close()
		return nil, fmt.Errorf("tunnel: %w", err)
	}
	return conn, nil
}

// readAnswer reads the answer to a request of that method, which must be a good one.
func readAnswer(conn net.Conn, method string) error {
	answer, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return errors.New(answer.Status)
	}
	if method != http.MethodConnect {
		_, err = io.Copy(io.Discard, answer.Body)
	}
	return err
}

func (l *load) bulk() (result, error) {
	conn, err := l.dial(context.Background())
	if err != nil {
		return result{}, err
	}
	defer conn.Close()
	began := time.Now()
	if err := binary.Write(conn, binary.BigEndian, l.n); err != nil {
		return result{}, err
	}
	buf := make([]byte, 1<<20)
	for left := l.n; left > 0; {
		n, err := conn.Read(buf)
		if left -= int64(n); err != nil {
			return result{}, fmt.Errorf("%d bytes are missing: %w", left, err)
		}
	}
	return result{Rate: float64(l.n) / (1 << 20) / time.Since(began).Seconds()}, nil
}

// repeat has every client do one thing again and again, and times it.
func (l *load) repeat(once func() error) (result, error) {
	var mu sync.Mutex // guards all and errs
	var all []time.Duration
	var errs []error
	var clients sync.WaitGroup
	began := time.Now()
	for range l.clients {
		clients.Go(func() {
			var mine []time.Duration
			var err error
			for last := began; err == nil && last.Sub(began) < l.span; {
				start := time.Now()
				err = once()
				last = time.Now()
				mine = append(mine, last.Sub(start))
			}
			mu.Lock()
			defer mu.Unlock()
			all, errs = append(all, mine...), append(errs, err)
		})
	}
	clients.Wait()
	rate := float64(len(all)) / time.Since(began).Seconds()
	r := times(all)
	r.Rate = rate
	return r, errors.Join(errs...)
}

// times sums up how long something took each time.
func times(all []time.Duration) result {
	if len(all) == 0 {
		return result{}
	}
	slices.Sort(all)
	at := func(part float64) float64 { return float64(all[int(part*float64(len(all)-1))].Nanoseconds()) / 1000 }
	return result{Median: at(0.5), P99: at(0.99)}
}

func (l *load) connect() (result, error) {
	return l.repeat(func() error {
		conn, err := l.dial(context.Background())
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := roundTrip(conn); err != nil {
			return err
		}
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) { // the server closes first: the port is free at once
			return fmt.Errorf("await the end: %w", err)
		}
		return nil
	})
}

func roundTrip(conn net.Conn) error {
	b := []byte{'x'}
	if _, err := conn.Write(b); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, b)
	return err
}

func (l *load) echo() (result, error) {
	conn, err := l.dial(context.Background())
	if err != nil {
		return result{}, err
	}
	defer conn.Close()
	var all []time.Duration
	for range l.n {
		began := time.Now()
		if err := roundTrip(conn); err != nil {
			return result{}, err
		}
		all = append(all, time.Since(began))
	}
	return times(all), nil
}

func (l *load) requests() (result, error) {
	client := &http.Client{Timeout: patience, Transport: &http.Transport{
		MaxIdleConnsPerHost: l.clients,
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return l.dial(ctx) },
	}}
	return l.repeat(func() error {
		answer, err := client.Get("http://" + l.host + "/")
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if _, err := io.Copy(io.Discard, answer.Body); err != nil || answer.StatusCode != http.StatusOK {
			return fmt.Errorf("%s, %v", answer.Status, err)
		}
		return nil
	})
}

func (l *load) hold() (result, error) {
	for range l.n {
		conn, err := l.dial(context.Background())
		if err != nil {
			return result{}, err
		}
		defer conn.Close()
		if !l.http {
			err = roundTrip(conn)
		} else if _, err = fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", l.host); err == nil {
			err = readAnswer(conn, http.MethodGet)
		}
		if err != nil {
			return result{}, err
		}
	}
	fmt.Println("open")
	_, err := io.Copy(io.Discard, os.Stdin)
	return result{}, err
}
