package cli

import (
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/tailxds/tailxds/internal/api"
)

func acceptCommand(env environment) *cobra.Command {
	cmd := adminCommand(env, "accept [SERVICE]", "Let what is held through at once, of one service or of all",
		func(cmd *cobra.Command, args []string, c api.Client) error {
			path := "/accept"
			if len(args) > 0 {
				path += "?" + url.Values{"service": args}.Encode()
			}
			return printAnswer(cmd, c, http.MethodPost, path)
		})
	cmd.Args = argument{what: "a service", optional: true, max: maxName}.Check
	cmd.Example = "  tailxds accept\n  tailxds accept hello"
	return cmd
}
