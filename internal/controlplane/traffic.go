package controlplane

import (
	"fmt"
	"slices"
	"time"

	"github.com/tailxds/tailxds/internal/api"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/traffic"
)

// traffic is what Envoys measured last. All shares that are shown come from here.
func (c *ControlPlane) traffic() api.Traffic {
	now := time.Now()
	p := c.published.Load()
	if p == nil {
		return emptyTraffic(now)
	}
	view := c.reports.View(now)
	return api.Traffic{At: now, Services: traffic.Tables(c.trafficInput(p, view)), Envoys: concat(view.Envoys)}
}

// emptyTraffic is the document before anything is published.
func emptyTraffic(at time.Time) api.Traffic {
	return api.Traffic{At: at, Services: []traffic.Table{}, Envoys: []traffic.Envoy{}}
}

// trafficInput is what a table of the traffic is reckoned from.
func (c *ControlPlane) trafficInput(p *snapshot, view traffic.View) traffic.Input {
	policy := c.policy.Load().policy
	var entries map[string]uint32
	if e := c.localCluster.Load(); e != nil {
		entries = *e
	}
	return traffic.Input{
		Topology: p.topology, Entries: entries, Connected: c.server.Connected(), View: view,
		Rule: func(service string) traffic.Rule {
			s := policy.For(service)
			return traffic.Rule{Mode: s.Locality, Failover: s.Failover, Overprovisioning: s.OverprovisioningFactor}
		},
	}
}

// history is the last minutes of a service's traffic.
func (c *ControlPlane) history(service string) (traffic.History, error) {
	p := c.published.Load()
	if p == nil || !slices.ContainsFunc(p.topology.Services, func(s topology.Service) bool { return s.Name == service }) {
		return traffic.History{}, fmt.Errorf("there is no service %q", service)
	}
	return c.reports.History(service, time.Now()), nil
}
