package tailnet

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"tailscale.com/client/local"
	"tailscale.com/ipn/ipnstate"
	"tailscale.com/tailcfg"
	"tailscale.com/wgengine/filter"

	"github.com/tailxds/tailxds/internal/doctor"
)

// AddFacts adds what the node knows of itself, of its tailnet's policy, and of the
// ways to the servers.
func (t *Node) AddFacts(ctx context.Context, f *doctor.ControlPlane) {
	status, err := t.LocalClient.Status(ctx)
	if err != nil {
		f.Node = &doctor.Node{State: "it does not answer: " + err.Error()}
		return
	}
	f.Node = NodeFacts(status)
	for i, e := range f.Endpoints {
		f.Endpoints[i].Path = PathTo(status, e.Address)
	}
	rules, err := local.GetDebugResultJSON[struct{ PacketFilterRules []tailcfg.FilterRule }](ctx, t.LocalClient, "current-netmap")
	if err != nil {
		f.Node.Health = append(f.Node.Health, "its packet filter can't be read: "+err.Error())
		return
	}
	f.Sources, f.ByCapability = mayReach(rules.PacketFilterRules, status.TailscaleIPs, f.Port)
}

// NodeFacts are those of a node on the tailnet, by its own tailscaled.
func NodeFacts(s *ipnstate.Status) *doctor.Node {
	n := &doctor.Node{State: s.BackendState, Tags: []string{}, Health: append([]string{}, s.Health...)}
	if s.Self != nil {
		n.LinkDown = !s.Self.Online
		n.Name, n.Tags, n.KeyExpires = strings.TrimSuffix(s.Self.DNSName, "."), tags(s.Self), s.Self.KeyExpiry
		n.NetmapCached = s.Self.CapMap.Contains(tailcfg.NodeAttrCacheNetworkMaps) && !s.Self.CapMap.Contains(tailcfg.NodeAttrDisableCacheNetworkMaps)
	}
	if s.CurrentTailnet != nil {
		n.MagicDNS = s.CurrentTailnet.MagicDNSEnabled
	}
	return n
}

// PathTo is how a node reaches the peer that has an address.
func PathTo(s *ipnstate.Status, a netip.Addr) doctor.Path {
	for _, p := range s.Peer {
		switch {
		case !slices.Contains(p.TailscaleIPs, a):
		case p.CurAddr != "":
			return doctor.Direct
		case p.PeerRelay != "":
			return doctor.Path("relay " + p.PeerRelay)
		case p.Active && p.Relay != "":
			return doctor.Path("relay " + p.Relay)
		}
	}
	return ""
}

// mayReach are the sources that rules let reach a TCP port of the node that has
// the addresses, and whether they admit others by capability.
func mayReach(rules []tailcfg.FilterRule, self []netip.Addr, port uint16) (sources []netip.Prefix, byCapability bool) {
	// An error is about rules that the node left out as well.
	matches, _ := filter.MatchesFromFilterRules(rules)
	for _, m := range matches {
		for _, dst := range m.Dsts {
			if dst.Ports.First <= port && port <= dst.Ports.Last && slices.ContainsFunc(self, dst.Net.Contains) {
				sources = append(sources, m.Srcs...)
				byCapability = byCapability || len(m.SrcCaps) > 0
			}
		}
	}
	slices.SortFunc(sources, netip.Prefix.Compare)
	return slices.Compact(sources), byCapability
}

// ClockAhead is how far this clock is ahead of a coordination server's, by the
// Date of its answer, which counts whole seconds; nil if it gives none. It asks
// for the server's key, as each node does that joins.
func ClockAhead(ctx context.Context, server string) *time.Duration {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/key?v=%d", strings.TrimSuffix(server, "/"), tailcfg.CurrentCapabilityVersion), nil)
	if err != nil {
		return nil
	}
	asked := time.Now()
	response, err := http.DefaultTransport.RoundTrip(request) // its answer counts, whatever it is
	if err != nil {
		return nil
	}
	answered := time.Now()
	_ = response.Body.Close()
	at, err := http.ParseTime(response.Header.Get("Date"))
	if err != nil {
		return nil
	}
	ahead := ClockOff(asked, answered, at)
	return &ahead
}

// ClockOff is how far this clock is ahead of one that said at, cut to whole
// seconds, at some moment between two of ours. What may be due to the cut or the
// way is no difference.
func ClockOff(asked, answered, at time.Time) time.Duration {
	switch earliest, latest := at, at.Add(time.Second); {
	case asked.After(latest):
		return asked.Sub(latest)
	case answered.Before(earliest):
		return answered.Sub(earliest)
	default:
		return 0
	}
}
