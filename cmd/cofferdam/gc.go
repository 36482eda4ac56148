//go:build linux

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"cofferdam.dev/cofferdam/shim/sandbox"
)

func gcCommand(p sandbox.Paths) *cobra.Command {
	return &cobra.Command{
		Use:   "gc",
		Short: "Remove what sandboxes without an owner left behind",
		Long: `Removes state folders, namespaces and proxies of sandboxes whose shim is gone. A running sandbox is never touched.
The shim does the same whenever it starts a container. Decision logs stay.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			gone, err := sandbox.Collect(p)
			for _, id := range gone {
				fmt.Fprintln(cmd.OutOrStdout(), id)
			}
			return err
		},
	}
}
