package cli

import (
	"github.com/spf13/cobra"

	"github.com/tailxds/tailxds/internal/controlplane"
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
			oneLog(log)
			for _, s := range env.strays(cmd.Root()) {
				log.Warn("an environment variable is no setting of tailxds and is ignored", "variable", s.name, "likely", s.likely)
			}
			return controlplane.Run(cmd.Context(), o.Config, log)
		},
	}
	serveFlags(newBinder(cmd, env), &o)
	under(cmd, serveHeadings()...)
	return cmd
}
