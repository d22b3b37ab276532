package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/mdlayher/sdnotify"
	"github.com/spf13/cobra"

	"github.com/tailxds/tailxds/internal/shutdown"
	"github.com/tailxds/tailxds/internal/systemd"
)

// maxWait bounds a sidecar's wait: Kubernetes kills it long before.
const maxWait = time.Hour

// drainAtStopCommand runs beside Envoy and a server, does nothing until it is
// asked to stop, and then lets their clients leave before anything else ends. A
// person who tries it takes no server out: it is in no list of commands, and a
// terminal's Ctrl-C is not what it waits for.
func drainAtStopCommand() *cobra.Command {
	opts := shutdown.Options{}
	cmd := &cobra.Command{
		Use:    "drain-at-stop",
		Short:  "A sidecar's: wait for SIGTERM, then take Envoy and the server beside it out of the rotation",
		Hidden: true,
		Long: `Runs as a container beside Envoy and a server. It idles until SIGTERM; Ctrl-C does nothing. Then it tells Envoy to
close clients' connections with their next answer, makes the server fail its health checks, and ends when --wait is
over: by then every Envoy of the tailnet has stopped choosing the server, and it can be stopped without a failed
request.

To take a device out by hand, run tailxds drain DEVICE beside the control plane.`,
		Example: "  tailxds drain-at-stop --unhealthy-url http://127.0.0.1:8080/unhealthy --wait 15s",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if opts.Wait < 0 || opts.Wait > maxWait {
				return invalidValue("--wait", opts.Wait, "from 0s to "+short(maxWait))
			}
			for flag, value := range map[string]string{"envoy-admin": opts.EnvoyAdmin, "unhealthy-url": opts.UnhealthyURL, "healthy-url": opts.HealthyURL} {
				if err := httpURL("--"+flag, value); err != nil {
					return err
				}
			}
			signal.Ignore(os.Interrupt)
			notify, err := systemd.Notifier()
			if err != nil {
				fmt.Fprintln(cmd.ErrOrStderr(), err)
			}
			if err := shutdown.Undo(cmd.Context(), opts); err != nil {
				fmt.Fprintln(cmd.ErrOrStderr(), "an earlier drain may not be over:", err)
			}
			fmt.Fprintln(cmd.ErrOrStderr(), "waiting for SIGTERM, to drain the server beside this; Ctrl-C does nothing")
			notify(sdnotify.Ready) // not before SIGTERM drains, and does not just end this
			<-cmd.Context().Done()
			return shutdown.Run(context.WithoutCancel(cmd.Context()), opts)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&opts.EnvoyAdmin, "envoy-admin", "http://127.0.0.1:9901", "Envoy's admin page; empty tells no Envoy")
	flags.StringVar(&opts.UnhealthyURL, "unhealthy-url", "", "asked with GET to make the server fail its health checks")
	flags.StringVar(&opts.HealthyURL, "healthy-url", "", "asked with GET at the start, to undo that of an earlier drain")
	flags.DurationVar(&opts.Wait, "wait", 10*time.Second, "how long clients and Envoys have to notice")
	return cmd
}
