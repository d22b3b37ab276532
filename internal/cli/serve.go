package cli

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/tailxds/tailxds/internal/api"
	"github.com/tailxds/tailxds/internal/controlplane"
	"github.com/tailxds/tailxds/internal/provider"
)

func serveCommand(env environment) *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the control plane",
		Long: "Run the control plane: watch the tailnet's devices and serve them to Envoys as xDS.\n\n" +
			"A flag wins over its environment variable. A value file:PATH is read from the file.",
		Example: "  TS_ENVOY_AUTHKEY=tskey-auth-... tailxds serve --config policy.yaml\n" +
			"  tailxds serve --provider headscale --control-url https://headscale.example.com --api-token file:/run/token\n" +
			"  tailxds serve --provider file --devices devices.yaml --listen 127.0.0.1:18000 --default-service hello",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			log, err := newLogger(o.LogLevel, o.LogFormat, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			redirectLibraryLogs(log)
			for _, s := range env.unknownVariables(cmd.Root()) {
				log.Warn("an environment variable is no setting of tailxds and is ignored", "variable", s.name, "likely", s.likely)
			}
			return controlplane.Run(cmd.Context(), o.Config, log)
		},
	}
	serveFlags(newBinder(cmd, env), &o)
	underHeadings(cmd, serveHeadings()...)
	return cmd
}

// serveOptions are the values of all flags of serve.
type serveOptions struct {
	controlplane.Config
	LogLevel, LogFormat string
}

// serveFlags declares every flag of serve.
func serveFlags(b *binder, o *serveOptions) {
	b.choice(&o.Provider, "provider", provider.Auto, "where devices come from: ", provider.Names()...)
	b.str(&o.Tailnet, "tailnet", "-", "tailnet of the Tailscale API")
	b.str(&o.APIURL, "api-url", "", "base URL of the Tailscale or headscale API (default Tailscale's)")
	b.secretFlag(&o.APIToken, "api-token", "API key of Tailscale or headscale")
	b.secretFlag(&o.ClientID, "client-id", "OAuth client, instead of a token")
	b.secretFlag(&o.ClientSecret, "client-secret", "its secret; scope devices:core:read")
	b.dur(&o.PollInterval, "poll-interval", 15*time.Second, "longest time between lists; the netmap wakes them sooner")
	b.str(&o.Hostname, "hostname", "tsnet-dynamic-eds", "name on the tailnet")
	b.flags.Uint16Var(&o.Port, "port", 18000, "xDS port, on the tailnet only")
	b.bind("port")
	b.str(&o.Listen, "listen", "", "serve xDS on this host:port and join no tailnet; every peer may connect")
	b.secretFlag(&o.AuthKey, "authkey", "auth key to join the tailnet with", "TS_AUTHKEY")
	b.str(&o.ControlURL, "control-url", "", "coordination server, such as headscale's URL (default Tailscale's)", "TS_CONTROL_URL")
	b.List(&o.AdvertiseTags, "advertise-tags", "tags to ask for when joining the tailnet")
	b.List(&o.Allow, "allow", "tags whose bearers may connect though they are no endpoint")
	b.List(&o.Peers, "peer", "other control planes of this tailnet, to exchange drains and connected Envoys with")
	b.str(&o.StateDir, "state-dir", "", "node key and last good device list (default the XDG state directory)")
	b.str(&o.StateStore, "state-store", "", "where the node key lives if not in the state directory: kube:SECRET")
	b.str(&o.Admin, "admin", api.DefaultAddress, "address of the admin pages")
	b.List(&o.AdminHosts, "admin-host", "host names under which the admin pages answer, besides localhost and IP addresses")
	b.flags.Float64Var(&o.HoldFraction, "hold-fraction", 0.5, "hold a loss of more than this share of a service's endpoints; 1 holds only what would empty it")
	b.bind("hold-fraction")
	b.dur(&o.HoldFor, "hold-for", time.Minute, "how long such a loss must stand before it is applied; 0 holds only what would empty a service")
	b.flags.Int64Var(&o.MaxResponseBytes, "max-response-bytes", 64<<20, "largest answer of an API that is read")
	b.bind("max-response-bytes")
	b.choice(&o.LogLevel, "log-level", "info", "", "debug", "info", "warn", "error")
	b.choice(&o.LogFormat, "log-format", "text", "", "text", "json")
	topologyFlags(b, &o.Rules, &o.Devices, &o.PolicyFile)
}
