// Command tailxds turns a tailnet into one weighted, self-healing pool of
// servers: it watches the tailnet's devices and serves them to Envoys as xDS.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	// The image holds nothing but this program: where there are no system
	// roots, an API's certificate is held against Mozilla's.
	_ "golang.org/x/crypto/x509roots/fallback"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "tailxds:", err)
		os.Exit(1)
	}
}

// run runs the command that was given until it ends, or until a signal. A second
// signal ends the process at once.
func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	return rootCommand(os.Environ()).ExecuteContext(ctx)
}

// rootCommand holds all commands.
func rootCommand(env environment) *cobra.Command {
	root := &cobra.Command{
		Use:           "tailxds",
		Short:         "Serve the devices of a tailnet to Envoys as one weighted, self-healing pool",
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version(),
	}
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(
		serveCommand(env),
		renderCommand(env),
		checkCommand(),
		statusCommand(env),
		topCommand(env),
		explainCommand(env),
		acceptCommand(env),
		doctorCommand(env),
		healthcheckCommand(env),
		bootstrapCommand(),
		drainCommand(env),
		restoreCommand(env),
		drainAtStopCommand(),
		versionCommand(),
		documentsCommand(),
	)
	return root
}
