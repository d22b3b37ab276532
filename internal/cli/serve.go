package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"tailscale.com/ipn"

	"github.com/tailxds/tailxds/internal/api"
	"github.com/tailxds/tailxds/internal/envoy"
	"github.com/tailxds/tailxds/internal/provider"
	"github.com/tailxds/tailxds/internal/store"
	"github.com/tailxds/tailxds/internal/version"
	"github.com/tailxds/tailxds/internal/xds"
)

func serveCommand(env environment) *cobra.Command {
	var o options
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
			log, err := newLogger(o, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			oneLog(log)
			for _, s := range env.strays(cmd.Root()) {
				log.Warn("an environment variable is no setting of tailxds and is ignored", "variable", s.name, "likely", s.likely)
			}
			return serve(cmd.Context(), o, cmd.ErrOrStderr())
		},
	}
	serveFlags(newBinder(cmd, env), &o)
	under(cmd, serveHeadings()...)
	return cmd
}

// serve runs the control plane until ctx ends.
func serve(ctx context.Context, o options, logTo io.Writer) error {
	log, err := newLogger(o, logTo)
	if err != nil {
		return err
	}
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
	node, err := o.nodeStore(nodeLog(log))
	if err != nil {
		return err
	}
	var kept store.Store = store.File(filepath.Join(stateDir, "memory.json"))
	if node != nil {
		kept = store.Node{Store: node, Key: memoryKey}
	}
	d, err := newDaemon(o, kept, log)
	if err != nil {
		return err
	}
	if err := d.firstDevices(ctx); err != nil {
		return err
	}
	tell, err := supervisor()
	if err != nil {
		log.Warn("nobody is told that it has started", "error", err)
	}
	adminListener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.Admin)
	if err != nil {
		return fmt.Errorf("listen for the admin pages: %w (choose another address with --admin)", err)
	}

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.page.Run(ctx) })
	g.Go(func() error { return api.Serve(ctx, adminListener, d.adminHandler()) })
	g.Go(func() error { return d.run(ctx, g, stateDir, node) })
	g.Go(func() error {
		tellSupervisor(ctx, tell, d.readiness)
		return nil
	})
	log.Info("starting", "version", version.Current().Version, "admin", adminListener.Addr().String(), "state", stateDir)
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil // told to stop
}

// run joins the tailnet, or listens locally, and starts what feeds and serves
// the resources. It returns once all is started.
func (d *daemon) run(ctx context.Context, g *errgroup.Group, stateDir string, node ipn.StateStore) error {
	config := d.o.providerConfig(d.log)
	config.Last = d.list.Devices
	var listener net.Listener
	leave, meet := func() {}, func(context.Context) error { return nil }
	server := xds.Config{Types: envoy.Types(), AllowTags: d.o.Allow, OnChange: d.changed, Services: []func(grpc.ServiceRegistrar){d.reports.Register}, Log: d.log}
	if d.o.Listen != "" {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", d.o.Listen)
		if err != nil {
			return fmt.Errorf("listen for xDS: %w (choose another address with --listen)", err)
		}
		listener = l
	} else {
		t, err := joinTailnet(ctx, d.o, stateDir, node, d.log, func(reason string) { d.joining.Store(&reason) })
		if err != nil {
			return err
		}
		leave, listener, config.Local = t.close, t.listener, t.local
		server.Identify, d.ownKeyExpires = t.identify, t.keyExpires
		d.tailnet = t
		if meet, err = d.meet(t); err != nil {
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
		Interval: d.o.PollInterval,
		LastGood: d.memory.List,
		Log:      d.log,
	})
	d.start(watcher, xds.NewServer(server))
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
	g.Go(func() error { return d.keeper.writer.Run(writing) })
	g.Go(func() error {
		defer written() // what the loop said last is kept, too
		return d.loop(ctx)
	})
	return nil
}

func (o options) providerConfig(log *slog.Logger) provider.Config {
	return provider.Config{
		Provider: o.Provider, Tailnet: o.Tailnet, APIURL: o.APIURL, ControlURL: o.ControlURL,
		APIToken: o.APIToken, ClientID: o.ClientID, ClientSecret: o.ClientSecret,
		Devices: o.Devices, TagPrefix: o.TagPrefix, MaxBytes: o.MaxResponseBytes, Log: log,
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
func (o options) stateDir() (string, error) {
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
