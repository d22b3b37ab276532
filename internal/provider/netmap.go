package provider

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"tailscale.com/client/local"
	"tailscale.com/ipn"
	"tailscale.com/ipn/ipnstate"

	"github.com/tailxds/tailxds/internal/topology"
)

// netmap lists the peers that the coordination server shows to the control
// plane's own node, with their grants. It needs no credential but the node's.
type netmap struct {
	local *local.Client
	log   *slog.Logger
	// peers and self are kept by Watch; until they are whole, List reads them itself.
	peers peers
	self  self
	// came tells that there is a newcomer that can't be reached yet.
	came chan struct{}
	// grants are read only from List, so from one goroutine.
	grants *grants
	// down is set while the node has no map session with the coordination
	// server, so that what it knows of its peers grows old.
	down atomic.Bool
	// policy counts the times that the tailnet's policy may have changed, and
	// watched is set while somebody counts. filters is how many filters had come
	// when it was counted last, and read is the policy when it was read last.
	policy  atomic.Uint64
	watched atomic.Bool
	filters atomic.Pointer[string]
	reading sync.Mutex
	read    string
}

func openNetmap(cfg Config) (Source, error) {
	if cfg.Local == nil {
		return nil, errNeedsTailnet
	}
	return newNetmap(cfg.Local, cfg.Log), nil
}

func newNetmap(lc *local.Client, log *slog.Logger) *netmap {
	return &netmap{local: lc, log: log, came: make(chan struct{}, 1), grants: newGrants(lc)}
}

// errLinkDown fails a list that would pass old news for new. The watch is woken
// when the link is back.
var errLinkDown = errors.New("the control plane's own link to the coordination server is down, so its netmap is growing old; is the server up and reachable from here?")

// List gives the peers of the node and their grants.
func (n *netmap) List(ctx context.Context) ([]topology.Device, error) {
	status, devices, err := n.peersOf(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the netmap: %w", err)
	}
	if !n.LinkUp() {
		return nil, errLinkDown
	}
	slices.SortFunc(devices, func(a, b topology.Device) int { return topology.CompareIDs(a.ID, b.ID) })
	if err := n.grants.add(ctx, devices, status.TailscaleIPs, n.policyVersion()); err != nil {
		return nil, fmt.Errorf("read the grants of the netmap: %w", err)
	}
	return devices, nil
}

// peersOf gives the peers that Watch keeps, or asks for all of them if it does
// not; that costs time and memory for every peer there is.
func (n *netmap) peersOf(ctx context.Context) (*ipnstate.Status, []topology.Device, error) {
	devices, whole := n.peers.list()
	ask := n.local.Status
	if whole {
		ask = n.ownStatus
	}
	status, err := ask(ctx)
	if err != nil {
		return nil, nil, err // List says what it was doing
	}
	if err := n.check(status); err != nil {
		return nil, nil, err
	}
	if !whole {
		devices = n.peers.glance(status)
	}
	return status, devices, nil
}

// ownStatus is the node's status without peers: the last one, if Watch keeps it up
// to date.
func (n *netmap) ownStatus(ctx context.Context) (*ipnstate.Status, error) {
	if last := n.self.last(); last != nil && n.watched.Load() {
		return last, nil
	}
	return n.self.ask(ctx, n.local.StatusWithoutPeers)
}

// check fails if the node has no netmap: an empty list would be a lie then.
func (n *netmap) check(status *ipnstate.Status) error {
	if status == nil {
		return errors.New("the node tells no status")
	}
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

// withGrants adds the grants that the node sees to the devices of another
// source, and lets the netmap wake it.
func withGrants(src Source, n *netmap) Source {
	return granted{src: src, netmap: n}
}

type granted struct {
	src    Source
	netmap *netmap
}

// List adds grants to what the source lists.
func (g granted) List(ctx context.Context) ([]topology.Device, error) {
	devices, err := g.src.List(ctx)
	if err != nil {
		return nil, err // the source says what it was doing
	}
	status, err := g.netmap.ownStatus(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the node's status: %w", err)
	}
	if err := g.netmap.check(status); err != nil {
		return nil, err
	}
	g.netmap.peers.silence(devices)
	if err := g.netmap.grants.add(ctx, devices, status.TailscaleIPs, g.netmap.policyVersion()); err != nil {
		return nil, fmt.Errorf("read the grants of the netmap: %w", err)
	}
	return devices, nil
}

// LinkUp is the netmap's.
func (g granted) LinkUp() bool { return g.netmap.LinkUp() }

// Watch watches the netmap, and the source too if it can be watched.
func (g granted) Watch(ctx context.Context, wake func()) {
	watchAll(ctx, wake, g.netmap, g.src)
}
