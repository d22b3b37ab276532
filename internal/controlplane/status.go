package controlplane

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tailxds/tailxds/internal/api"
	"github.com/tailxds/tailxds/internal/drain"
	"github.com/tailxds/tailxds/internal/envoy"
	"github.com/tailxds/tailxds/internal/events"
	"github.com/tailxds/tailxds/internal/guard"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/traffic"
	"github.com/tailxds/tailxds/internal/version"
	"github.com/tailxds/tailxds/internal/xds"
)

// readiness is true from the first publication on: what was good once is
// served, however old it is, and the detail says how old.
func (c *ControlPlane) readiness() (bool, string) {
	p, s := c.published.Load(), c.links.watcher.Status()
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
	but = append(but, c.stateTrouble()...)
	for _, h := range p.held {
		but = append(but, "a new device list is held: "+h.Reason)
	}
	if len(but) > 0 {
		return true, "ready, but " + strings.Join(but, "; ")
	}
	return true, "ready"
}

func sharesOf(tables []traffic.Table) []api.EndpointShare {
	shares := []api.EndpointShare{}
	for _, t := range tables {
		for _, s := range t.Servers {
			if s.State == topology.Serving {
				shares = append(shares, api.EndpointShare{Service: t.Service, Device: s.Device, Address: s.Address, Expected: s.Expected, Envoy: s.Envoy})
			}
		}
	}
	return shares
}

func (c *ControlPlane) status() api.Status { return c.statusWith(c.traffic().Services) }

// emptyStatus is the status of a control plane that has published nothing.
func emptyStatus(config Config, policyError string) api.Status {
	return api.Status{
		Version: version.Current().Version, Policy: api.PolicyStatus{File: config.PolicyFile, Error: policyError},
		Degraded: []string{}, Held: []guard.Held{}, Drains: []drain.Record{}, Services: []topology.Service{}, Shares: []api.EndpointShare{},
		Problems: []topology.Problem{}, Envoys: []xds.Stream{}, Devices: []topology.Device{}, Changes: []events.Event{},
	}
}

// statusWith is the status, with what was measured of the services.
func (c *ControlPlane) statusWith(tables []traffic.Table) api.Status {
	doc := emptyStatus(c.config, c.policy.Load().wrong())
	doc.Ready, doc.Detail = c.readiness()
	doc.Shares, doc.Changes = sharesOf(tables), c.changes()
	doc.Provider = new(c.links.watcher.Status())
	doc.Envoys, doc.Peers = c.server.Streams(), c.peerStates()
	var checks envoy.Checks
	if resources := c.resources.Load(); resources != nil {
		checks = resources.Checks()
	}
	doc.HealthChecks = &api.HealthChecks{Envoys: checks.Envoys, Interval: checks.Every.String()}
	if text := c.publishErr.Load(); text != nil {
		doc.Error = *text
	}
	if p := c.published.Load(); p != nil {
		doc.At = &p.at
		doc.Held = concat(doc.Held, p.held)
		doc.Drains = concat(doc.Drains, p.drains)
		for _, s := range p.degraded {
			doc.Degraded = append(doc.Degraded, s.String())
		}
		doc.Services = concat(doc.Services, p.topology.Services)
		doc.Problems = concat(doc.Problems, c.problemsOf(p, doc.Envoys, tables))
		doc.Devices = concat(doc.Devices, p.devices)
	}
	return doc
}

// concat are lists as one, which is empty in JSON and not null.
func concat[T any](lists ...[]T) []T { return append([]T{}, slices.Concat(lists...)...) }

// misplacedEnvoys are Envoys that claim another region than the tailnet knows, and get
// the assignments of callers of their real region while they balance by the other;
// and those whose claim is one too many of their device. One a device is enough.
func misplacedEnvoys(envoys []xds.Stream) []topology.Problem {
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

// crowdedRegions are the regions whose Envoys balance as if they were in none.
func crowdedRegions(regions []string) []topology.Problem {
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
