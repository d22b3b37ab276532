package netmap

import (
	"maps"
	"slices"

	"tailscale.com/tailcfg"

	"github.com/tailxds/tailxds/internal/topology"
)

// pendingPeers are the peers that are online and can't be reached yet. A device is
// listed as online some 100 ms before it has announced a relay or an address, and
// until then no other device can send it anything. WireGuard tries a peer again only
// 5 s after an attempt without an endpoint (Rekey-Timeout, section 6.1 of
// https://www.wireguard.com/papers/wireguard.pdf), so an Envoy that got a new device
// in that moment would count it as unhealthy for 5 s. That is why such a device is
// listed as offline until it can be reached.
type pendingPeers struct {
	reached map[tailcfg.NodeID]bool     // peers that could be reached once
	pending map[tailcfg.NodeID][]string // peers that can't yet, with their addresses
}

// reachable reports whether there is any way to send a peer the first packet.
func reachable(node *tailcfg.Node) bool {
	return node != nil && (node.HomeDERP != 0 || len(node.Endpoints) > 0)
}

// observe takes what is known of a peer now. A pending peer stays so until it is
// looked up.
func (n *pendingPeers) observe(id tailcfg.NodeID, d topology.Device, reachable bool) {
	if n.reached == nil {
		n.reached, n.pending = map[tailcfg.NodeID]bool{}, map[tailcfg.NodeID][]string{}
	}
	_, pending := n.pending[id]
	switch {
	case !d.Online:
		delete(n.pending, id)
	case reachable && !pending:
		n.reached[id] = true
	case !n.reached[id]:
		n.pending[id] = d.Addresses
	}
}

// forget drops what is known of a peer.
func (n *pendingPeers) forget(id tailcfg.NodeID) {
	delete(n.reached, id)
	delete(n.pending, id)
}

// retain drops what is known of all other peers.
func (n *pendingPeers) retain(peers map[tailcfg.NodeID]topology.Device) {
	gone := func(id tailcfg.NodeID) bool { _, here := peers[id]; return !here }
	maps.DeleteFunc(n.reached, func(id tailcfg.NodeID, _ bool) bool { return gone(id) })
	maps.DeleteFunc(n.pending, func(id tailcfg.NodeID, _ []string) bool { return gone(id) })
}

// markOffline marks the pending peers among devices of any source as offline. It
// knows them by their addresses, since each source has IDs of its own.
func (n *pendingPeers) markOffline(devices []topology.Device) {
	if len(n.pending) == 0 {
		return
	}
	addresses := map[string]bool{}
	for _, own := range n.pending {
		for _, a := range own {
			addresses[a] = true
		}
	}
	for i := range devices {
		if slices.ContainsFunc(devices[i].Addresses, func(a string) bool { return addresses[a] }) {
			devices[i].Online = false
		}
	}
}
