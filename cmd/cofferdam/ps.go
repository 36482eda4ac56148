//go:build linux

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"cofferdam.dev/cofferdam/shim/sandbox"
	"cofferdam.dev/cofferdam/spec"
)

func psCommand(p sandbox.Paths) *cobra.Command {
	return &cobra.Command{
		Use:   "ps",
		Short: "List the sandboxes of this host",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ids, err := sandbox.List(p)
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 3, ' ', 0)
			fmt.Fprintln(w, "SANDBOX\tSTATUS\tPID\tPOLICY\tPROXY\tWORKSPACE\tAGE")
			for _, id := range ids {
				st, err := sandbox.Load(p, id)
				if errors.Is(err, fs.ErrNotExist) {
					continue // gone since it was listed
				}
				if err != nil {
					return err
				}
				fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\t%s\n", id, status(p, st), st.Agent.PID, policyName(st.Policy), proxyStatus(st),
					workspaces(st.Sandbox), time.Since(st.Created).Round(time.Second))
			}
			return w.Flush()
		},
	}
}

// status says how a sandbox is: its phase, or what became of it.
func status(p sandbox.Paths, st *sandbox.State) string {
	switch {
	case !sandbox.Owned(p, st.ID):
		return "orphaned"
	case st.Phase == sandbox.Running && !st.Agent.Alive():
		return "exited"
	default:
		return string(st.Phase)
	}
}

func policyName(st sandbox.PolicyState) string {
	if st.Name == "" {
		return "(deny all)"
	}
	return st.Name
}

func proxyStatus(st *sandbox.State) string {
	switch {
	case !st.Proxy.Alive():
		return "down"
	case st.Proxy.Restarts > 0:
		return fmt.Sprintf("up, restarted %d×", st.Proxy.Restarts)
	default:
		return "up"
	}
}

func workspaces(sb spec.Sandbox) string {
	if len(sb.Files) == 0 {
		return "(none)"
	}
	var texts []string
	for _, f := range sb.Files {
		texts = append(texts, fmt.Sprintf("%s (%s)", f.Source, f.Access))
	}
	return strings.Join(texts, ", ")
}
