//go:build linux

package main

import (
	"reflect"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"cofferdam.dev/cofferdam/shim/runner"
	"cofferdam.dev/cofferdam/spec"
)

func TestAJobTravelsWhole(t *testing.T) {
	with := job{Request: runner.Request{
		Name: "a", Args: []string{"true"}, Rootless: true, Files: []spec.FileRule{{Path: "/w", Source: "/w", Access: spec.Write}},
		Spec: &specs.Spec{Process: &specs.Process{Args: []string{"true"}, Cwd: "/"}, Linux: &specs.Linux{}},
	}, Report: reportJSON, Strict: true}
	without := with
	without.Request.Spec = nil
	for _, want := range []job{with, without} {
		payload, err := want.pack()
		if err != nil {
			t.Fatal(err)
		}
		got, err := unpack(payload)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(want, got) {
			t.Errorf("packed %+v, unpacked %+v", want, got)
		}
	}
	if _, err := unpack([]byte("{")); err == nil {
		t.Error("half a job was taken")
	}
}
