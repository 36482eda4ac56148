//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
)

// The ports of the server.
const (
	bulkPort  = 9001 // sends as many bytes as it is asked for
	replyPort = 9002 // answers one byte and closes
	echoPort  = 9003
	webPort   = 9004
)

// serve prints a line once all ports are open.
func (l *load) serve() (result, error) {
	block := make([]byte, 1<<20)
	for port, serve := range map[int]func(net.Conn){
		bulkPort: func(conn net.Conn) {
			var left int64
			if binary.Read(conn, binary.BigEndian, &left) != nil {
				return
			}
			for left > 0 {
				n, err := conn.Write(block[:min(left, int64(len(block)))])
				if left -= int64(n); err != nil {
					return
				}
			}
		},
		replyPort: func(conn net.Conn) { echoByte(conn) },
		echoPort: func(conn net.Conn) {
			for echoByte(conn) {
			}
		},
	} {
		listener, err := l.listen(port)
		if err != nil {
			return result{}, err
		}
		go func() { // ends with the process
			for {
				conn, err := listener.Accept()
				if err != nil {
					continue // out of descriptors
				}
				go func() {
					defer conn.Close()
					serve(conn)
				}()
			}
		}()
	}
	listener, err := l.listen(webPort)
	if err != nil {
		return result{}, err
	}
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello\n") }))
	fmt.Println("serving")
	_, err = io.Copy(io.Discard, os.Stdin)
	return result{}, err
}

func (l *load) listen(port int) (net.Listener, error) {
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	return config.Listen(context.Background(), "tcp4", net.JoinHostPort(l.address, strconv.Itoa(port)))
}

// echoByte sends the next byte back, and reports whether there was one.
func echoByte(conn net.Conn) bool {
	buf := make([]byte, 1)
	if _, err := conn.Read(buf); err != nil {
		return false
	}
	_, err := conn.Write(buf)
	return err == nil
}
