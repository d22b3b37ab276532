package provider

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tailscale.com/client/local"
	"tailscale.com/ipn"
	"tailscale.com/ipn/ipnstate"
	"tailscale.com/tailcfg"

	"github.com/tailxds/tailxds/internal/topology"
)

// netmap lists the peers that the coordination server shows to the control
// plane's own node, with their grants. It needs no credential but the node's.
type netmap struct {
	local *local.Client
	log   *slog.Logger
	// grants are read only from List, so from one goroutine.
	grants *grants
	// down is set while the node has no map session with the coordination
	// server, so that what it knows of its peers grows old.
	down atomic.Bool
	// policy counts the times that the tailnet's policy may have changed, and
	// watched is set while somebody counts.
	policy  atomic.Uint64
	watched atomic.Bool
}

func openNetmap(cfg Config) (Source, error) {
	if cfg.Local == nil {
		return nil, errNeedsTailnet
	}
	return newNetmap(cfg.Local, cfg.Log), nil
}

func newNetmap(lc *local.Client, log *slog.Logger) *netmap {
	return &netmap{local: lc, log: log, grants: newGrants(lc)}
}

// List reads the peers of the node and their grants.
func (n *netmap) List(ctx context.Context) ([]topology.Device, error) {
	status, err := n.local.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the netmap: %w", err)
	}
	if err := n.check(status); err != nil {
		return nil, err
	}
	devices := make([]topology.Device, 0, len(status.Peer))
	for _, peer := range status.Peer {
		devices = append(devices, netmapDevice(peer))
	}
	if err := n.grants.add(ctx, devices, status.TailscaleIPs, n.policyVersion()); err != nil {
		return nil, fmt.Errorf("read the grants of the netmap: %w", err)
	}
	return devices, nil
}

// check fails if the node has no netmap: an empty list would be a lie then.
func (n *netmap) check(status *ipnstate.Status) error {
	up := status.Self != nil && status.Self.Online
	n.down.Store(!up)
	switch {
	case status.BackendState == ipn.NeedsLogin.String():
		return errors.New("the control plane is logged out of the tailnet: its key expired or was removed; give it a new auth key")
	case status.BackendState == ipn.NeedsMachineAuth.String():
		return errors.New("the control plane waits for an admin to approve its device on the tailnet")
	case status.BackendState != ipn.Running.String() || status.Self == nil || !status.Self.InNetworkMap:
		return fmt.Errorf("the control plane has no netmap yet (state %s)", status.BackendState)
	}
	return nil
}

// LinkUp tells whether the node is in touch with the coordination server.
func (n *netmap) LinkUp() bool { return !n.down.Load() }

// policyVersion is a number that changes with the policy; 0 if nobody watches,
// so that it may have changed at any time.
func (n *netmap) policyVersion() uint64 {
	if !n.watched.Load() {
		return 0
	}
	return n.policy.Load()
}

func netmapDevice(peer *ipnstate.PeerStatus) topology.Device {
	d := topology.Device{
		ID:     string(peer.ID),
		Name:   cmp.Or(firstLabel(peer.DNSName), peer.HostName),
		Online: peer.Online,
	}
	for _, a := range peer.TailscaleIPs {
		d.Addresses = append(d.Addresses, a.String())
	}
	if peer.Tags != nil {
		d.Tags = peer.Tags.AsSlice()
	}
	switch {
	case peer.KeyExpiry != nil:
		d.Expires = timeOrNot{*peer.KeyExpiry}.orNever()
	case peer.Expired:
		d.Expires = new(time.Unix(0, 0).UTC())
	}
	return d
}

// withGrants adds the grants that the node sees to the devices of another
// source, and lets the netmap wake it.
func withGrants(src Source, n *netmap) Source {
	return granted{src: src, netmap: n}
}

type granted struct {
	src    Source
	netmap *netmap
}

func (g granted) List(ctx context.Context) ([]topology.Device, error) {
	devices, err := g.src.List(ctx)
	if err != nil {
		return nil, err //nolint:wrapcheck // the source says what it was doing
	}
	status, err := g.netmap.local.StatusWithoutPeers(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the node's status: %w", err)
	}
	if err := g.netmap.check(status); err != nil {
		return nil, err
	}
	if err := g.netmap.grants.add(ctx, devices, status.TailscaleIPs, g.netmap.policyVersion()); err != nil {
		return nil, fmt.Errorf("read the grants of the netmap: %w", err)
	}
	return devices, nil
}

func (g granted) LinkUp() bool { return g.netmap.LinkUp() }

func (g granted) Watch(ctx context.Context, wake func()) {
	watchAll(ctx, wake, g.netmap, g.src)
}

// watchMask asks for every change of a peer, but for no netmap: since 1.102
// that comes only once.
const watchMask = ipn.NotifyInitialState | ipn.NotifyPeerChanges | ipn.NotifyPeerPatches

// resubscribe is how soon a watch that ended begins again.
const resubscribe = 200 * time.Millisecond

// Watch calls wake whenever peers, tags or the policy may have changed, until
// ctx is done. A watch that ends or falls behind begins again, and wakes, since
// something may have been missed between.
func (n *netmap) Watch(ctx context.Context, wake func()) {
	var policy sync.WaitGroup
	defer policy.Wait()
	policy.Go(func() { n.watchPolicy(ctx, wake) })
	for ctx.Err() == nil {
		if err := n.watchOnce(ctx, wake); err != nil && ctx.Err() == nil {
			n.log.Debug("netmap watch ended; it begins again", "error", err)
		}
		n.watched.Store(false)
		sleep(ctx, resubscribe)
	}
}

func (n *netmap) watchOnce(ctx context.Context, wake func()) error {
	bus, err := n.local.WatchIPNBus(ctx, watchMask)
	if err != nil {
		return fmt.Errorf("watch the netmap: %w", err)
	}
	defer bus.Close()
	n.policy.Add(1)
	n.watched.Store(true)
	wake()
	for {
		event, err := bus.Next()
		if err != nil {
			return fmt.Errorf("watch the netmap: %w", err)
		}
		if event.ErrMessage != nil {
			return fmt.Errorf("watch the netmap: %s", *event.ErrMessage)
		}
		if event.SelfChange != nil {
			n.policy.Add(1) // a whole new netmap, which may bring a new policy
		}
		if concerns(&event) {
			wake()
		}
	}
}

// concerns tells whether an event can change the list.
func concerns(event *ipn.Notify) bool {
	return event.SelfChange != nil || event.State != nil || len(event.PeersRemoved) > 0 || len(event.PeersChanged) > 0 ||
		slices.ContainsFunc(event.PeerChangedPatch, func(p *tailcfg.PeerChange) bool {
			return p.Online != nil || p.KeyExpiry != nil
		})
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
