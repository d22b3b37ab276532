package cli

import (
	"net/http"

	"github.com/spf13/cobra"

	"github.com/tailxds/tailxds/internal/api"
)

func healthcheckCommand(env environment) *cobra.Command {
	cmd := adminCommand(env, "healthcheck", "Exit 0 if the control plane here serves resources",
		func(cmd *cobra.Command, _ []string, c api.Client) error {
			return printAnswer(cmd, c, http.MethodGet, "/readyz")
		})
	cmd.Example = "  tailxds healthcheck"
	return cmd
}
