package controlplane

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"tailscale.com/ipn"

	"github.com/tailxds/tailxds/internal/api"
	"github.com/tailxds/tailxds/internal/doctor"
	"github.com/tailxds/tailxds/internal/tailnet"
)

// factsWithin bounds how long the tailnet is asked.
const factsWithin = 5 * time.Second

// facts are what the control plane knows for `tailxds doctor`.
func (c *ControlPlane) facts(ctx context.Context) *doctor.ControlPlane {
	ctx, cancel := context.WithTimeout(ctx, factsWithin)
	defer cancel()
	doc := c.status()
	f := doctorFacts(c.config, doc)
	f.Source, f.SourceError, f.LastGood = doc.Provider.Provider, doc.Provider.Error, doc.Provider.LastGood
	connected := c.server.Connected()
	for _, s := range doc.Services {
		for _, e := range slices.Concat(s.Serving(), s.Idle) {
			a := e.Address.Addr()
			f.Endpoints = append(f.Endpoints, doctor.Endpoint{Service: s.Name, Name: e.Name, Address: a, State: string(e.State), Connected: connected[a]})
		}
	}
	for _, e := range doc.Envoys {
		envoy := doctor.Envoy{Name: cmp.Or(e.Device, e.Node), Version: e.Envoy}
		if state := api.EnvoyState(e); strings.HasPrefix(state, "rejected ") {
			envoy.Rejected = strings.TrimPrefix(state, "rejected ")
		}
		f.Envoys = append(f.Envoys, envoy)
	}
	for _, h := range doc.Held {
		f.Held = append(f.Held, h.Reason)
	}
	for _, p := range doc.Problems {
		f.Problems = append(f.Problems, p.String())
	}
	for _, r := range doc.Drains {
		f.Drains = append(f.Drains, doctor.Drain{Name: r.Name, By: r.By, At: r.At, Until: r.Until})
	}
	if c.links.node != nil {
		c.links.node.AddFacts(ctx, f)
		f.ClockAhead = tailnet.ClockAhead(ctx, cmp.Or(c.config.ControlURL, ipn.DefaultControlURL))
	}
	return f
}

// doctorFacts are those of a control plane's configuration and status. Before the
// tailnet is joined, that is all there is.
func doctorFacts(config Config, doc api.Status) *doctor.ControlPlane {
	f := &doctor.ControlPlane{
		Version: doc.Version, Now: time.Now(), Port: config.Port, Advertised: config.AdvertiseTags,
		PolicyError: doc.Policy.Error, PublishError: doc.Error, Degraded: doc.Degraded,
		Endpoints: []doctor.Endpoint{}, Envoys: []doctor.Envoy{}, Held: []string{}, Problems: []string{}, Drains: []doctor.Drain{},
	}
	if doc.At != nil {
		f.PublishedAt = *doc.At
	}
	if doc.Provider == nil {
		f.Joining = doc.Detail
	}
	return f
}
