// Command mkimage writes an agent's image as an OCI archive: busybox, accounts, and the binaries that are named.
//
//	go run ./hack/mkimage -o agent.tar -name cofferdam.test/agent:1 ./probe=/usr/local/bin/probe
//	ctr images import agent.tar
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"

	"cofferdam.dev/cofferdam/hack/image"
)

func main() {
	out := flag.String("o", "", "archive to write (required)")
	name := flag.String("name", "cofferdam.test/agent:1", "name of the image, with a tag")
	busybox := flag.String("busybox", "/bin/busybox", "statically linked busybox")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: mkimage -o ARCHIVE [flags] [FILE=/PATH/IN/IMAGE]...")
		flag.PrintDefaults()
	}
	flag.Parse()
	if *out == "" {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*out, *name, *busybox, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

func run(out, name, busybox string, args []string) error {
	var extra []image.File
	for _, arg := range args {
		src, dst, ok := strings.Cut(arg, "=")
		if !ok {
			return fmt.Errorf("%s: want FILE=/PATH/IN/IMAGE", arg)
		}
		data, err := os.ReadFile(src)
		if err != nil {
			return err
		}
		extra = append(extra, image.File{Path: dst, Data: data, Mode: 0o755})
	}
	img, err := image.Agent(name, busybox, extra...)
	if err != nil {
		return err
	}
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	if err := img.Write(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
