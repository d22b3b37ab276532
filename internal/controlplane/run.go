package controlplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"tailscale.com/ipn"

	"github.com/tailxds/tailxds/internal/api"
	"github.com/tailxds/tailxds/internal/provider"
	"github.com/tailxds/tailxds/internal/store"
	"github.com/tailxds/tailxds/internal/systemd"
	"github.com/tailxds/tailxds/internal/tailnet"
	"github.com/tailxds/tailxds/internal/version"
)

// Run runs a control plane until ctx ends. While it joins its tailnet, the admin
// address answers already, with why that takes so long.
func Run(ctx context.Context, config Config, log *slog.Logger) error {
	stateDir, err := config.stateDir()
	if err != nil {
		return err
	}
	if err := provider.Check(config.providerConfig(log), config.Listen == ""); err != nil {
		return err
	}
	if to := provider.PlainHTTP(config.providerConfig(log)); to != "" {
		log.Warn("the API token is sent unencrypted: use https, or an API on this machine", "to", to)
	}
	unlock, err := lock(stateDir)
	if err != nil {
		return err
	}
	defer unlock()
	var node ipn.StateStore
	var saved store.Store = store.File(filepath.Join(stateDir, "memory.json"))
	if config.StateStore != "" {
		if node, err = tailnet.OpenStateStore(config.StateStore, log); err != nil {
			return err
		}
		saved = store.Node{Store: node, Key: stateKey}
	}
	begin, err := begin(ctx, config, saved, log)
	if err != nil {
		return err
	}
	notify, err := systemd.Notifier()
	if err != nil {
		log.Warn("cannot notify the supervisor of the start", "error", err)
	}
	admin, err := (&net.ListenConfig{}).Listen(ctx, "tcp", config.Admin)
	if err != nil {
		return fmt.Errorf("listen for the admin pages: %w (choose another address with --admin)", err)
	}

	saveAddresses := func(xds string) {
		if err := writeAddresses(stateDir, api.Addresses{Admin: admin.Addr().String(), XDS: xds}); err != nil {
			log.Warn("cannot save the addresses that the control plane listens on", "error", err)
		}
	}
	saveAddresses("")
	defer func() { _ = os.Remove(filepath.Join(stateDir, api.AddressesFile)) }() // it may not have been saved

	starting := newStartup(config, begin)
	front := newFront(starting.handler(), starting.readiness)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return api.Serve(ctx, admin, front) })
	g.Go(func() error {
		systemd.Report(ctx, notify, front.readiness)
		return nil
	})
	log.Info("starting", "version", version.Current().Version, "admin", admin.Addr().String(), "state", stateDir)
	g.Go(func() error {
		joined := starting.run(ctx)
		l, err := connect(ctx, config, begin, stateDir, node, starting.setReason, log)
		joined()
		if err != nil {
			return err
		}
		c := newControlPlane(config, begin, l, log)
		front.set(c.adminHandler(), c.readiness)
		saveAddresses(l.xds.Addr().String())
		return c.run(ctx)
	})
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil // it was asked to stop
}

// front answers on the admin address: as the startup does, and from then on as the
// control plane does.
type front struct{ current atomic.Pointer[answers] }

type answers struct {
	handler   http.Handler
	readiness func() (ready bool, detail string)
}

func newFront(handler http.Handler, readiness func() (bool, string)) *front {
	f := &front{}
	f.set(handler, readiness)
	return f
}

func (f *front) set(handler http.Handler, readiness func() (bool, string)) {
	f.current.Store(&answers{handler, readiness})
}

func (f *front) readiness() (ready bool, detail string) { return f.current.Load().readiness() }

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.current.Load().handler.ServeHTTP(w, r)
}
