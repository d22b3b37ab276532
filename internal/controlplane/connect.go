package controlplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"

	"tailscale.com/ipn"

	"github.com/tailxds/tailxds/internal/provider"
	"github.com/tailxds/tailxds/internal/provider/netmap"
	"github.com/tailxds/tailxds/internal/tailnet"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/xds"
)

// links are what connects a control plane with its tailnet and its source of
// devices.
type links struct {
	watcher *provider.Watcher
	xds     net.Listener
	// node is the control plane's own, and pages the listener on it for the live
	// page and for other control planes. Both are nil without a tailnet.
	node  *tailnet.Node
	pages net.Listener
	// identify returns which device has an address; nil lets every peer connect.
	identify xds.IdentifyFunc
}

// close leaves the tailnet.
func (l links) close() {
	if l.node != nil {
		l.node.Close()
	}
}

// pagePort is where the tailnet finds the live page, http://tsnet-dynamic-eds/,
// and other control planes find this one.
const pagePort = ":80"

// connect joins the tailnet, or listens without one, and opens the source of
// devices. It waits for the tailnet as long as it takes, and calls progress with
// each reason.
func connect(ctx context.Context, config Config, b beginning, stateDir string, node ipn.StateStore, progress func(reason string), log *slog.Logger) (links, error) {
	source := config.providerConfig(log)
	source.Last = b.list.Devices
	var l links
	if config.Listen != "" {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", config.Listen)
		if err != nil {
			return l, fmt.Errorf("listen for xDS: %w (choose another address with --listen)", err)
		}
		l.xds = listener
	} else {
		authKey, err := config.AuthKey.Value()
		if err != nil {
			return l, fmt.Errorf("auth key: %w", err)
		}
		l.node, err = tailnet.Join(ctx, tailnet.Config{
			Hostname: config.Hostname, Dir: filepath.Join(stateDir, "tsnet"), Store: node, ControlURL: config.ControlURL, AuthKey: authKey,
			AdvertiseTags: config.AdvertiseTags, Port: config.Port, JoinWarning: config.JoinWarning, Progress: progress, Log: log,
		})
		if err != nil {
			return l, err
		}
		l.xds, source.Node, l.identify = l.node.Listener, netmap.New(l.node.LocalClient, log), identifyBy(l.node, config.Rules.TagPrefix)
		if l.pages, err = l.node.Listen(pagePort); err != nil {
			l.close()
			return l, fmt.Errorf("listen for the live page: %w", err)
		}
	}
	src, name, err := provider.Open(source)
	if err != nil {
		l.close()
		return l, err
	}
	l.watcher = provider.NewWatcher(src, provider.Options{Provider: name, Interval: config.PollInterval, LastGood: b.saved.Memory.List, Log: log})
	log.Info("serving xDS", "address", l.xds.Addr().String(), "provider", name)
	return l, nil
}

// identifyBy lets xDS ask the tailnet which device has an address.
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
