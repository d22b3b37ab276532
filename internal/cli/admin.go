package cli

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tailxds/tailxds/internal/api"
	"github.com/tailxds/tailxds/internal/input"
)

// adminCommand makes a command that talks to a running control plane.
func adminCommand(env environment, use, short string, run func(*cobra.Command, []string, api.Client) error) *cobra.Command {
	var address string
	cmd := &cobra.Command{
		Use: use, Short: short, Args: noArguments,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := api.NewClient(address)
			if err != nil {
				return fmt.Errorf("%s is %w", setting("admin"), err)
			}
			return run(cmd, args, c)
		},
	}
	newBinder(cmd, env).str(&address, "admin", api.DefaultAddress, "address of the control plane's admin pages")
	return cmd
}

// printAnswer prints a page of one line.
func printAnswer(cmd *cobra.Command, c api.Client, method, path string) error {
	body, err := c.Do(cmd.Context(), method, path, http.NoBody)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), input.Printable(strings.TrimSpace(string(body))))
	return err
}
