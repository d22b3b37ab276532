package provider

import (
	"context"
	"maps"
	"slices"
	"time"

	"tailscale.com/ipn/ipnstate"
	"tailscale.com/tailcfg"

	"github.com/tailxds/tailxds/internal/topology"
)

// A device is listed as online some 100 ms before it has told a relay or an
// address, and until then nobody can send it anything. WireGuard tries a peer
// again only 5 s after a try that had no way to go (Rekey-Timeout, section 6.1 of
// https://www.wireguard.com/papers/wireguard.pdf). So a newcomer that Envoys
// learned of in that moment would be unhealthy to them for 5 s; it is not online
// before it can be reached.
const (
	// reachSettle is how long a newcomer has told of its way before it counts as
	// reachable: it is still connecting to its relay, and the other devices are
	// hearing of it.
	reachSettle = 250 * time.Millisecond
	// reachPoll is how soon a newcomer is looked up first, and reachPollMax how
	// long the pauses grow: the bus tells of no relay and no address.
	reachPoll, reachPollMax = 50 * time.Millisecond, 500 * time.Millisecond
	// reachFor is when a newcomer that has told nothing counts as any other.
	reachFor = 10 * time.Second
)

// newcomers are the peers that are online and can't be reached yet.
type newcomers struct {
	reached map[tailcfg.NodeID]bool     // who could be reached once
	silent  map[tailcfg.NodeID][]string // who can't yet, with their addresses
}

// reachable tells whether there is any way to send a peer the first packet.
func reachable(node *tailcfg.Node) bool {
	return node != nil && (node.HomeDERP != 0 || len(node.Endpoints) > 0)
}

// seen takes what is known of a peer now. One that is silent stays so until it
// is looked up.
func (n *newcomers) seen(id tailcfg.NodeID, d topology.Device, reachable bool) {
	if n.reached == nil {
		n.reached, n.silent = map[tailcfg.NodeID]bool{}, map[tailcfg.NodeID][]string{}
	}
	_, silent := n.silent[id]
	switch {
	case !d.Online:
		delete(n.silent, id)
	case reachable && !silent:
		n.reached[id] = true
	case !n.reached[id]:
		n.silent[id] = d.Addresses
	}
}

// forget drops what is known of a peer.
func (n *newcomers) forget(id tailcfg.NodeID) {
	delete(n.reached, id)
	delete(n.silent, id)
}

// keep drops what is known of everybody else.
func (n *newcomers) keep(all map[tailcfg.NodeID]topology.Device) {
	gone := func(id tailcfg.NodeID) bool { _, here := all[id]; return !here }
	maps.DeleteFunc(n.reached, func(id tailcfg.NodeID, _ bool) bool { return gone(id) })
	maps.DeleteFunc(n.silent, func(id tailcfg.NodeID, _ []string) bool { return gone(id) })
}

// hush calls the silent ones among the devices offline, whoever listed them.
func (n *newcomers) hush(devices []topology.Device) {
	if len(n.silent) == 0 {
		return
	}
	addresses := map[string]bool{}
	for _, own := range n.silent {
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

// silence is hush for devices that are not listed from here.
func (p *peers) silence(devices []topology.Device) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hush(devices)
}

// glance are the devices of a status that is read before the first watch, or between
// two: who joined between is looked up once the next has begun.
func (p *peers) glance(status *ipnstate.Status) []topology.Device {
	p.mu.Lock()
	defer p.mu.Unlock()
	watched := p.reached != nil // else nobody would look them up
	devices := make([]topology.Device, 0, len(status.Peer))
	for _, peer := range status.Peer {
		if peer == nil {
			continue
		}
		d := statusDevice(peer)
		devices = append(devices, d)
		if watched {
			p.seen(peer.NodeID, d, peer.Relay != "")
		}
	}
	p.hush(devices)
	return devices
}

// toLookUp are the silent ones.
func (p *peers) toLookUp() []tailcfg.NodeID {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.silent))
}

// reach says that a silent peer can be reached, and tells whether it still was
// one: it may have left while it was looked up.
func (p *peers) reach(id tailcfg.NodeID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, silent := p.silent[id]
	if silent {
		delete(p.silent, id)
		p.reached[id] = true
	}
	return silent
}

// tellNewcomers starts the look-ups, if there is anybody to look up.
func (n *netmap) tellNewcomers() {
	if len(n.peers.toLookUp()) == 0 {
		return
	}
	select {
	case n.came <- struct{}{}:
	default: // already told
	}
}

// watchNewcomers looks newcomers up until they can be reached, and wakes then.
func (n *netmap) watchNewcomers(ctx context.Context, wake func()) {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-n.came:
			n.awaitReach(ctx, wake)
		}
	}
}

// awaitReach looks the silent ones up until there are none.
func (n *netmap) awaitReach(ctx context.Context, wake func()) {
	waits := map[tailcfg.NodeID]wait{}
	for pause := reachPoll; ; pause = min(pause*5/4, reachPollMax) {
		silent := n.peers.toLookUp()
		if len(silent) == 0 {
			return
		}
		// Who left meanwhile is forgotten: it is a newcomer again when it joins.
		before := waits
		waits = make(map[tailcfg.NodeID]wait, len(silent))
		for _, id := range silent {
			w, known := before[id]
			if !known {
				w.began = time.Now()
			}
			node, err := n.local.PeerByID(ctx, id)
			if ctx.Err() != nil {
				return
			}
			if err == nil && w.told.IsZero() && reachable(node) {
				w.told = time.Now()
			}
			waits[id] = w
			// Who can't be looked up is not kept back.
			if (err != nil || w.over(time.Now())) && n.peers.reach(id) {
				wake()
			}
		}
		sleep(ctx, pause)
	}
}

// wait is since when a newcomer is looked up, and has told of its way.
type wait struct{ began, told time.Time }

func (w wait) over(now time.Time) bool {
	settled := !w.told.IsZero() && now.Sub(w.told) >= reachSettle
	return settled || now.Sub(w.began) >= reachFor
}
