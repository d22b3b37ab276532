package cli

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tailxds/tailxds/internal/version"
)

func versionCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version, and what it was built from",
		Example: "  tailxds version -o json",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output == "json" {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(version.Current())
			}
			return printBuild(cmd.OutOrStdout(), version.Current())
		},
	}
	outputFlag(cmd.Flags(), &output, "text", "json")
	return cmd
}

func printBuild(out io.Writer, b version.Build) error {
	from := ""
	if b.Commit != "" {
		from = "commit " + b.Commit + ", "
	}
	if _, err := fmt.Fprintf(out, "tailxds %s (%s%s, %s)\n", b.Version, from, b.Go, b.Platform); err != nil {
		return fmt.Errorf("print the version: %w", err)
	}
	return nil
}
