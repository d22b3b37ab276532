package cli

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os/user"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tailxds/tailxds/internal/api"
)

// longestDrain bounds --for: beyond it somebody means a drain without an end.
const longestDrain = 365 * 24 * time.Hour

// drainCommand asks the control plane to give a device no new requests.
func drainCommand(env environment) *cobra.Command {
	var long time.Duration
	cmd := adminCommand(env, "drain DEVICE", "Give a device no new requests, until an end or `tailxds restore`",
		func(cmd *cobra.Command, args []string, c api.Client) error {
			query := url.Values{"device": args, "user": {localUser(env)}}
			if cmd.Flags().Changed("for") {
				if long < time.Second || long > longestDrain {
					return invalidValue("--for", long, "from 1s to 8760h (a year); without it a drain has no end")
				}
				query.Set("for", long.String())
			}
			return printAnswer(cmd, c, http.MethodPost, "/drain?"+query.Encode())
		})
	cmd.Long = `Take a device out of all its services at once: it gets no new requests, and ends what it is working on.

DEVICE is its name, its ID or an address of it on the tailnet. The word counts above posture attributes, grants and
tags, and over restarts of the control plane. If nobody else serves one of its services, it serves on there, and the
answer says so.`
	cmd.Example = "  tailxds drain west-1 --for 30m\n  tailxds drain 100.64.0.7"
	cmd.Args = argument{what: "a device", max: maxName}.Check
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if unknown := new(pflag.NotExistError); errors.As(err, &unknown) && slices.Contains([]string{"wait", "unhealthy-url", "envoy-admin"}, unknown.GetSpecifiedName()) {
			return fmt.Errorf("there is no flag --%s: what runs beside a server is `tailxds drain-at-stop` now, so upgrade the chart with the image", unknown.GetSpecifiedName())
		}
		return flagError(cmd, err)
	})
	cmd.Flags().DurationVar(&long, "for", 0, "when the device serves again by itself, such as 30m (default never)")
	return cmd
}

// restoreCommand takes a drain back.
func restoreCommand(env environment) *cobra.Command {
	cmd := adminCommand(env, "restore DEVICE", "End what `tailxds drain` said: the device serves as its own metadata says",
		func(cmd *cobra.Command, args []string, c api.Client) error {
			query := url.Values{"device": args, "user": {localUser(env)}}
			return printAnswer(cmd, c, http.MethodPost, "/restore?"+query.Encode())
		})
	cmd.Example = "  tailxds restore west-1"
	cmd.Args = argument{what: "a device", max: maxName}.Check
	return cmd
}

// localUser is the user of this machine, as far as that is known.
func localUser(env environment) string {
	if name := env.get("SUDO_USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return env.get("USER")
}
