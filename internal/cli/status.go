package cli

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tailxds/tailxds/internal/api"
	"github.com/tailxds/tailxds/internal/drain"
	"github.com/tailxds/tailxds/internal/drain/peersync"
	"github.com/tailxds/tailxds/internal/envoy"
	"github.com/tailxds/tailxds/internal/events"
	"github.com/tailxds/tailxds/internal/guard"
	"github.com/tailxds/tailxds/internal/provider"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/traffic"
	"github.com/tailxds/tailxds/internal/version"
	"github.com/tailxds/tailxds/internal/xds"
)

func (d *daemon) adminHandler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), newMetrics(d), newTrafficMetrics(d.traffic))
	return api.Handler(api.Sources{
		Ready:   d.readiness,
		Status:  func() any { return d.status() },
		Traffic: func() any { return d.traffic() },
		History: func(service string) (any, error) { return d.history(service) },
		Explain: func(of, from string) (any, error) { return d.explain(of, from) },
		Doctor:  func(ctx context.Context) any { return d.facts(ctx) },
		Diff:    d.diffs,
		Accept:  func(ctx context.Context, service string) error { return d.accept(ctx, service, operatorHere("")) },
		Drain: func(ctx context.Context, device string, long time.Duration, user string) (string, error) {
			return d.drain(ctx, device, long, operatorHere(user))
		},
		Restore: func(ctx context.Context, device, user string) (string, error) {
			return d.restore(ctx, device, operatorHere(user))
		},
		Hosts:   d.o.AdminHosts,
		Page:    d.page.Handler(adminDoor()),
		Metrics: promhttp.HandlerFor(registry, promhttp.HandlerOpts{}),
	})
}

// readiness is true from the first publication on: what was good once is
// served, however old it is, and the detail says how old.
func (d *daemon) readiness() (bool, string) {
	if !d.started() {
		if why := d.joining.Load(); why != nil {
			return false, "not ready: joining the tailnet: " + *why
		}
		return false, "not ready: joining the tailnet"
	}
	p, s := d.published.Load(), d.watcher.Status()
	var but []string
	switch {
	case p == nil && s.Error != "":
		return false, "not ready: no device list yet: " + s.Error
	case p == nil:
		return false, "not ready: waiting for the first device list"
	case s.Stale && s.Error == "":
		but = append(but, fmt.Sprintf("the device list is %s old, from before the start", time.Since(s.LastGood).Round(time.Second)))
	case s.Stale:
		but = append(but, fmt.Sprintf("the device list is %s old: %s", time.Since(s.LastGood).Round(time.Second), s.Error))
	case s.LinkDown: // where the list does not come by that link
		but = append(but, "the control plane's own link to the coordination server is down")
	}
	but = append(but, d.stateTrouble()...)
	for _, h := range p.held {
		but = append(but, "a new device list is held: "+h.Reason)
	}
	if len(but) > 0 {
		return true, "ready, but " + strings.Join(but, "; ")
	}
	return true, "ready"
}

// statusDocument is what /status prints.
type statusDocument struct {
	Version string `json:"version"`
	Ready   bool   `json:"ready"`
	Detail  string `json:"detail"`
	// Degraded are the services that nobody serves, "server: 0 of 7 serving".
	Degraded []string     `json:"degraded"`
	Held     []guard.Held `json:"held"`
	// Drains are the drains that operators asked for and that are in force.
	Drains []drain.Record `json:"drains"`
	// Peers are the other control planes that words are exchanged with.
	Peers    []peersync.State   `json:"peers,omitempty"`
	Provider *provider.Status   `json:"provider,omitempty"`
	Policy   policyStatus       `json:"policy"`
	At       *time.Time         `json:"publishedAt"`
	Error    string             `json:"publishError,omitempty"`
	Services []topology.Service `json:"services"`
	// Shares are what serving endpoints are to get.
	Shares   []endpointShare    `json:"shares"`
	Problems []topology.Problem `json:"problems"`
	Envoys   []xds.Stream       `json:"envoys"`
	// HealthChecks are what Envoys are told where the policy has no interval.
	HealthChecks *healthChecks     `json:"healthChecks,omitempty"`
	Devices      []topology.Device `json:"devices"`
	// Changes are what happened of late, the newest first.
	Changes []events.Event `json:"changes"`
}

// healthChecks say how often Envoys check servers, and for how many Envoys that
// was chosen.
type healthChecks struct {
	Envoys   int    `json:"envoys"`
	Interval string `json:"interval"`
}

// endpointShare is what an endpoint is to get of its service's requests, from 0 to
// 1, and whether its device's own Envoy is connected: see [traffic.Server].
type endpointShare struct {
	Service  string         `json:"service"`
	Device   string         `json:"device"`
	Address  netip.AddrPort `json:"address"`
	Expected float64        `json:"expected"`
	Envoy    bool           `json:"envoy"`
}

func sharesOf(tables []traffic.Table) []endpointShare {
	shares := []endpointShare{}
	for _, t := range tables {
		for _, s := range t.Servers {
			if s.State == topology.Serving {
				shares = append(shares, endpointShare{t.Service, s.Device, s.Address, s.Expected, s.Envoy})
			}
		}
	}
	return shares
}

type policyStatus struct {
	File  string `json:"file,omitempty"`
	Error string `json:"error,omitempty"`
}

func (d *daemon) status() statusDocument { return d.statusBeside(d.traffic().Services) }

// statusBeside is the status beside what was measured of the services.
func (d *daemon) statusBeside(tables []traffic.Table) statusDocument {
	doc := statusDocument{
		Version: version.Current().Version, Policy: policyStatus{d.o.Config, d.policy.Load().wrong()}, Degraded: []string{}, Held: []guard.Held{}, Drains: []drain.Record{},
		Services: []topology.Service{}, Shares: sharesOf(tables), Problems: []topology.Problem{}, Envoys: []xds.Stream{}, Devices: []topology.Device{},
		Changes: d.changes(),
	}
	doc.Ready, doc.Detail = d.readiness()
	if d.started() {
		s := d.watcher.Status()
		doc.Provider = &s
		doc.Envoys = d.server.Streams()
		doc.Peers = d.others()
		var checks envoy.Checks
		if resources := d.resources.Load(); resources != nil {
			checks = resources.Checks()
		}
		doc.HealthChecks = &healthChecks{checks.Envoys, checks.Every.String()}
	}
	if text := d.publishErr.Load(); text != nil {
		doc.Error = *text
	}
	if p := d.published.Load(); p != nil {
		doc.At = &p.at
		doc.Held = joined(doc.Held, p.held)
		doc.Drains = joined(doc.Drains, p.drains)
		for _, s := range p.degraded {
			doc.Degraded = append(doc.Degraded, s.String())
		}
		doc.Services = joined(doc.Services, p.topology.Services)
		doc.Problems = joined(doc.Problems, d.problemsOf(p, doc.Envoys, tables))
		doc.Devices = joined(doc.Devices, p.devices)
	}
	return doc
}

// joined are lists as one, which is empty in JSON and not null.
func joined[T any](lists ...[]T) []T { return append([]T{}, slices.Concat(lists...)...) }

// misplaced are Envoys that claim another region than the tailnet knows, and get
// the assignments of callers of their real region while they balance by the other;
// and those whose claim is one too many of their device. One a device is enough.
func misplaced(envoys []xds.Stream) []topology.Problem {
	var problems []topology.Problem
	found := make(map[string]bool)
	for _, e := range envoys {
		if e.Claims == "" || found[e.Device] {
			continue
		}
		found[e.Device] = true
		reason := fmt.Sprintf("the Envoy says that it is in region %q, and the tailnet knows its device in %q: give its bootstrap that region", e.Claims, e.Region)
		if e.Region == "" {
			reason = fmt.Sprintf("the Envoy's claim to be in region %q is ignored: its address claims too many regions, or the name is too long", e.Claims)
		}
		problems = append(problems, topology.Problem{Name: e.Device, Subject: "region", Reason: reason})
	}
	return problems
}

// crowded are the regions whose Envoys balance as if they were in none.
func crowded(regions []string) []topology.Problem {
	if len(regions) == 0 {
		return nil
	}
	listed := strings.Join(regions[:min(len(regions), maxListed)], ", ")
	return []topology.Problem{{
		Subject: "region",
		Reason:  fmt.Sprintf("Envoys are in more regions than are told apart, and those of %d regions balance as if they were in none: %s; use fewer regions", len(regions), listed),
	}}
}

// maxListed is how many of many are named in one sentence.
const maxListed = 5
