package netmap

import (
	"cmp"
	"net/netip"
	"strings"
	"time"

	"tailscale.com/ipn/ipnstate"
	"tailscale.com/tailcfg"

	"github.com/tailxds/tailxds/internal/topology"
)

// statusDevice converts a peer of the node's status.
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

// nodeDevice converts a peer of an event.
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

// firstLabel returns the host name in a MagicDNS name.
func firstLabel(name string) string {
	label, _, _ := strings.Cut(name, ".")
	return label
}

func texts(addresses []netip.Addr) []string {
	out := make([]string, len(addresses))
	for i, a := range addresses {
		out[i] = a.String()
	}
	return out
}

// parseAddresses parses those texts that are addresses.
func parseAddresses(texts []string) []netip.Addr {
	var all []netip.Addr
	for _, t := range texts {
		if a, err := netip.ParseAddr(t); err == nil {
			all = append(all, a)
		}
	}
	return all
}

// keyExpiry returns when a node key expires; nil is never, as the years are that
// JSON can't write. The status rounds to seconds, so an event's time is rounded too:
// equal times must look equal.
func keyExpiry(at *time.Time, expired bool) *time.Time {
	if at != nil {
		if expires := at.Round(time.Second).UTC(); expires.Year() > 1 && expires.Year() <= 9999 {
			return &expires
		}
	}
	if expired {
		return new(time.Unix(0, 0).UTC())
	}
	return nil
}
