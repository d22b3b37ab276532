package netmap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"

	"tailscale.com/client/local"
	"tailscale.com/ipn"
	"tailscale.com/ipn/ipnstate"

	"github.com/tailxds/tailxds/internal/topology"
)

// Node lists the peers of the control plane's own node, with their grants.
type Node struct {
	local *local.Client
	log   *slog.Logger
	// peers and self are followed by Watch; until they are complete, List reads them.
	peers peers
	self  selfStatus
	// pendingAdded wakes the look-up of pending peers.
	pendingAdded chan struct{}
	// grants are read only by List and AddGrants, so by one goroutine.
	grants *grants
	policy policyWatch
	// linkDown is set while the node has no map session with the coordination
	// server, so that what it knows of its peers grows old.
	linkDown atomic.Bool
	// watched is set while the node's bus is followed.
	watched atomic.Bool
}

// New returns the view of the node whose local API lc is.
func New(lc *local.Client, log *slog.Logger) *Node {
	return &Node{local: lc, log: log, pendingAdded: make(chan struct{}, 1), grants: newGrants(lc)}
}

// errLinkDown fails a list that would present old peers as current ones. The watch
// wakes when the link is back.
var errLinkDown = errors.New("the control plane's own link to the coordination server is down, so its netmap is growing old; is the server up and reachable from here?")

// List returns the peers of the node with their grants, sorted by ID.
func (n *Node) List(ctx context.Context) ([]topology.Device, error) {
	status, devices, err := n.listPeers(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the netmap: %w", err)
	}
	if !n.LinkUp() {
		return nil, errLinkDown
	}
	slices.SortFunc(devices, func(a, b topology.Device) int { return topology.CompareIDs(a.ID, b.ID) })
	if err := n.grants.addTo(ctx, devices, status.TailscaleIPs, n.policyVersion()); err != nil {
		return nil, fmt.Errorf("read the grants of the netmap: %w", err)
	}
	return devices, nil
}

// AddGrants sets the grants of devices that another source listed, and marks those
// as offline that the node sees as pending.
func (n *Node) AddGrants(ctx context.Context, devices []topology.Device) error {
	status, err := n.ownStatus(ctx)
	if err != nil {
		return fmt.Errorf("read the node's status: %w", err)
	}
	if err := n.checkStatus(status); err != nil {
		return err
	}
	n.peers.markPendingOffline(devices)
	if err := n.grants.addTo(ctx, devices, status.TailscaleIPs, n.policyVersion()); err != nil {
		return fmt.Errorf("read the grants of the netmap: %w", err)
	}
	return nil
}

// LinkUp reports whether the node is in touch with the coordination server.
func (n *Node) LinkUp() bool { return !n.linkDown.Load() }

// listPeers returns the peers that Watch follows, or asks for all of them if it
// does not; that costs time and memory for each peer.
func (n *Node) listPeers(ctx context.Context) (*ipnstate.Status, []topology.Device, error) {
	devices, complete := n.peers.list()
	ask := n.local.Status
	if complete {
		ask = n.ownStatus
	}
	status, err := ask(ctx)
	if err != nil {
		return nil, nil, err // List says what failed
	}
	if err := n.checkStatus(status); err != nil {
		return nil, nil, err
	}
	if !complete {
		devices = n.peers.fromStatus(status)
	}
	return status, devices, nil
}

// ownStatus returns the node's status without peers: the last one, while Watch
// keeps it up to date.
func (n *Node) ownStatus(ctx context.Context) (*ipnstate.Status, error) {
	if last := n.self.last(); last != nil && n.watched.Load() {
		return last, nil
	}
	return n.self.refresh(ctx, n.local.StatusWithoutPeers)
}

// checkStatus fails if the node has no netmap: an empty list would be wrong then.
func (n *Node) checkStatus(status *ipnstate.Status) error {
	if status == nil {
		return errors.New("the node returns no status")
	}
	n.linkDown.Store(status.Self == nil || !status.Self.Online)
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

// policyVersion returns a number that changes with the policy; 0 while the bus is
// not followed, since the policy may have changed at any time then.
func (n *Node) policyVersion() uint64 {
	if !n.watched.Load() {
		return 0
	}
	return n.policy.version.Load()
}
