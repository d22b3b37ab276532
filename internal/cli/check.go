package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/tailxds/tailxds/internal/input"
	"github.com/tailxds/tailxds/internal/policy"
	"github.com/tailxds/tailxds/internal/provider"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/yamldoc"
)

func checkCommand() *cobra.Command {
	var devices string
	rules := topology.Rules{DefaultService: "server", DefaultPort: 8080}
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Validate a policy file, for CI",
		Long: `Validate a policy file: what this passes, Envoys take. FILE may be - for standard input. All that is wrong is told
at once, as FILE:LINE:COLUMN: KEY: what would be right.

With --devices it also warns of services in it that no device has, and of what is ignored in the devices' own
metadata.`,
		Example: "  tailxds check policy.yaml --devices devices.yaml\n  git show HEAD:policy.yaml | tailxds check -",
		Args:    argument{what: "a policy file", max: maxPath}.Check,
		RunE: func(cmd *cobra.Command, args []string) error {
			policy, _, err := checkedPolicy(args[0], cmd.InOrStdin())
			if err != nil {
				return eachFault(cmd.ErrOrStderr(), args[0], err)
			}
			if devices != "" {
				warnings, err := unserved(cmd.Context(), devices, rules, policy)
				if err != nil {
					return err
				}
				for _, w := range warnings {
					fmt.Fprintln(cmd.ErrOrStderr(), "tailxds: warning:", input.Printable(w))
				}
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: ok, policies for %s\n", args[0], plural(len(policy.Services), "service"))
			return err
		},
	}
	cmd.Flags().StringVar(&devices, "devices", "", "device file, JSON or YAML: warn of services that no device has")
	cmd.Flags().StringVar(&rules.DefaultService, "default-service", rules.DefaultService, "with --devices: service of a device that names none")
	return cmd
}

// schemaCommand prints what editors check a policy file by.
func schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the policy file, for editors",
		Long: `Print the JSON Schema of the policy file. Editors that speak YAML complete and check keys by it, where the file begins
with a line such as

  # yaml-language-server: $schema=policy.schema.json

Rules on what goes together are beyond a schema: "tailxds check" knows them.`,
		Example: "  tailxds schema > policy.schema.json",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := policy.Schema()
			if err != nil {
				return err
			}
			return write(cmd.OutOrStdout(), text)
		},
	}
}

// eachFault writes what is wrong with a file, one fault a line, as compilers and
// editors do; the error counts them.
func eachFault(to io.Writer, path string, err error) error {
	var faults yamldoc.Faults
	if !errors.As(err, &faults) {
		return err
	}
	for _, f := range faults {
		fmt.Fprintf(to, "%s:%d:%d: %s\n", path, f.Line, f.Column, input.Printable(f.Text()))
	}
	if len(faults) == 1 {
		return fmt.Errorf("%s: 1 fault", path)
	}
	return fmt.Errorf("%s: %d faults", path, len(faults))
}

// unserved are the services of a policy that no device has, and what else the
// devices show of it.
func unserved(ctx context.Context, path string, rules topology.Rules, policy policy.Policy) ([]string, error) {
	if err := checkRules(rules); err != nil {
		return nil, err
	}
	src, _, err := provider.Open(provider.Config{Provider: provider.File, Devices: path})
	if err != nil {
		return nil, err
	}
	devices, err := src.List(ctx)
	if err != nil {
		return nil, err
	}
	rules.Now = time.Now()
	t, problems := topology.Build(devices, rules)
	has := make(map[string]bool)
	for _, s := range t.Services {
		has[s.Name] = len(s.Serving())+len(s.Idle) > 0
	}
	var warnings []string
	for _, name := range slices.Sorted(maps.Keys(policy.Services)) {
		if !has[name] {
			warnings = append(warnings, "no device has the service "+name+": requests to it are answered 503")
		}
	}
	for _, p := range slices.Concat(problems, policy.Problems(t)) {
		warnings = append(warnings, p.String())
	}
	return warnings, nil
}
