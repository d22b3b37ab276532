package controlplane

import (
	"fmt"
	"slices"
	"time"

	"github.com/tailxds/tailxds/internal/api"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/traffic"
)

// traffic is what Envoys measured last. Whoever shows shares takes them from
// here.
func (d *ControlPlane) traffic() api.Traffic {
	now := time.Now()
	p := d.published.Load()
	if p == nil || !d.started() {
		return api.Traffic{At: now, Services: []traffic.Table{}, Envoys: []traffic.Envoy{}}
	}
	view := d.reports.View(now)
	return api.Traffic{At: now, Services: traffic.Tables(d.trafficInput(p, view)), Envoys: concat(view.Envoys)}
}

// trafficInput is what a table of the traffic is reckoned from.
func (d *ControlPlane) trafficInput(p *snapshot, view traffic.View) traffic.Input {
	policy := d.policy.Load().policy
	var entries map[string]uint32
	if e := d.localCluster.Load(); e != nil {
		entries = *e
	}
	return traffic.Input{
		Topology: p.topology, Entries: entries, Connected: d.server.Connected(), View: view,
		Rule: func(service string) traffic.Rule {
			s := policy.For(service)
			return traffic.Rule{Mode: s.Locality, Failover: s.Failover, Overprovisioning: s.OverprovisioningFactor}
		},
	}
}

// history is the last minutes of a service's traffic.
func (d *ControlPlane) history(service string) (traffic.History, error) {
	p := d.published.Load()
	if p == nil || !slices.ContainsFunc(p.topology.Services, func(s topology.Service) bool { return s.Name == service }) {
		return traffic.History{}, fmt.Errorf("there is no service %q", service)
	}
	return d.reports.History(service, time.Now()), nil
}
