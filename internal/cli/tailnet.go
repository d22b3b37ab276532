package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"tailscale.com/client/local"
	"tailscale.com/envknob"
	"tailscale.com/ipn"
	"tailscale.com/ipn/ipnstate"
	"tailscale.com/ipn/store/kubestore"
	"tailscale.com/tsnet"
	"tailscale.com/types/logger"

	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/xds"
)

// tailnet is the control plane's own node on the tailnet.
type tailnet struct {
	server   *tsnet.Server
	local    *local.Client
	listener net.Listener
	prefix   string // of our tags
}

// joinTailnet brings the node up and listens for xDS on it. It waits for as
// long as the coordination server takes, or until ctx ends, and tells progress
// what it waits for.
func joinTailnet(
	ctx context.Context, o options, stateDir string, store ipn.StateStore, log *slog.Logger, progress func(reason string),
) (*tailnet, error) {
	authKey, err := o.AuthKey.Value()
	if err != nil {
		return nil, fmt.Errorf("auth key: %w", err)
	}
	if o.ControlURL != "" {
		// Who runs a coordination server of their own sends no logs to Tailscale.
		envknob.SetNoLogsNoSupport()
	}
	j := &joining{server: cmp.Or(o.ControlURL, ipn.DefaultControlURL), secret: authKey, log: log, every: cmp.Or(o.JoinWarning, warnJoining)}
	progress(j.waiting())
	says := nodeLog(log)
	s := &tsnet.Server{
		Dir:           filepath.Join(stateDir, "tsnet"),
		Store:         store,
		Hostname:      o.Hostname,
		AuthKey:       authKey,
		ControlURL:    o.ControlURL,
		AdvertiseTags: o.AdvertiseTags,
		Logf: func(format string, args ...any) {
			j.hear(fmt.Sprintf(format, args...))
			says(format, args...)
		},
		UserLogf: says, // what of it concerns people, j tells
	}
	lc, err := s.LocalClient() // starts the node and waits for nobody
	if err != nil {
		return nil, fmt.Errorf("start the tailnet node: %w", err) // it has closed what it had
	}
	explained, stop := context.WithCancel(ctx)
	var explaining sync.WaitGroup
	explaining.Go(func() { j.explain(explained, lc, progress) })
	status, err := s.Up(ctx)
	stop()
	explaining.Wait()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("join the tailnet: %w (give an auth key with TS_ENVOY_AUTHKEY, or --listen to do without a tailnet)", err), s.Close())
	}
	listener, err := s.Listen("tcp", fmt.Sprintf(":%d", o.Port))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for xDS on the tailnet: %w", err), s.Close())
	}
	log.Info("joined the tailnet", "name", strings.TrimSuffix(status.Self.DNSName, "."), "addresses", texts(status.TailscaleIPs), "tags", tags(status.Self))
	return &tailnet{server: s, local: lc, listener: listener, prefix: o.TagPrefix}, nil
}

// nodeLog takes what the node and its parts say. It is much, and for debugging.
func nodeLog(log *slog.Logger) logger.Logf {
	return func(format string, args ...any) {
		log.Debug("tsnet", "says", strings.TrimSpace(fmt.Sprintf(format, args...)))
	}
}

// texts are addresses as people write them, in every format of the log.
func texts(addresses []netip.Addr) []string {
	all := []string{}
	for _, a := range addresses {
		all = append(all, a.String())
	}
	return all
}

func tags(p *ipnstate.PeerStatus) []string {
	if p.Tags == nil {
		return []string{}
	}
	return p.Tags.AsSlice()
}

// nodeStore is where the node key lives; nil is the state directory.
func (o options) nodeStore(logf logger.Logf) (ipn.StateStore, error) {
	if o.StateStore == "" {
		return nil, nil
	}
	name, ok := strings.CutPrefix(o.StateStore, "kube:")
	if !ok || name == "" {
		return nil, fmt.Errorf("--state-store %q: only kube:SECRET is known", o.StateStore)
	}
	store, err := kubestore.New(logf, name)
	if err != nil {
		return nil, fmt.Errorf("open the node's state in the Kubernetes secret %s: %w", name, err)
	}
	return store, nil
}

// identify asks the tailnet who has an address.
func (t *tailnet) identify(ctx context.Context, from netip.AddrPort) (xds.Identity, error) {
	who, err := t.local.WhoIs(ctx, from.String())
	if errors.Is(err, local.ErrPeerNotFound) {
		return xds.Identity{}, xds.ErrUnknownPeer
	} else if err != nil {
		return xds.Identity{}, fmt.Errorf("WhoIs: %w", err)
	}
	identity := xds.Identity{Name: strings.TrimSuffix(who.Node.Name, "."), Tags: who.Node.Tags, Region: topology.RegionOf(who.Node.Tags, t.prefix)}
	for _, p := range who.Node.Addresses {
		identity.Addresses = append(identity.Addresses, p.Addr())
	}
	return identity, nil
}

// keyExpires is when the node's key expires; nil if it never does, or if the
// node does not say.
func (t *tailnet) keyExpires(ctx context.Context) *time.Time {
	status, err := t.local.StatusWithoutPeers(ctx)
	if err != nil || status.Self == nil {
		return nil
	}
	return status.Self.KeyExpiry
}

// close leaves the tailnet's sockets; the node stays known to the tailnet, so
// that a restart has the same name and address.
func (t *tailnet) close() { _ = t.server.Close() }
