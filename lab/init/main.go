// Command lab-init makes what the lab needs before and while it starts, so that
// nothing secret has to be in the repository.
//
//	lab-init prepare   certificate, Envoy's bootstrap, owners of the volumes
//	lab-init keys      keys for the tailnet, minted by headscale
//	lab-init ready     is the Envoy in this network namespace ready?
//	lab-init get URL   prints what URL answers, e.g. http://127.0.0.1:9901/clusters
//	lab-init forward LISTEN ADDRESS      hands connections on
//	lab-init path cut ADDRESS...         loses what arrives from these addresses
//	lab-init path slow DELAY ADDRESS...  delays it; both until they are told to stop
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Where things lie in the containers; compose.yaml mounts a volume at each.
const (
	programs        = "/usr/local/bin"     // of this image
	sharedDir       = "/lab"               // everyone reads it: the CA, Envoy's bootstrap, programs
	headscaleDir    = "/var/lib/headscale" // headscale's alone
	socketDir       = "/run/headscale"     // headscale's socket
	keysDir         = "/keys/servers"      // what servers and the laptop join with
	controlKeysDir  = "/keys/control-plane"
	stateDir        = "/var/lib/tailxds" // the control plane's
	headscaleBinary = "/ko-app/headscale"
)

// labUser runs headscale, the control plane and the key minting.
const labUser = 65532

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Getenv, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab-init:", err)
		os.Exit(1) //nolint:forbidigo // this is main
	}
}

func run(ctx context.Context, args []string, getenv func(string) string, out io.Writer) error {
	switch {
	case len(args) == 1 && args[0] == "prepare":
		return prepare(getenv, out)
	case len(args) == 1 && args[0] == "keys":
		return mintKeys(ctx, headscaleCLI, out)
	case len(args) == 1 && args[0] == "ready":
		return ready(ctx, "http://127.0.0.1:9901", "127.0.0.1:10000")
	case len(args) == 2 && args[0] == "get":
		return get(ctx, args[1], out)
	case len(args) == 3 && args[0] == "forward":
		return forward(ctx, args[1], args[2])
	case len(args) > 0 && args[0] == "path":
		h, err := parseImpairment(args[1:])
		if err != nil {
			return err
		}
		return impair(ctx, h, out)
	default:
		return errors.New("usage: lab-init prepare | keys | ready | get URL | forward LISTEN ADDRESS | path cut ADDRESS… | path slow DELAY ADDRESS…")
	}
}
