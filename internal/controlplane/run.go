package controlplane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"tailscale.com/ipn"

	"github.com/tailxds/tailxds/internal/api"
	"github.com/tailxds/tailxds/internal/envoy"
	"github.com/tailxds/tailxds/internal/provider"
	"github.com/tailxds/tailxds/internal/provider/netmap"
	"github.com/tailxds/tailxds/internal/store"
	"github.com/tailxds/tailxds/internal/systemd"
	"github.com/tailxds/tailxds/internal/tailnet"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/version"
	"github.com/tailxds/tailxds/internal/xds"
)

// Run runs a control plane until ctx ends.
func Run(ctx context.Context, o Config, log *slog.Logger) error {
	stateDir, err := o.stateDir()
	if err != nil {
		return err
	}
	if err := provider.Check(o.providerConfig(log), o.Listen == ""); err != nil {
		return err
	}
	if to := provider.PlainHTTP(o.providerConfig(log)); to != "" {
		log.Warn("the API token is sent unencrypted: use https, or an API on this machine", "to", to)
	}
	unlock, err := lock(stateDir)
	if err != nil {
		return err
	}
	defer unlock()
	var node ipn.StateStore
	var kept store.Store = store.File(filepath.Join(stateDir, "memory.json"))
	if o.StateStore != "" {
		if node, err = tailnet.OpenStateStore(o.StateStore, log); err != nil {
			return err
		}
		kept = store.Node{Store: node, Key: stateKey}
	}
	d, err := New(o, kept, log)
	if err != nil {
		return err
	}
	if err := d.firstDevices(ctx); err != nil {
		return err
	}
	tell, err := systemd.Notifier()
	if err != nil {
		log.Warn("nobody is told that it has started", "error", err)
	}
	adminListener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.Admin)
	if err != nil {
		return fmt.Errorf("listen for the admin pages: %w (choose another address with --admin)", err)
	}

	listening := func(xds string) {
		if err := saveAddresses(stateDir, api.Addresses{Admin: adminListener.Addr().String(), XDS: xds}); err != nil {
			log.Warn("cannot save the addresses that the control plane listens on", "error", err)
		}
	}
	listening("")
	defer func() { _ = os.Remove(filepath.Join(stateDir, api.AddressesFile)) }() // it may not have been saved

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.dashboard.Run(ctx) })
	g.Go(func() error { return api.Serve(ctx, adminListener, d.adminHandler()) })
	g.Go(func() error { return d.join(ctx, g, stateDir, node, listening) })
	g.Go(func() error {
		systemd.Report(ctx, tell, d.readiness)
		return nil
	})
	log.Info("starting", "version", version.Current().Version, "admin", adminListener.Addr().String(), "state", stateDir)
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil // told to stop
}

// join joins the tailnet, or listens locally, and starts what feeds and serves
// the resources. It calls listening with the address of xDS, and returns once all is started.
func (d *ControlPlane) join(ctx context.Context, g *errgroup.Group, stateDir string, node ipn.StateStore, listening func(xds string)) error {
	config := d.config.providerConfig(d.log)
	config.Last = d.list.Devices
	var listener net.Listener
	leave, meet := func() {}, func(context.Context) error { return nil }
	server := xds.Config{Types: envoy.Types(), AllowTags: d.config.Allow, OnChange: d.changed, Services: []func(grpc.ServiceRegistrar){d.reports.Register}, Log: d.log}
	if d.config.Listen != "" {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", d.config.Listen)
		if err != nil {
			return fmt.Errorf("listen for xDS: %w (choose another address with --listen)", err)
		}
		listener = l
	} else {
		authKey, err := d.config.AuthKey.Value()
		if err != nil {
			return fmt.Errorf("auth key: %w", err)
		}
		t, err := tailnet.Join(ctx, tailnet.Config{
			Hostname: d.config.Hostname, Dir: filepath.Join(stateDir, "tsnet"), Store: node, ControlURL: d.config.ControlURL, AuthKey: authKey,
			AdvertiseTags: d.config.AdvertiseTags, Port: d.config.Port, JoinWarning: d.config.JoinWarning, Log: d.log,
			Progress: func(reason string) { d.joining.Store(&reason) },
		})
		if err != nil {
			return err
		}
		leave, listener, config.Node = t.Close, t.Listener, netmap.New(t.LocalClient, d.log)
		server.Identify, d.ownKeyExpires = identifyBy(t, d.config.Rules.TagPrefix), t.KeyExpiry
		d.tailnet = t
		if meet, err = d.servePeers(t); err != nil {
			leave()
			return err
		}
	}

	src, name, err := provider.Open(config)
	if err != nil {
		leave()
		return err
	}
	watcher := provider.NewWatcher(src, provider.Options{
		Provider: name,
		Interval: d.config.PollInterval,
		LastGood: d.memory.List,
		Log:      d.log,
	})
	d.start(watcher, xds.NewServer(server))
	listening(listener.Addr().String())
	d.log.Info("serving xDS", "address", listener.Addr().String(), "provider", name)

	g.Go(func() error { return watcher.Run(ctx) })
	g.Go(func() error {
		defer leave() // no sooner, or the listeners' end would be an error
		var on errgroup.Group
		on.Go(func() error { return d.server.Serve(ctx, listener) })
		on.Go(func() error { return meet(ctx) })
		return on.Wait()
	})
	g.Go(func() error { return d.watchPolicy(ctx) })
	writing, written := context.WithCancel(context.WithoutCancel(ctx))
	g.Go(func() error { return d.stateWriter.writer.Run(writing) })
	g.Go(func() error {
		defer written() // what the loop said last is kept, too
		return d.loop(ctx)
	})
	return nil
}

// saveAddresses replaces the file that [api.ReadAddresses] reads.
func saveAddresses(stateDir string, a api.Addresses) error {
	text, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return store.File(filepath.Join(stateDir, api.AddressesFile)).Save(append(text, '\n'))
}

// identifyBy tells xDS who a device of the tailnet is.
func identifyBy(t *tailnet.Node, tagPrefix string) xds.IdentifyFunc {
	return func(ctx context.Context, from netip.AddrPort) (xds.Identity, error) {
		peer, err := t.WhoIs(ctx, from)
		if errors.Is(err, tailnet.ErrUnknownPeer) {
			return xds.Identity{}, xds.ErrUnknownPeer
		} else if err != nil {
			return xds.Identity{}, err
		}
		return xds.Identity{Name: peer.Name, Tags: peer.Tags, Addresses: peer.Addresses, Region: topology.RegionOf(peer.Tags, tagPrefix)}, nil
	}
}

func (o Config) providerConfig(log *slog.Logger) provider.Config {
	return provider.Config{
		Provider: o.Provider, Tailnet: o.Tailnet, APIURL: o.APIURL, ControlURL: o.ControlURL,
		APIToken: o.APIToken, ClientID: o.ClientID, ClientSecret: o.ClientSecret,
		Devices: o.Devices, TagPrefix: o.Rules.TagPrefix, MaxBytes: o.MaxResponseBytes, Log: log,
	}
}

// lock keeps a second control plane out of a state directory: two with one node
// key would take turns in throwing each other off the tailnet. The kernel gives
// it back however the process ends.
func lock(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the state directory: %w (give a writable one with --state-dir)", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		_ = f.Close()
		return nil, fmt.Errorf("the state directory %s is in use by another control plane: stop it, or give this one its own with --state-dir", dir)
	}
	// A file system that knows no locks keeps nobody out.
	return func() { _ = f.Close() }, nil
}

// stateDir makes the state directory, for its owner only.
func (o Config) stateDir() (string, error) {
	dir := o.StateDir
	if dir == "" {
		base := os.Getenv("XDG_STATE_HOME")
		if base == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				return "", fmt.Errorf("find the state directory: %w (give one with --state-dir)", err)
			}
			base = filepath.Join(home, ".local", "state")
		}
		dir = filepath.Join(base, "tailxds")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make the state directory: %w (give a writable one with --state-dir)", err)
	}
	return dir, nil
}
