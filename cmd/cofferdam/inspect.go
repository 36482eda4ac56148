//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"cofferdam.dev/cofferdam/netns"
	"cofferdam.dev/cofferdam/shim/sandbox"
)

func inspectCommand(p sandbox.Paths) *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:   "inspect ID",
		Short: "Show one sandbox: what was changed in its container's spec and why, its policy, its proxy",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ids, err := sandbox.List(p)
			if err != nil {
				return err
			}
			id, err := find(ids, args[0])
			if err != nil {
				return err
			}
			st, err := sandbox.Load(p, id)
			if err != nil {
				return err
			}
			if asJSON {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(st)
			}
			printState(cmd.OutOrStdout(), p, st)
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the whole state as JSON")
	return c
}

func printState(w io.Writer, p sandbox.Paths, st *sandbox.State) {
	field := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%-10s "+format+"\n", append([]any{name}, args...)...)
	}
	field("sandbox", "%s", st.ID)
	field("status", "%s", status(p, st))
	field("agent", "%q, pid %d", st.Sandbox.Agent, st.Agent.PID)
	field("created", "%s", st.Created.Format(time.RFC3339))
	if st.Own {
		field("runtime", "libcontainer, by cofferdam run, pid %d", st.Shim.PID)
	} else {
		field("runtime", "%s %s (%s)", st.Runtime.Name, st.Runtime.Version, st.Runtime.Path)
	}
	if st.Runtime.Warning != "" {
		field("", "warning: %s", st.Runtime.Warning)
	}
	for _, f := range st.Sandbox.Files {
		field("files", "%s at %s (%s)", f.Source, f.Path, f.Access)
	}
	if len(st.Sandbox.Files) == 0 {
		field("files", "none of the host")
	}
	for _, t := range st.Sandbox.Tools {
		field("tools", "%s (read)", t)
	}
	for _, part := range []struct {
		what     string
		patterns []string
	}{{"read-only", st.Sandbox.Workspace.ReadOnly}, {"hidden", st.Sandbox.Workspace.Hidden}, {"writable", st.Sandbox.Workspace.Writable}} {
		if len(part.patterns) > 0 {
			field(part.what, "%q", part.patterns)
		}
	}
	field("limits", "memory %s, pids %d, cpus %v", units.BytesSize(float64(st.Sandbox.Limits.MemoryBytes)), st.Sandbox.Limits.Pids, st.Sandbox.Limits.CPUs)
	for _, w := range st.Weaker {
		field("weaker", "%s", w)
	}
	field("network", "%s", st.Sandbox.Network.Mode)
	field("proxy", "%s, pid %d, uid %d", proxyStatus(st), st.Proxy.PID, st.Proxy.UID)
	if len(st.Uplink) > 0 {
		field("uplink", "the engine's network (%s)", strings.Join(st.Uplink, ", "))
	} else {
		field("uplink", "the host's network")
	}
	if st.Proxy.LastExit != "" {
		field("", "the last one ended: %s", st.Proxy.LastExit)
	}
	if refused, err := refusedPackets(p, st); err == nil {
		field("refused", "%s", refused)
	}
	field("log", "%s", p.Log(st.ID))
	fmt.Fprintf(w, "\nchanges to the spec (%d):\n", len(st.Changes))
	for _, c := range st.Changes {
		fmt.Fprintf(w, "  %s\n", c)
	}
	fmt.Fprintf(w, "\npolicy %s:\n", policyName(st.Policy))
	for _, l := range st.Policy.Layers {
		fmt.Fprintf(w, "  # layer %s: %s\n", l.Layer, origin(l))
	}
	for line := range strings.Lines(st.Policy.Text) {
		fmt.Fprintf(w, "  %s\n", strings.TrimRight(line, "\n"))
	}
}

// origin says where a layer of a policy comes from, and whether it changes with its file.
func origin(l sandbox.LayerState) string {
	switch {
	case l.Path == "":
		return l.Name
	case l.Followed:
		return fmt.Sprintf("%q, followed", l.Path)
	default:
		return fmt.Sprintf("%q, as it was at the start: the agent can write to it", l.Path)
	}
}

// refusedPackets says how many packets the gate's kernel has turned away, by kind. The log has them too, a few seconds later.
func refusedPackets(p sandbox.Paths, st *sandbox.State) (string, error) {
	if st.Own { // its gate is pinned nowhere
		return "see cofferdam log", nil
	}
	g, err := netns.Open(p.Pins, st.ID)
	if err != nil {
		return "", err
	}
	defer g.Close()
	counters, err := g.Counters()
	if err != nil {
		return "", err
	}
	var kinds []string
	for _, kind := range slices.Sorted(maps.Keys(counters)) {
		if n := counters[kind]; n > 0 {
			kinds = append(kinds, fmt.Sprintf("%s %d", kind, n))
		}
	}
	if kinds == nil {
		return "no packets", nil
	}
	return "packets: " + strings.Join(kinds, ", "), nil
}
