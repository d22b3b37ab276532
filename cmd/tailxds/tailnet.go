package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"

	"tailscale.com/client/local"
	"tailscale.com/envknob"
	"tailscale.com/ipn"
	"tailscale.com/ipn/store/kubestore"
	"tailscale.com/tsnet"

	"github.com/tailxds/tailxds/internal/xds"
)

// tailnet is the control plane's own node on the tailnet.
type tailnet struct {
	server   *tsnet.Server
	local    *local.Client
	listener net.Listener
}

// joinTailnet brings the node up and listens for xDS on it. It waits for as
// long as the coordination server takes, or until ctx ends.
func joinTailnet(ctx context.Context, o options, stateDir string, store ipn.StateStore, log *slog.Logger) (*tailnet, error) {
	authKey, err := o.AuthKey.Value()
	if err != nil {
		return nil, fmt.Errorf("auth key: %w", err)
	}
	if o.ControlURL != "" {
		// Who runs a coordination server of their own sends no logs to Tailscale.
		envknob.SetNoLogsNoSupport()
	}
	s := &tsnet.Server{
		Dir:           filepath.Join(stateDir, "tsnet"),
		Store:         store,
		Hostname:      o.Hostname,
		AuthKey:       authKey,
		ControlURL:    o.ControlURL,
		AdvertiseTags: o.AdvertiseTags,
		Logf: func(format string, args ...any) {
			log.Debug("tsnet", "says", strings.TrimSpace(fmt.Sprintf(format, args...)))
		},
		UserLogf: func(format string, args ...any) {
			log.Info("tsnet", "says", strings.TrimSpace(fmt.Sprintf(format, args...)))
		},
	}
	status, err := s.Up(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("join the tailnet: %w (give an auth key with TS_ENVOY_AUTHKEY, or --listen to do without a tailnet)", err), s.Close())
	}
	lc, err := s.LocalClient()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reach the tailnet node: %w", err), s.Close())
	}
	listener, err := s.Listen("tcp", fmt.Sprintf(":%d", o.Port))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for xDS on the tailnet: %w", err), s.Close())
	}
	log.Info("joined the tailnet", "name", strings.TrimSuffix(status.Self.DNSName, "."), "addresses", status.TailscaleIPs, "tags", status.Self.Tags)
	return &tailnet{server: s, local: lc, listener: listener}, nil
}

// nodeStore is where the node key lives; nil is the state directory.
func (o options) nodeStore() (ipn.StateStore, error) {
	if o.StateStore == "" {
		return nil, nil
	}
	name, ok := strings.CutPrefix(o.StateStore, "kube:")
	if !ok || name == "" {
		return nil, fmt.Errorf("--state-store %q: only kube:SECRET is known", o.StateStore)
	}
	store, err := kubestore.New(func(string, ...any) {}, name)
	if err != nil {
		return nil, fmt.Errorf("open the node's state in the Kubernetes secret %s: %w", name, err)
	}
	return store, nil
}

// identify asks the tailnet who has an address.
func (t *tailnet) identify(ctx context.Context, from netip.AddrPort) (xds.Identity, error) {
	who, err := t.local.WhoIs(ctx, from.String())
	if err != nil {
		return xds.Identity{}, fmt.Errorf("WhoIs: %w", err)
	}
	identity := xds.Identity{Name: strings.TrimSuffix(who.Node.Name, "."), Tags: who.Node.Tags}
	for _, p := range who.Node.Addresses {
		identity.Addresses = append(identity.Addresses, p.Addr())
	}
	return identity, nil
}

// close leaves the tailnet's sockets; the node stays known to the tailnet, so
// that a restart has the same name and address.
func (t *tailnet) close() { _ = t.server.Close() }
