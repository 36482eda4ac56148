//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"time"

	"cofferdam.dev/cofferdam/integration/outcome"
)

// longest is how long an attempt may take when the probe serves; one that takes longer has failed. With -patience it is five times that.
const longest = 20 * time.Second

func init() {
	attempts["serve"] = attempt{"[PORT]: makes the attempts whose words stand on standard input, as one JSON array a line, each in a process of its own; or on connections to a port of loopback, one after the other", 0, serve}
	attempts["sh"] = attempt{"SCRIPT: OK if its status is 0; Reply is what it prints", 1, func(a []string, o *outcome.Outcome) error {
		cmd := exec.Command("sh", "-c", a[0])
		var both bytes.Buffer
		cmd.Stdout, cmd.Stderr = &both, &both
		err := cmd.Run()
		o.Reply = both.String()
		return err
	}}
}

// serve ends with its input. What an attempt leaves running is left.
func serve(a []string, _ *outcome.Outcome) error {
	if len(a) == 0 {
		return answer(os.Stdin, os.Stdout)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:"+a[0])
	if err != nil {
		return err
	}
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		_ = answer(c, c) // who called is gone
		c.Close()
	}
}

// answer answers each line with one.
func answer(r io.Reader, w io.Writer) error {
	in := bufio.NewScanner(r)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var words []string
		if err := json.Unmarshal(in.Bytes(), &words); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(w, apart(words)); err != nil {
			return err
		}
	}
	return in.Err()
}

// apart makes an attempt in a process of its own.
func apart(words []string) outcome.Outcome {
	o := outcome.Outcome{Attempt: words}
	var out bytes.Buffer
	cmd := exec.Command("/proc/self/exe", words...)
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	cmd.WaitDelay = time.Second // for who keeps its output open
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		o.Detail = err.Error()
		return o
	}
	limit := longest
	if len(words) > 2 && words[0] == "-patience" {
		if d, err := time.ParseDuration(words[1]); err == nil {
			limit = 5 * d
		}
	}
	late := time.AfterFunc(limit, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	late.Stop()
	inner, perr := outcome.Parse(out.Bytes())
	if perr == nil {
		return inner
	}
	// It was ended before it could say anything.
	o.Elapsed = time.Since(begin)
	o.Detail = fmt.Sprint(err)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		o.Unknown = exit.ExitCode() == 2
	}
	return o
}
