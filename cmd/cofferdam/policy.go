//go:build linux

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"cofferdam.dev/cofferdam/proxy/policy"
	"cofferdam.dev/cofferdam/shim/sandbox"
	"cofferdam.dev/cofferdam/shim/workspace"
	"cofferdam.dev/cofferdam/spec"
)

func policyCommand(p sandbox.Paths) *cobra.Command {
	c := &cobra.Command{
		Use:   "policy",
		Short: "Check policies, explain what they decide, list presets and protected files",
		Long: `A policy says which names a sandbox may reach, and what of the host it gets. Policies are files in ` + p.Policies + `;
a container names one with the annotation cofferdam.dev/policy. ` + p.AdminPolicy() + `, if it is there, bounds all
of them; cofferdam run has further layers, see its help.

  version: 1
  network:
    presets: [github]                  # rules that come with cofferdam: cofferdam policy presets
    rules:
      - allow: api.example.org         # TLS on port 443
      - allow: "*.example.net"         # one label or more, never example.net itself
      - deny: tracker.example.net      # deny beats allow, then the most specific counts
      - {allow: git.example.org, protocol: ssh, ports: [22]}                        # tls, http, ssh or tcp
      - {allow: db.example.org, protocol: tcp, ports: [5432], addresses: [10.1.2.3]}   # not resolved, may be private
  files:
    - {path: /opt/toolchain, access: read}
  limits: {memory: 4GiB, pids: 1024, cpus: 2}

Rules that tie are an error, and so is one that decides nothing, since a wider deny covers all of it. The file's own
rules win a tie with those of a preset, and may deny what a preset allows.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(policyCheckCommand(), policyExplainCommand(p), policyShowCommand(p), policyPresetsCommand(), policyProtectedCommand())
	return c
}

func policyCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE...",
		Short: "Say whether policy files are valid, and if not, everything that is wrong with them",
		Long: `Reads policy files as a sandbox would, and prints each mistake as FILE:LINE:COLUMN: KEY: MESSAGE. A file that
somebody else could have written is one too. A file of the name ` + sandbox.ProjectFile + ` is a project's, which anybody may write and
which may say less. Exit status 1 if a policy is bad, 125 if a file cannot be read.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			var unread []error
			var found error
			for _, file := range files {
				pol, err := loadFile(file)
				switch {
				case err == nil:
					fmt.Fprintf(cmd.OutOrStdout(), "%s: ok, %s\n", file, count(len(pol.Rules()), "rule"))
				case errors.As(err, new(*fs.PathError)):
					unread = append(unread, err)
				default:
					fmt.Fprintln(cmd.OutOrStdout(), err)
					found = errFound
				}
			}
			if unread != nil {
				return errors.Join(unread...)
			}
			return found
		},
	}
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// loadFile loads a policy file, a project's by its name.
func loadFile(file string) (*policy.Policy, error) {
	if filepath.Base(file) != sandbox.ProjectFile {
		return policy.Load(file)
	}
	text, err := policy.ReadProject(file)
	if err != nil {
		return nil, err
	}
	return policy.Source{Layer: policy.Project, Name: file, Text: text}.Parse()
}

// chosen is the policy that a person asks about.
type chosen struct{ name, workspace string }

func (c *chosen) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.name, "policy", "", "a policy's `NAME`, or a file: what has a slash or ends in .yaml")
	cmd.Flags().StringVarP(&c.workspace, "workspace", "w", "", "all layers, as cofferdam run takes them in this `folder`; --policy takes the place of the caller's own")
}

// load reads all layers that hold in a workspace; without one the policy of a container, which the administrator's bounds.
func (c *chosen) load(p sandbox.Paths) (*policy.Policy, error) {
	if c.workspace != "" {
		workspace, err := realPath(c.workspace, "")
		if err != nil {
			return nil, err
		}
		layers, err := runFlags{policy: c.name}.layers(p, workspace)
		if err != nil {
			return nil, err
		}
		return policy.ParseLayers(layers.Sources())
	}
	layers, err := sandbox.FileLayer(policy.Admin, p.AdminPolicy())
	if err != nil {
		return nil, err
	}
	own := policy.Source{Layer: policy.User, Name: c.name}
	switch {
	case c.name == "" && layers == nil:
		return policy.Default(), nil
	case c.name == "":
		own.Name, own.Text = "none", []byte(policy.Default().String())
		return policy.ParseLayers(append(layers.Sources(), own))
	case !strings.Contains(c.name, "/") && !strings.HasSuffix(c.name, ".yaml"):
		if err := spec.CheckPolicyName(c.name); err != nil {
			return nil, err
		}
		own.Name = filepath.Join(p.Policies, c.name+".yaml")
	}
	if own.Text, err = policy.Read(own.Name); err != nil {
		return nil, err
	}
	return policy.ParseLayers(append(layers.Sources(), own))
}

func policyExplainCommand(p sandbox.Paths) *cobra.Command {
	var which chosen
	c := &cobra.Command{
		Use:   "explain [-w DIR] [--policy NAME|FILE] HOST[:PORT]",
		Short: "Show what a policy decides about a host, by which rule, and what would allow it",
		Long: `Shows the decision for each protocol, on PORT or else on each port that a rule for the host names; which rules speak of
the host, and what became of each; and what would have to change to allow it. HOST is a name or an address. Of a policy
with several layers it shows what they decide together, and then the same of each.

Without --policy and -w it explains the policy of containers that name none, which denies everything. Nothing is resolved: a
name that is allowed is still refused where it leads to loopback, private, link-local or metadata addresses, unless
its rule names the address.`,
		Example: `  cofferdam policy explain --policy web api.example.org
  cofferdam policy explain -w . api.example.org
  cofferdam policy explain --policy ./web.yaml git.example.org:22`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			host, addr, port, err := parseTarget(args[0])
			if err != nil {
				return err
			}
			pol, err := which.load(p)
			if err != nil {
				return err
			}
			fmt.Fprint(cmd.OutOrStdout(), pol.Explain(host, addr, port))
			return nil
		},
	}
	which.addFlags(c)
	return c
}

func policyShowCommand(p sandbox.Paths) *cobra.Command {
	var which chosen
	c := &cobra.Command{
		Use:   "show [-w DIR] [--policy NAME|FILE]",
		Short: "Print a policy with every default written out, layer by layer",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			pol, err := which.load(p)
			if err != nil {
				return err
			}
			fmt.Fprint(cmd.OutOrStdout(), pol)
			if len(pol.Layers()) > 1 {
				fmt.Fprintf(cmd.OutOrStdout(), "\n# together, beside the network, of which each layer must allow everything:\n%s", pol.Sections())
			}
			return nil
		},
	}
	which.addFlags(c)
	return c
}

// parseTarget reads HOST[:PORT]; port 0 is none. Of an IPv6 address with a port the address is in brackets.
func parseTarget(target string) (name policy.Name, addr netip.Addr, port uint16, err error) {
	host, portText, hasPort := target, "", false
	if i := strings.LastIndexByte(target, ':'); i >= 0 && (strings.Count(target, ":") == 1 || strings.HasPrefix(target, "[") && target[i-1] == ']') {
		host, portText, hasPort = target[:i], target[i+1:], true
	}
	if hasPort {
		n, err := strconv.ParseUint(portText, 10, 16)
		if err != nil || n == 0 || portText[0] == '0' {
			return name, addr, 0, fmt.Errorf("%s: %q is not a port", target, portText)
		}
		port = uint16(n)
	}
	bare := host
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		bare = host[1 : len(host)-1]
	}
	if addr, err = netip.ParseAddr(bare); err == nil {
		return name, addr, port, nil
	}
	if name, err = policy.ParseName(host); err != nil {
		return name, addr, 0, fmt.Errorf("%s: %w", target, err)
	}
	return name, netip.Addr{}, port, nil
}

func policyPresetsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "presets",
		Short: "List the rule sets that a policy can take in with presets: [NAME]",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w := cmd.OutOrStdout()
			for i, set := range policy.Presets() {
				if i > 0 {
					fmt.Fprintln(w)
				}
				fmt.Fprintf(w, "%s: %s\n  risk: %s\n", set.Name, set.Purpose, set.Risk)
				for _, d := range set.Domains() {
					fmt.Fprintf(w, "  allow %s\n", d)
				}
			}
			return nil
		},
	}
}

func policyProtectedCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "protected",
		Short: "List the places of a workspace that no agent may change, with the reasons",
		Long: `Lists what is protected in every workspace, at any depth, whether it exists or not. Of git repositories, the hooks and the
configuration are protected beside these: hooks may not be made, and the configuration changes only by what runs nothing.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			reason := ""
			for _, p := range workspace.BuiltIn() {
				if p.Reason != reason {
					reason = p.Reason
					fmt.Fprintf(cmd.OutOrStdout(), "%s:\n", reason)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "  %s\n", p.Pattern)
			}
			return nil
		},
	}
}
