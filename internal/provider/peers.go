package provider

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"tailscale.com/ipn"
	"tailscale.com/ipn/ipnstate"
	"tailscale.com/tailcfg"

	"github.com/tailxds/tailxds/internal/topology"
)

// peers are the devices of the netmap, kept up to date by the events of the
// node's bus, so that a change costs what changed and not the whole netmap.
type peers struct {
	mu    sync.Mutex
	whole bool // whether they are all here and followed
	byID  map[tailcfg.NodeID]topology.Device
	newcomers
}

// list copies the devices out, and tells whether they are whole.
func (p *peers) list() ([]topology.Device, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.whole {
		return []topology.Device{}, false
	}
	devices := slices.AppendSeq(make([]topology.Device, 0, len(p.byID)), maps.Values(p.byID))
	p.hush(devices)
	return devices, true
}

// begin takes all peers from the status that opens a watch.
func (p *peers) begin(status *ipnstate.Status) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.byID = make(map[tailcfg.NodeID]topology.Device, len(status.Peer))
	for _, peer := range status.Peer {
		if peer != nil {
			p.byID[peer.NodeID] = statusDevice(peer)
			p.seen(peer.NodeID, p.byID[peer.NodeID], peer.Relay != "")
		}
	}
	p.keep(p.byID)
	p.whole = true
}

// replace takes all peers from a whole new netmap, and tells whether it changed any
// device.
func (p *peers) replace(nodes []*tailcfg.Node) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.byID
	p.byID = make(map[tailcfg.NodeID]topology.Device, len(nodes))
	for _, node := range nodes {
		if node != nil {
			p.byID[node.ID] = nodeDevice(node)
			p.seen(node.ID, p.byID[node.ID], reachable(node))
		}
	}
	p.keep(p.byID)
	return !maps.EqualFunc(before, p.byID, sameDevice)
}

// lose says that the watch ended: from now on something may be missed.
func (p *peers) lose() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.whole, p.byID = false, nil
}

// follow applies an event, and tells whether it changed any device.
func (p *peers) follow(event *ipn.Notify) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	changed := false
	for _, node := range event.PeersChanged {
		if node == nil {
			continue
		}
		d := nodeDevice(node)
		if old, known := p.byID[node.ID]; !known || !sameDevice(old, d) {
			p.byID[node.ID], changed = d, true
		}
		p.seen(node.ID, d, reachable(node))
	}
	for _, patch := range event.PeerChangedPatch {
		if patch == nil {
			continue
		}
		if d, known := p.byID[patch.NodeID]; known && patch.Online != nil && *patch.Online != d.Online {
			d.Online = *patch.Online
			p.byID[patch.NodeID], changed = d, true
			p.seen(patch.NodeID, d, false)
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

// statusDevice is a peer as the node's status tells it.
func statusDevice(peer *ipnstate.PeerStatus) topology.Device {
	d := topology.Device{
		ID:        string(peer.ID),
		Name:      cmp.Or(firstLabel(peer.DNSName), peer.HostName),
		Addresses: texts(peer.TailscaleIPs),
		Online:    peer.Online,
		Expires:   keyExpiry(peer.KeyExpiry, peer.Expired),
	}
	if peer.Tags != nil {
		d.Tags = peer.Tags.AsSlice()
	}
	return d
}

// nodeDevice is a peer as an event tells it.
func nodeDevice(node *tailcfg.Node) topology.Device {
	var own []netip.Addr
	for _, a := range node.Addresses {
		if a.IsSingleIP() {
			own = append(own, a.Addr())
		}
	}
	d := topology.Device{
		ID:        string(node.StableID),
		Name:      firstLabel(node.Name),
		Addresses: texts(own),
		Tags:      node.Tags,
		Online:    node.Online != nil && *node.Online,
		Expires:   keyExpiry(&node.KeyExpiry, node.Expired),
	}
	if d.Name == "" && node.Hostinfo.Valid() {
		d.Name = node.Hostinfo.Hostname()
	}
	return d
}

// hosts writes each address without a prefix length that names just this address:
// 100.64.0.1 for 100.64.0.1/32. What else has a prefix length is no device's own.
func hosts(addresses []string) []string {
	out := slices.Clone(addresses)
	for i, text := range out {
		if p, err := netip.ParsePrefix(text); err == nil && p.IsSingleIP() {
			out[i] = p.Addr().String()
		}
	}
	return out
}

func texts(addresses []netip.Addr) []string {
	out := make([]string, len(addresses))
	for i, a := range addresses {
		out[i] = a.String()
	}
	return out
}

// keyExpiry is when a node key expires. The status rounds to seconds, so an
// event's time is rounded too: the same must look the same.
func keyExpiry(at *time.Time, expired bool) *time.Time {
	if at != nil {
		if expires := (timeOrNot{at.Round(time.Second)}).orNever(); expires != nil {
			return expires
		}
	}
	if expired {
		return new(time.Unix(0, 0).UTC())
	}
	return nil
}
