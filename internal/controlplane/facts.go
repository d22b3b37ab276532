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

// AddFacts are what the control plane knows for `tailxds doctor`.
func (d *ControlPlane) AddFacts(ctx context.Context) *doctor.ControlPlane {
	ctx, cancel := context.WithTimeout(ctx, factsWithin)
	defer cancel()
	doc := d.Status()
	f := &doctor.ControlPlane{
		Version: doc.Version, Now: time.Now(), Port: d.config.Port, Advertised: d.config.AdvertiseTags,
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
	for _, w := range doc.Drains {
		f.Drains = append(f.Drains, doctor.Drain{Name: w.Name, By: w.By, At: w.At, Until: w.Until})
	}
	if d.tailnet != nil {
		d.tailnet.AddFacts(ctx, f)
		f.ClockAhead = tailnet.ClockAhead(ctx, cmp.Or(d.config.ControlURL, ipn.DefaultControlURL))
	}
	return f
}
