package cli

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"tailscale.com/client/local"
	"tailscale.com/ipn"
	"tailscale.com/ipn/ipnstate"
	"tailscale.com/tailcfg"
	"tailscale.com/wgengine/filter"

	"github.com/tailxds/tailxds/internal/doctor"
	"github.com/tailxds/tailxds/internal/topology"
)

// factsWithin bounds how long the tailnet is asked.
const factsWithin = 5 * time.Second

// facts are what the control plane knows for `tailxds doctor`.
func (d *daemon) facts(ctx context.Context) *doctor.ControlPlane {
	ctx, cancel := context.WithTimeout(ctx, factsWithin)
	defer cancel()
	doc := d.status()
	f := &doctor.ControlPlane{
		Version: doc.Version, Now: time.Now(), Port: d.o.Port, Advertised: d.o.AdvertiseTags,
		PolicyError: doc.Policy.Error, PublishError: doc.Error, Degraded: doc.Degraded,
		Endpoints: []doctor.Endpoint{}, Envoys: []doctor.Envoy{}, Held: []string{}, Problems: []string{}, Drains: []doctor.Drain{},
	}
	if doc.At != nil {
		f.PublishedAt = *doc.At
	}
	if !d.started() {
		_, f.Joining = d.readiness()
		return f
	}
	f.Source, f.SourceError, f.LastGood = doc.Provider.Provider, doc.Provider.Error, doc.Provider.LastGood
	witnesses := d.server.Connected()
	for _, s := range doc.Services {
		for _, e := range slices.Concat(s.Serving(), s.Idle) {
			a := e.Address.Addr()
			f.Endpoints = append(f.Endpoints, doctor.Endpoint{Service: s.Name, Name: e.Name, Address: a, State: string(e.State), Connected: witnesses[a]})
		}
	}
	for _, e := range doc.Envoys {
		envoy := doctor.Envoy{Name: cmp.Or(e.Device, e.Node), Version: e.Envoy}
		if state := envoyState(e); strings.HasPrefix(state, "rejected ") {
			envoy.Rejected = strings.TrimPrefix(state, "rejected ")
		}
		f.Envoys = append(f.Envoys, envoy)
	}
	for _, h := range doc.Held {
		f.Held = append(f.Held, h.Reason)
	}
	for _, p := range doc.Problems {
		f.Problems = append(f.Problems, problemLine(p))
	}
	for _, w := range doc.Drains {
		f.Drains = append(f.Drains, doctor.Drain{Name: w.Name, By: w.By, At: w.At, Until: w.Until})
	}
	if d.tailnet != nil {
		d.tailnet.facts(ctx, f)
		f.ClockAhead = clockAhead(ctx, cmp.Or(d.o.ControlURL, ipn.DefaultControlURL))
	}
	return f
}

func problemLine(p topology.Problem) string {
	return strings.TrimSpace(p.Name+" "+p.Subject) + ": " + p.Reason
}

// facts adds what the node knows of itself, of its tailnet's policy, and of the
// ways to the servers.
func (t *tailnet) facts(ctx context.Context, f *doctor.ControlPlane) {
	status, err := t.local.Status(ctx)
	if err != nil {
		f.Node = &doctor.Node{State: "it does not answer: " + err.Error()}
		return
	}
	f.Node = nodeFacts(status)
	for i, e := range f.Endpoints {
		f.Endpoints[i].Path = pathTo(status, e.Address)
	}
	rules, err := local.GetDebugResultJSON[struct{ PacketFilterRules []tailcfg.FilterRule }](ctx, t.local, "current-netmap")
	if err != nil {
		f.Node.Health = append(f.Node.Health, "its packet filter can't be read: "+err.Error())
		return
	}
	f.Sources, f.ByCapability = mayReach(rules.PacketFilterRules, status.TailscaleIPs, f.Port)
}

// nodeFacts are those of a node on the tailnet, by its own tailscaled.
func nodeFacts(s *ipnstate.Status) *doctor.Node {
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

// pathTo is how a node reaches the peer that has an address.
func pathTo(s *ipnstate.Status, a netip.Addr) doctor.Path {
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
// the addresses, and whether they let others whom capabilities tell.
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

// clockAhead is how far this clock is ahead of a coordination server's, by the
// Date of its answer, which counts whole seconds; nil if it gives none. It asks
// for the server's key, as each node does that joins.
func clockAhead(ctx context.Context, server string) *time.Duration {
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
	ahead := clockOff(asked, answered, at)
	return &ahead
}

// clockOff is how far this clock is ahead of one that said at, cut to whole
// seconds, at some moment between two of ours. What may be due to the cut or the
// way is no difference.
func clockOff(asked, answered, at time.Time) time.Duration {
	switch earliest, latest := at, at.Add(time.Second); {
	case asked.After(latest):
		return asked.Sub(latest)
	case answered.Before(earliest):
		return answered.Sub(earliest)
	default:
		return 0
	}
}
