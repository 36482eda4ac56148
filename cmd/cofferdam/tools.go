//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"cofferdam.dev/cofferdam/shim/runner/hometool"
)

func toolsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "tools",
		Short: "List the tools of a home that cofferdam run --with shows, and what of each is seen",
		Long: `Lists the tools that live in people's homes and that cofferdam run --with NAME adds to a sandbox, read-only and each part
at its own place, with PATH and the variables that the tool needs. Only what is listed here is seen, with the reason; the rest
of the tool's folder stays behind, its credentials with it. A variable, if
it is set, says where the folder is instead.

--with also takes the name of a single program in one of the folders of PATH that lie in the home.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			home, err := os.UserHomeDir()
			if err != nil {
				return err
			}
			h := hometool.Home{Folder: home, Getenv: os.Getenv}
			w := cmd.OutOrStdout()
			for i, t := range hometool.BuiltIn() {
				if i > 0 {
					fmt.Fprintln(w)
				}
				here := "here"
				if _, err := h.Find(t); errors.Is(err, hometool.ErrNone) {
					here = "not here"
				} else if err != nil {
					here = err.Error()
				}
				fmt.Fprintf(w, "%s: %s (%s)\n  stays behind: %s\n", t.Name, t.Purpose, here, t.Stays)
				for _, p := range t.Places {
					folder := "~/" + p.Folder
					if p.Variable != "" {
						fmt.Fprintf(w, "  %s, or %s:\n", folder, p.Variable)
					} else {
						fmt.Fprintf(w, "  %s:\n", folder)
					}
					for _, part := range p.Parts {
						fmt.Fprintf(w, "    %s: %s\n", part.Pattern, part.Reason)
					}
				}
			}
			return nil
		},
	}
}
