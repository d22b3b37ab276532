package netmap

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"tailscale.com/client/local"
	"tailscale.com/ipn"
	"tailscale.com/tailcfg"
)

// What Tailscale does not promise, and may change with a version: debug calls, a
// metric of the client, and which events the bus sends. It was read in the sources of
// this version; on another, the tests of this package against a real node must pass.
const pinnedVersion = "v1.102.5"

// watchMask asks the bus for all peers first, and for each change of one after.
const watchMask = ipn.NotifyInitialState | ipn.NotifyInitialStatus | ipn.NotifyPeerChanges | ipn.NotifyPeerPatches

// filterMetric counts the filters that came without peers.
const filterMetric = "localbackend_update_packet_filter"

// packetFilter is the node's share of the policy, and the addresses it is for.
type packetFilter struct {
	PacketFilterRules []tailcfg.FilterRule
	SelfNode          struct{ Addresses []netip.Prefix }
}

// currentFilter returns the filter in use.
func currentFilter(ctx context.Context, lc *local.Client) (packetFilter, error) {
	current, err := local.GetDebugResultJSON[packetFilter](ctx, lc, "current-netmap")
	if err != nil {
		return packetFilter{}, fmt.Errorf("read the packet filter: %w", err)
	}
	return current, nil
}

// netmapFilter returns the filter of the last whole netmap, which came with this
// node of ours. With many peers it costs less than [currentFilter].
func netmapFilter(ctx context.Context, lc *local.Client, own *tailcfg.Node) (packetFilter, error) {
	rules, err := lc.DebugPacketFilterRules(ctx)
	if err != nil {
		return packetFilter{}, fmt.Errorf("read the packet filter: %w", err)
	}
	f := packetFilter{PacketFilterRules: rules}
	f.SelfNode.Addresses = own.Addresses
	return f, nil
}

// countFilters returns how many filters came, as the node's metric writes it.
func countFilters(ctx context.Context, lc *local.Client) (string, error) {
	text, err := lc.DaemonMetrics(ctx)
	if err != nil {
		return "", fmt.Errorf("read the node's metrics: %w", err)
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		if count, ok := strings.CutPrefix(lines.Text(), filterMetric+" "); ok {
			return count, nil
		}
	}
	return "", errors.New("the node's metrics have no " + filterMetric)
}
