// Package view is what the live page shows of what is known: of a tailnet at one
// moment, of what Envoys measured, and of what happened. It is pure; cmd/tailxds
// gathers the [Input], and internal/dashboard shows the view.
package view

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/tailxds/tailxds/internal/dashboard"
	"github.com/tailxds/tailxds/internal/drain"
	"github.com/tailxds/tailxds/internal/events"
	"github.com/tailxds/tailxds/internal/guard"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/traffic"
)

// Input are all that the page shows of a service at one moment.
type Input struct {
	Now time.Time
	// Tailnet is the control plane's name there.
	Tailnet, Version string
	// Ready is whether anything is served; Detail says why not.
	Ready  bool
	Detail string
	// Source is where devices come from; nil before the tailnet is joined.
	Source *Source
	// PolicyError says what is wrong with the policy file, and PublishError why
	// nothing can be published.
	PolicyError, PublishError string
	Services                  []topology.Service
	Devices                   []topology.Device
	Problems                  []topology.Problem
	// Degraded are the services that nobody serves, "server: 0 of 7 serving".
	Degraded []string
	Held     []guard.Held
	Drains   []drain.Record
	Changes  []events.Event // newest first
	Envoys   []Envoy        // that are connected
	// Traffic is what Envoys measured, Tables that of all services, and Table and
	// History that of the service which is shown.
	Traffic traffic.Input
	Tables  []traffic.Table
	Table   traffic.Table
	History traffic.History
}

// Source is where devices come from. LinkDown tells that the control plane's own
// node is not in touch with the coordination server.
type Source struct {
	Stale    bool
	LastGood time.Time
	Error    string
	LinkDown bool
}

// Envoy is a connected one. Address and Node tell Envoys apart, also in what they
// report.
type Envoy struct {
	Device, Node, Region string
	Address              netip.Addr
	Since                time.Time
	// Pending is whether it has not yet said what it makes of what it was sent, and
	// Rejected what it rejected, by type, in its own words.
	Pending  bool
	Rejected map[string]string
}

// TableOf is a service's table; the first one, if there is no such service.
func TableOf(tables []traffic.Table, service string) traffic.Table {
	if len(tables) == 0 {
		return traffic.Table{Service: service}
	}
	i := slices.IndexFunc(tables, func(t traffic.Table) bool { return t.Service == service })
	return tables[max(i, 0)]
}

// View is the page of the service.
func (f Input) View() dashboard.View {
	places := f.order()
	s := dashboard.Snapshot{
		Tailnet: f.Tailnet, Version: f.Version, Service: f.Table.Service, Mode: string(f.Table.Locality),
		Services: []dashboard.ServiceName{}, Regions: places.regions,
		Servers: []dashboard.Server{}, Entries: []dashboard.Entry{}, Held: []dashboard.Held{},
		Problems: f.problems(places), Changes: f.changes(), Notices: f.notices(places),
	}
	for _, service := range f.Services {
		serving := len(service.Serving())
		s.Services = append(s.Services, dashboard.ServiceName{Name: service.Name, Serving: serving, Known: serving + len(service.Idle)})
	}
	for _, i := range places.servers {
		s.Servers = append(s.Servers, f.server(f.Table.Servers[i].Endpoint))
	}
	for _, e := range places.entries {
		s.Entries = append(s.Entries, e.toWire())
	}
	for _, h := range f.Held {
		held := dashboard.Held{Service: h.Service, Reason: h.Reason, Names: []string{}}
		for _, e := range h.Endpoints {
			held.Names = append(held.Names, cmp.Or(e.Name, e.Device))
		}
		slices.SortFunc(held.Names, compareNames)
		if h.Until != nil {
			held.Until = h.Until.UnixMilli()
		}
		s.Held = append(s.Held, held)
	}
	return dashboard.View{Snapshot: s, Tick: f.tick(places), History: f.history()}
}

// server is one endpoint, and why it does not serve.
func (f Input) server(e topology.Endpoint) dashboard.Server {
	s := dashboard.Server{
		ID: e.Address.String(), Device: e.Device, Name: cmp.Or(e.Name, e.Device), Region: e.Region, Zone: e.Zone,
		Priority: int(e.Priority), Weight: int(e.Weight), State: dashboard.State(e.State), Tags: []string{},
	}
	var device topology.Device
	if i := slices.IndexFunc(f.Devices, func(d topology.Device) bool { return d.ID == e.Device }); i >= 0 {
		device = f.Devices[i]
		s.Tags = append(s.Tags, device.Tags...)
	}
	for _, h := range f.Held {
		for _, of := range h.Endpoints {
			if h.Service == f.Table.Service && of.Device == e.Device && of.Address == e.Address.String() {
				s.Held, s.Reason = true, "the list says "+of.Listed
			}
		}
	}
	for _, w := range f.Drains {
		if w.Device == e.Device || slices.Contains(w.Addresses, e.Address.Addr()) {
			s.Drain = &dashboard.Drain{By: w.By, At: w.At.UnixMilli(), Until: millis(w.Until)}
		}
	}
	if e.State != topology.Serving {
		s.Reason = stateReason(e, device)
	}
	return s
}

// stateReason says in few words why an endpoint does not serve. The page tells the time
// as the reader's clock has it, so this tells none.
func stateReason(e topology.Endpoint, device topology.Device) string {
	switch {
	case e.State == topology.Drained && e.DrainedBy != "":
		return "by an operator"
	case e.State == topology.Drained:
		return "weight 0"
	case e.State == topology.Expiring:
		return "its key expires soon"
	case e.State == topology.Expired:
		return "its key has expired"
	case device.ID == "":
		return "not listed"
	default:
		return "off the tailnet"
	}
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}
