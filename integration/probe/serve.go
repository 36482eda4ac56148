//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"cofferdam.dev/cofferdam/integration/outcome"
)

// longest is how long an attempt may take when the probe serves; one that takes longer has failed.
const longest = 20 * time.Second

func init() {
	attempts["serve"] = attempt{": makes the attempts whose words stand on standard input, as one JSON array a line, each in a process of its own", 0, serve}
	attempts["sh"] = attempt{"SCRIPT: OK if its status is 0; Reply is what it prints", 1, func(a []string, o *outcome.Outcome) error {
		cmd := exec.Command("sh", "-c", a[0])
		var both bytes.Buffer
		cmd.Stdout, cmd.Stderr = &both, &both
		err := cmd.Run()
		o.Reply = both.String()
		return err
	}}
}

// serve answers each line with one, and ends with its input. What an attempt leaves running is left.
func serve(_ []string, _ *outcome.Outcome) error {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var words []string
		if err := json.Unmarshal(in.Bytes(), &words); err != nil {
			return err
		}
		fmt.Println(apart(words))
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
	late := time.AfterFunc(longest, func() { _ = cmd.Process.Kill() })
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
