package cli

import (
	"fmt"
	"slices"
	"time"

	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/traffic"
)

// trafficDocument is what /traffic prints: who sends what to whom, beside what
// was to be expected.
type trafficDocument struct {
	At       time.Time       `json:"at"`
	Services []traffic.Table `json:"services"`
	// Envoys are all that have reported of late.
	Envoys []traffic.Envoy `json:"envoys"`
}

// traffic is what Envoys measured last. Whoever shows shares takes them from
// here.
func (d *daemon) traffic() trafficDocument {
	now := time.Now()
	p := d.published.Load()
	if p == nil || !d.started() {
		return trafficDocument{At: now, Services: []traffic.Table{}, Envoys: []traffic.Envoy{}}
	}
	view := d.reports.View(now)
	return trafficDocument{At: now, Services: traffic.Tables(d.trafficCase(p, view)), Envoys: joined(view.Envoys)}
}

// trafficCase is what a table of the traffic is reckoned from.
func (d *daemon) trafficCase(p *snapshot, view traffic.View) traffic.Case {
	policy := d.policy.Load().policy
	var entries map[string]uint32
	if e := d.callers.Load(); e != nil {
		entries = *e
	}
	return traffic.Case{
		Topology: p.topology, Entries: entries, Connected: d.server.Connected(), View: view,
		Rule: func(service string) traffic.Rule {
			s := policy.For(service)
			return traffic.Rule{Mode: s.Locality, Failover: s.Failover, Overprovisioning: s.OverprovisioningFactor}
		},
	}
}

// history is the last minutes of a service's traffic.
func (d *daemon) history(service string) (traffic.History, error) {
	p := d.published.Load()
	if p == nil || !slices.ContainsFunc(p.topology.Services, func(s topology.Service) bool { return s.Name == service }) {
		return traffic.History{}, fmt.Errorf("there is no service %q", service)
	}
	return d.reports.History(service, time.Now()), nil
}
