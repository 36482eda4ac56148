//go:build linux

package main

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"cofferdam.dev/cofferdam/proxy/policy"
	"cofferdam.dev/cofferdam/shim/sandbox"
)

// TestMain makes the command "cofferdam" for scripts: as built, but with its policies in $POLICIES, and the administrator's and the
// caller's own in $CONFIG.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"cofferdam": func() {
			p := sandbox.DefaultPaths()
			p.Policies = os.Getenv("POLICIES")
			p.Config = os.Getenv("CONFIG") + "/config.yaml"
			p.User = os.Getenv("CONFIG") + "/user.yaml"
			os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr, p))
		},
	})
}

// TestScripts runs the scripts in testdata.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Setenv("POLICIES", env.WorkDir+"/policies")
			env.Setenv("CONFIG", env.WorkDir+"/config")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"status": exitStatus},
	})
}

// exitStatus is the script command "status N COMMAND ARGS...": the command must end with that exit status.
func exitStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N COMMAND ARGS...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit := (*exec.ExitError)(nil)
		if !errors.As(err, &exit) {
			ts.Check(err)
		}
		code = exit.ExitCode()
	}
	if code != want {
		ts.Fatalf("exit status %d, want %d", code, want)
	}
}

func TestParseTarget(t *testing.T) {
	name, err := policy.ParseName("a.test")
	if err != nil {
		t.Fatal(err)
	}
	four, six := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
	for _, test := range []struct {
		target string
		name   policy.Name
		addr   netip.Addr
		port   uint16
		ok     bool
	}{
		{"a.test", name, netip.Addr{}, 0, true},
		{"A.Test.:443", name, netip.Addr{}, 443, true},
		{"10.0.0.1", policy.Name{}, four, 0, true},
		{"10.0.0.1:65535", policy.Name{}, four, 65535, true},
		{"fd00::1", policy.Name{}, six, 0, true},
		{"[fd00::1]", policy.Name{}, six, 0, true},
		{"[fd00::1]:1", policy.Name{}, six, 1, true},
		{target: ""},
		{target: ":"},
		{target: ":443"},
		{target: "a.test:"},
		{target: "a.test:0"},
		{target: "a.test:007"},
		{target: "a.test:65536"},
		{target: "a.test:ssh"},
		{target: "a.test:443:443"},
		{target: "[fd00::1"},
		{target: "[[fd00::1]]:1"},
		{target: "[fd00::1]x:1"},
		{target: "[a.test]:1"},
		{target: "[]:1"},
		{target: "*.test"},
		{target: "https://a.test"},
		{target: "127.1"},
		{target: "u@a.test"},
		{target: "[10.0.0.1"},
		{target: "fd00::1]:1"},
	} {
		name, addr, port, err := parseTarget(test.target)
		if (err == nil) != test.ok || test.ok && (name != test.name || addr != test.addr || port != test.port) {
			t.Errorf("parseTarget(%q) = %q, %v, %d, %v", test.target, name, addr, port, err)
		}
	}
}
