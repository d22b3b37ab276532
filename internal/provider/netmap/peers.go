package netmap

import (
	"maps"
	"slices"
	"sync"

	"tailscale.com/ipn"
	"tailscale.com/ipn/ipnstate"
	"tailscale.com/tailcfg"

	"github.com/tailxds/tailxds/internal/topology"
)

// peers are the devices of the netmap, kept up to date by the events of the
// node's bus, so that a change costs what changed and not the whole netmap.
type peers struct {
	mu       sync.Mutex
	complete bool // whether all peers are here and followed
	byID     map[tailcfg.NodeID]topology.Device
	pendingPeers
}

// list copies the devices out, and reports whether they are complete.
func (p *peers) list() ([]topology.Device, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.complete {
		return []topology.Device{}, false
	}
	devices := slices.AppendSeq(make([]topology.Device, 0, len(p.byID)), maps.Values(p.byID))
	p.markOffline(devices)
	return devices, true
}

// start takes all peers from the status that begins a watch.
func (p *peers) start(status *ipnstate.Status) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.byID = make(map[tailcfg.NodeID]topology.Device, len(status.Peer))
	for _, peer := range status.Peer {
		if peer != nil {
			p.byID[peer.NodeID] = statusDevice(peer)
			p.observe(peer.NodeID, p.byID[peer.NodeID], peer.Relay != "")
		}
	}
	p.retain(p.byID)
	p.complete = true
}

// stop drops the peers at the end of a watch: from now on changes may be missed.
func (p *peers) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.complete, p.byID = false, nil
}

// replace takes all peers from a whole new netmap, and reports whether it changed
// any device.
func (p *peers) replace(nodes []*tailcfg.Node) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.byID
	p.byID = make(map[tailcfg.NodeID]topology.Device, len(nodes))
	for _, node := range nodes {
		if node != nil {
			p.byID[node.ID] = nodeDevice(node)
			p.observe(node.ID, p.byID[node.ID], reachable(node))
		}
	}
	p.retain(p.byID)
	return !maps.EqualFunc(before, p.byID, topology.Device.Equal)
}

// apply applies an event, and reports whether it changed any device.
func (p *peers) apply(event *ipn.Notify) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	changed := false
	for _, node := range event.PeersChanged {
		if node == nil {
			continue
		}
		d := nodeDevice(node)
		if old, known := p.byID[node.ID]; !known || !old.Equal(d) {
			p.byID[node.ID], changed = d, true
		}
		p.observe(node.ID, d, reachable(node))
	}
	for _, patch := range event.PeerChangedPatch {
		if patch == nil {
			continue
		}
		if d, known := p.byID[patch.NodeID]; known && patch.Online != nil && *patch.Online != d.Online {
			d.Online = *patch.Online
			p.byID[patch.NodeID], changed = d, true
			p.observe(patch.NodeID, d, false)
		}
	}
	for _, id := range event.PeersRemoved {
		if _, known := p.byID[id]; known {
			delete(p.byID, id)
			changed = true
		}
		p.forget(id)
	}
	return changed
}

// fromStatus returns the devices of a status that is read before the first watch,
// or between two. A peer that joined between them is looked up once the next has
// begun.
func (p *peers) fromStatus(status *ipnstate.Status) []topology.Device {
	p.mu.Lock()
	defer p.mu.Unlock()
	watched := p.reached != nil // else no peer is looked up
	devices := make([]topology.Device, 0, len(status.Peer))
	for _, peer := range status.Peer {
		if peer == nil {
			continue
		}
		d := statusDevice(peer)
		devices = append(devices, d)
		if watched {
			p.observe(peer.NodeID, d, peer.Relay != "")
		}
	}
	p.markOffline(devices)
	return devices
}

// markPendingOffline marks the pending peers among devices of another source as
// offline.
func (p *peers) markPendingOffline(devices []topology.Device) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.markOffline(devices)
}

// pendingIDs returns the pending peers.
func (p *peers) pendingIDs() []tailcfg.NodeID {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.pending))
}

// markReachable ends a peer's time as pending, and reports whether it still was
// pending: it may have left while it was looked up.
func (p *peers) markReachable(id tailcfg.NodeID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, pending := p.pending[id]
	if pending {
		delete(p.pending, id)
		p.reached[id] = true
	}
	return pending
}
