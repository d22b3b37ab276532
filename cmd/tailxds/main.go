// Command tailxds turns a tailnet into one weighted, self-healing pool of
// servers: it watches the tailnet's devices and serves them to Envoys as xDS.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	// The image holds nothing but this program: where there are no system
	// roots, an API's certificate is verified with Mozilla's.
	_ "golang.org/x/crypto/x509roots/fallback"

	"github.com/tailxds/tailxds/internal/cli"
)

func main() {
	os.Exit(run())
}

// run runs the command until it ends or a signal asks it to. A second signal
// ends the process at once.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	return cli.Run(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr)
}
